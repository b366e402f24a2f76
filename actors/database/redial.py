"""Dialling a database whose link is lost.

The module gives the options `reconnect`, `interval` and `retry` their meaning for statements.

A stream dials without being asked, because its peer speaks first.
A database is dialled for a statement: a statement that finds no link dials until its deadline.
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
"""Seconds between the last attempt and the statement's deadline.
In that time the attempt can fail, so that the caller is told the reason of the failure.
"""


class Redial:
    """How the link of one database is dialled again.

    `dial` runs on the thread that uses the driver.
    `stop` and `wake` may be called from any other thread.
    """

    def __init__(
        self,
        address: Address,
        transient: tuple[type[BaseException], ...],
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`transient`: the errors after which another attempt may help (`Driver.transient`).

        `say`: writes a line into the user's log.
        """
        self._address = address
        self._transient = transient
        self._say = say
        self._goes_on = bool(address.option("reconnect"))
        self.ends_at_loss = address.options.get("reconnect") is False
        """The user wrote `reconnect=false`: the first loss ends the connection."""
        self._seconds = float(address.option("timeout"))
        """The longest time for one attempt."""
        self._most_failures = int(address.option("retry"))
        self._backoff = backoff_of(address)
        self._up_since = time.monotonic()
        self._down_since: float | None = None
        """When the outage was told in the log; None if no outage was told."""
        self._changed = threading.Event()
        """Set to end a pause between two attempts early."""
        self._stopped = False
        self.reason = ""
        """Why the last attempt failed; "" after an attempt that succeeded."""

    @property
    def over(self) -> bool:
        """Whether a lost link is gone for good.

        That is so after the first loss with `reconnect=false`, and after `retry` failed attempts
        in a row.
        """
        return self.ends_at_loss or 0 < self._most_failures <= self._backoff.failures

    def end_error(self) -> BrokenError:
        """The error of a statement on a link that is gone for good."""
        who = f"the link to {self._address.display}"
        if self.ends_at_loss:
            why = "was lost, and with reconnect=false the connection has ended"
        else:
            why = f"was given up after {self._most_failures} attempts in a row (option retry): {self.reason}"
        return BrokenError(f"{who} {why}; nothing was run, dial again")

    def link_lost(self) -> None:
        """Note that the link is lost."""
        self._backoff.link_lasted(time.monotonic() - self._up_since)

    def dial(
        self, attempt: Callable[[Deadline], None], deadline: Deadline, unwanted: Callable[[], bool]
    ) -> None:
        """Call `attempt` until it succeeds, with pauses between.

        `unwanted`: whether the caller of the statement has stopped waiting.

        Raises the error of the last attempt in three cases: no further attempt fits before the
        deadline, a further attempt cannot help, or `retry` attempts in a row have failed.
        Raises OperationTimeout if the statement is unwanted.
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
        """Seconds to wait before the next attempt; None if there is to be no further attempt."""
        wait = self._backoff.next_wait()
        left = deadline.left() - LAST_S
        if not (self._goes_on and self._may_help(error)) or wait is None or left <= 0:
            return None
        return min(wait, left)

    def _may_help(self, error: Exception) -> bool:
        """Whether another attempt may soon succeed."""
        return isinstance(error, self._transient) and not isinstance(error, FatalError)

    def _slept(self, seconds: float, unwanted: Callable[[], bool]) -> bool:
        """Wait between two attempts. Returns False if the statement is not wanted any more."""
        limit = Deadline(seconds)
        while not (self._stopped or unwanted()):
            if limit.expired():
                return True
            # Another thread writes its flag and then sets the event.
            # This thread clears the event and then reads the flags, so no flag is missed.
            self._changed.wait(limit.left())
            self._changed.clear()
        return False

    def _note_failure(self, error: Exception) -> None:
        """Count a failed attempt, and tell the first failure of an outage in the log."""
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
        """Forget the failures, and tell the end of an outage in the log."""
        self._backoff.succeeded()
        self.reason = ""
        self._up_since = time.monotonic()
        since, self._down_since = self._down_since, None
        if since is not None:
            self._say(
                f"{self._address.display} is reached again, after {self._up_since - since:.1f} s"
            )

    def wake(self) -> None:
        """Have the waiting `dial` look at once whether its statement is still wanted.

        From any thread.
        """
        self._changed.set()

    def stop(self) -> None:
        """Make no further attempt, because the connection ends. From any thread."""
        self._stopped = True
        self._changed.set()
