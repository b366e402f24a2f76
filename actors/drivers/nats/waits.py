"""Calls that wait for an answer of the server.

nats-py goes on waiting when the link has ended or the server has refused the question. So every
waiting call registers here, and `end` makes it raise the reason at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from trunkline.deadline import Deadline

__all__ = ["Waits"]


@dataclass(slots=True)
class _Waiting:
    """A call that waits."""

    subject: str
    """The subject that the call has published to, in lower case; empty for none."""
    reason: Exception | None = None
    """Why the call need not wait any longer; None while it waits."""


class Waits:
    """The waiting calls of one link."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Timeout, _Waiting] = {}

    @contextlib.asynccontextmanager
    async def until_answered(self, deadline: Deadline, subject: str = "") -> AsyncIterator[None]:
        """Limit the waiting of the block.

        Raises TimeoutError at the deadline, or the reason given to `end` as soon as it is given.
        `subject`: the subject that the call has published to, in lower case.
        """
        limit = asyncio.timeout(deadline.timeout())
        waiting = self._waiting[limit] = _Waiting(subject)
        try:
            async with limit:
                yield
        except TimeoutError:
            if waiting.reason is not None:
                raise waiting.reason from None
            raise
        finally:
            del self._waiting[limit]

    def end(self, reason: Exception, subject: str | None = None) -> None:
        """Make the waiting calls raise `reason`.

        With a `subject`, only calls that published to the subject.
        """
        now = asyncio.get_running_loop().time()
        for limit, waiting in self._waiting.items():
            if subject is not None and waiting.subject != subject:
                continue
            waiting.reason = reason
            with contextlib.suppress(RuntimeError):  # the timeout has fired already
                limit.reschedule(now)
