"""Dialling a database whose link is not there: what the options `reconnect`, `interval` and `retry` mean for
statements.

A stream dials by itself, for its peer speaks first. A database is dialled for a statement: a statement that
finds no link dials until its own deadline.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from trunkline.actors.driver import FatalError
from trunkline.actors.net.backoff import backoff_of
from trunkline.address import Address
from trunkline.deadline import Deadline
from trunkline.errors import BrokenError, DialError, OperationTimeout

__all__ = ["Redial"]

LAST_S = 0.5
"""Seconds between the last attempt and the statement's deadline: time for the attempt to fail, so that its
reason can be told."""


class Redial:
    """How the link of one database is dialled again.

    `dial` runs on the thread that uses the driver; `stop` and `wake` may be called from any other thread.
    """

    def __init__(
        self,
        address: Address,
        transient: tuple[type[BaseException], ...],
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`transient`: the errors after which another attempt may help (`Driver.transient`). `say`: writes a
        line into the user's log."""
        self._address = address
        self._transient = transient
        self._say = say
        self._goes_on = bool(address.option("reconnect"))
        self.ends_at_loss = address.options.get("reconnect") is False
        """The user wrote `reconnect=false`: the first loss is the end of the connection."""
        self._seconds = float(address.option("timeout"))
        self._most_failures = int(address.option("retry"))
        self._backoff = backoff_of(address)
        self._up_since = time.monotonic()
        self._down_since: float | None = None
        """When the outage was told in the log; None while nothing was told."""
        self._changed = threading.Event()
        self._stopped = False
        self.reason = ""
        """Why the last attempt failed; "" after one that did not."""

    @property
    def over(self) -> bool:
        """Whether a link that is not there is gone for good: at its first loss with `reconnect=false`, or
        after `retry` attempts in a row have failed."""
        return self.ends_at_loss or 0 < self._most_failures <= self._backoff.failures

    def end_error(self) -> BrokenError:
        """Why a statement on a link that is gone for good is not run."""
        who = f"the link to {self._address.display}"
        if self.ends_at_loss:
            why = "was lost, and with reconnect=false the connection has ended"
        else:
            why = f"was given up after {self._most_failures} attempts in a row (option retry): {self.reason}"
        return BrokenError(f"{who} {why}; nothing was run, dial again")

    def link_lost(self) -> None:
        """The link that was there is gone."""
        self._backoff.link_lasted(time.monotonic() - self._up_since)

    def dial(
        self, attempt: Callable[[Deadline], None], deadline: Deadline, unwanted: Callable[[], bool]
    ) -> None:
        """Call `attempt` until it succeeds, with waits between. `unwanted`: whether the caller of the
        statement has stopped to wait for it.

        Raises the error of the last attempt when no other one fits before the deadline, when another one
        cannot help, or when `retry` attempts in a row have failed; OperationTimeout when `unwanted`.
        """
        self._changed.clear()
        while True:
            try:
                attempt(Deadline(min(deadline.left(), self._seconds)))
            except Exception as error:
                self._note_failure(error)
                pause = self._pause_after(error, deadline)
                if pause is None:
                    raise
                failure = error
            else:
                self._note_success()
                return
            if not self._slept(pause, unwanted):
                raise OperationTimeout(
                    f"the statement was given up while its server was dialled ({failure})"
                ) from None

    def _pause_after(self, error: Exception, deadline: Deadline) -> float | None:
        """How long to wait before the next attempt, in seconds; None when there is to be none."""
        wait = self._backoff.next_wait()
        left = deadline.left() - LAST_S
        if not (self._goes_on and self._may_help(error)) or wait is None or left <= 0:
            return None
        return min(wait, left)

    def _may_help(self, error: Exception) -> bool:
        """Whether another attempt may soon succeed."""
        return isinstance(error, self._transient) and not isinstance(error, FatalError)

    def _slept(self, seconds: float, unwanted: Callable[[], bool]) -> bool:
        """Wait between two attempts; False when the statement is not wanted any more."""
        limit = Deadline(seconds)
        while not (self._stopped or unwanted()):
            if limit.expired():
                return True
            self._changed.wait(limit.left())
            self._changed.clear()
        return False

    def _note_failure(self, error: Exception) -> None:
        self._backoff.failed(refused=not self._may_help(error))
        self.reason = str(error)
        if self._down_since is None and isinstance(error, DialError):
            self._down_since = time.monotonic()
            what = (
                "trying again while statements wait"
                if self._goes_on
                else "the next statement tries again"
            )
            self._say(f"{self._address.display} could not be reached: {error}; {what}")

    def _note_success(self) -> None:
        self._backoff.succeeded()
        self.reason = ""
        self._up_since = time.monotonic()
        since, self._down_since = self._down_since, None
        if since is not None:
            self._say(
                f"{self._address.display} is reached again, after {self._up_since - since:.1f} s"
            )

    def wake(self) -> None:
        """Look at once whether the statement is still wanted."""
        self._changed.set()

    def stop(self) -> None:
        """The connection ends: make no other attempt."""
        self._stopped = True
        self._changed.set()
