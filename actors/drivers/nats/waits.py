"""Calls that wait for the server's answer.

nats-py goes on waiting for an answer when the link has ended or the server has refused the question. So every
call that waits is entered here, and is ended with the reason as soon as that is known.
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
    """The subject that it published to, in lower case; empty for none."""
    reason: Exception | None = None
    """Why it need not wait any longer."""


class Waits:
    """All calls of a link that wait now."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Timeout, _Waiting] = {}

    @contextlib.asynccontextmanager
    async def until_answered(self, deadline: Deadline, subject: str = "") -> AsyncIterator[None]:
        """TimeoutError at the deadline, and at once the reason that `end` was given. `subject`: where the
        call has published to, in lower case."""
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
        """All calls that wait now raise the reason; with a `subject` only those that published to it."""
        now = asyncio.get_running_loop().time()
        for limit, waiting in self._waiting.items():
            if subject is not None and waiting.subject != subject:
                continue
            waiting.reason = reason
            with contextlib.suppress(RuntimeError):  # its time is up already
                limit.reschedule(now)
