"""What a reader's thread tells the event loop: messages, the end of a link, warnings, answers to requests.

A thread of the reader serves librdkafka, and the driver lives on the loop. Every call from the thread to
the driver goes through `LoopSide`, so that no other part of the reader needs to know about the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from trunkline.actors.driver import Delivery

__all__ = ["LoopSide", "Owner"]


class Owner(Protocol):
    """The driver that reads. All methods are called on the loop."""

    def arrived(self, batch: Sequence[Delivery]) -> None: ...
    def went(self, reason: BaseException) -> None: ...
    def passed_over(self, count: int) -> None: ...
    def say(self, text: str) -> None: ...


class LoopSide:
    """The loop and the driver that reads at the moment. The loop assigns `owner`; all methods are for the
    reader's thread. Without an owner warnings and counts go nowhere."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.owner: Owner | None = None
        """The driver object of the present link; None between two links."""

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Have the loop call `function` soon."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: no driver listens any more
            self.loop.call_soon_threadsafe(function, *arguments)

    def warn(self, text: str) -> None:
        """A line for the user's log."""
        owner = self.owner
        if owner is not None:
            self.call(owner.say, text)

    def pass_over(self, count: int) -> None:
        """Count messages that are lost, or that are not given out."""
        owner = self.owner
        if owner is not None:
            self.call(owner.passed_over, count)

    def report_loss(self, reason: BaseException) -> None:
        """Tell the owner that its link is gone."""
        owner = self.owner
        if owner is not None:
            self.call(owner.went, reason)

    def answer(
        self, future: asyncio.Future[Any], error: BaseException | None, value: object = None
    ) -> None:
        """Give a request its result, or its error, unless its caller has given up."""
        if error is not None:
            # The frames of a traceback refer to the consumer, which would live as long as the error.
            error.__traceback__ = error.__context__ = None

        def set_outcome() -> None:
            if future.done():
                return
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

        self.call(set_outcome)
