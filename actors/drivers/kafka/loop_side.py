"""The way from the reader's thread to the event loop: messages, the end of a link, warnings,
answers.

The reader's thread polls librdkafka, and the driver lives on the event loop. Every call from the
thread to the driver goes through `LoopSide`, so no other part of the reader needs to know the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from trunkline.actors.driver import Delivery

__all__ = ["LoopSide", "Owner"]


class Owner(Protocol):
    """The driver object that reads. All methods are called on the event loop."""

    def arrived(self, batch: Sequence[Delivery]) -> None: ...
    def went(self, reason: BaseException) -> None: ...
    def passed_over(self, count: int) -> None: ...
    def say(self, text: str) -> None: ...


class LoopSide:
    """The event loop, and the driver object that reads at the moment.

    The event loop assigns `owner`; all methods run on the reader's thread. The owner may change at
    any moment, so each method reads the attribute once. Without an owner, warnings and counts are
    dropped.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.owner: Owner | None = None
        """The driver object of the present link; None between two links."""

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Have the event loop call `function` soon."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and with it the driver
            self.loop.call_soon_threadsafe(function, *arguments)

    def warn(self, text: str) -> None:
        """Write a line to the user's log."""
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
        """Give a request its result or its error, unless the caller has stopped waiting."""
        if error is not None:
            # The frames of the traceback refer to the consumer, which would live as long as the
            # error.
            error.__traceback__ = error.__context__ = None

        def set_outcome() -> None:
            if future.done():
                return
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

        self.call(set_outcome)
