"""The globals of a strategy, put together."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from trunkline.strategy.absent import ABSENT
from trunkline.strategy.commands import Commands
from trunkline.strategy.constants import CONSTANTS
from trunkline.strategy.database import Database
from trunkline.strategy.encode import encode
from trunkline.strategy.events import EventLoop
from trunkline.strategy.exchange import Exchange, Secrets
from trunkline.strategy.going import going
from trunkline.strategy.httpquery import HttpQuery
from trunkline.strategy.journal import Journal
from trunkline.strategy.mail import Mail
from trunkline.strategy.plain import Screen
from trunkline.strategy.push import Push
from trunkline.strategy.stop import StopError, Stopper
from trunkline.strategy.storage import Store
from trunkline.strategy.text import join, style
from trunkline.strategy.tools import TOOLS

__all__ = ["Globals", "PanicError"]

log = logging.getLogger("trunkline")


class PanicError(Exception):
    """`Panic` was called. The text is already in the log."""


class Globals:
    """The globals that need the runner: log, status, stop and store."""

    def __init__(
        self,
        journal: Journal,
        screen: Screen,
        stopper: Stopper,
        folder: Path,
        dial: Callable[..., Any],
        secrets: Secrets,
        name: str = "",
    ) -> None:
        self._journal = journal
        self._screen = screen
        self._stopper = stopper
        self._dial = dial
        self._retry_s = 3.0
        self._folder = folder
        self.database = Database(dial, folder)
        self._store = Store(folder)
        self._exchange = Exchange(secrets)
        self.push = Push(lambda text: log.warning("%s", text), name)
        self.http = HttpQuery(journal.error)
        self._events = EventLoop()

    def names(self) -> dict[str, Any]:
        """Every global by its name."""
        own = (
            self.Log, self.LogStatus, self.LogError, self.LogProfit, self.LogReset, self.LogProfitReset,
            self.Sleep, self._C, self._CDelay, self.SetErrorFilter, self.GetLastError, self.Panic,
        )  # fmt: skip
        http, mail = self.http, Mail(self._journal.error)
        return {
            **CONSTANTS,
            **ABSENT,
            **TOOLS,
            **{method.__name__: method for method in own},
            "Dial": self._watched_dial,
            "DBExec": self._in_data_folder(self.database),
            "Encode": encode,
            "EventLoop": self._events,
            "GetCommand": Commands(),
            "HttpQuery": http,
            "HttpQuery_Go": going(http),
            "Mail": mail,
            "Mail_Go": going(mail),
            "StopError": StopError,
            "_G": self._in_data_folder(self._store),
            "exchange": self._exchange,
            "exchanges": [self._exchange],
            "false": False,
            "null": None,
            "time": time,
            "true": True,
        }

    def _in_data_folder(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a global that uses the data folder.

        Where the folder cannot be used, the wrapped global writes an error row and returns None.
        """

        def stored(*values: Any, **options: Any) -> Any:
            try:
                return call(*values, **options)
            except (OSError, sqlite3.OperationalError) as error:
                why = getattr(error, "strerror", None) or str(error)
                text = f"the data folder {self._folder} cannot be used ({why})"
                self._journal.error(f"{text}: give --data DIR or set TRUNKLINE_DATA")
                return None

        return stored

    def Log(self, *values: Any) -> None:
        """Add a row to the log: the values, separated by spaces.

        `#rrggbb` at the end colours the row. A last `@` also sends the text to people
        (`TRUNKLINE_PUSH`). A last `&` (private) is removed.
        """
        text = join(values)
        self._journal.add("log", text)
        styled = style(text)
        if "@" in styled.marks:
            self.push.send(styled.text)

    def Panic(self, *values: Any) -> NoReturn:
        """Add an error row and end the strategy: `onexit` is called, and the exit code is 1."""
        self._journal.error(join(values))
        raise PanicError(join(values))

    def _watched_dial(self, *args: Any, **options: Any) -> Any:
        """`Dial`, whose connections `EventLoop` watches."""
        connection = self._dial(*args, **options)
        if connection is not None:
            self._events.add(connection)
        return connection

    def LogError(self, *values: Any) -> None:
        """Add an error row.

        `SetErrorFilter` may hide the row; `GetLastError` returns its text anyway.
        """
        self._journal.error(join(values))

    def LogStatus(self, *values: Any) -> None:
        """Replace the status: text, and tables as JSON between backticks.

        The status is not stored.
        """
        with self._stopper:
            self._screen.status(join(values))

    def LogProfit(self, profit: float, *values: Any) -> None:
        """Add a profit row and a point of the profit curve. With a last "&", add only the point."""
        quiet = bool(values) and str(values[-1]).strip() == "&"
        if not quiet:
            self._journal.add("profit", join((profit, *values)), float(profit))
            return
        with self._stopper:
            self._screen.profit(float(profit))

    def LogReset(self, remain: int = 0) -> None:
        """Delete the stored log except its newest `remain` rows."""
        self._journal.reset(int(remain))

    def LogProfitReset(self, remain: int = 0) -> None:
        """Delete the stored profit rows except the newest `remain` rows."""
        self._journal.reset(int(remain), profit=True)

    def Sleep(self, ms: float) -> None:
        """Wait `ms` milliseconds. Raises `StopError` at once when the strategy is to stop."""
        self._stopper.sleep(float(ms) / 1000)

    def _C(self, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Call `function` until it returns a value other than False and None; return that value."""
        while (result := function(*args, **named)) is None or result is False:
            self._stopper.sleep(self._retry_s)
        return result

    def _CDelay(self, ms: float) -> None:
        """Set the pause of `_C` between two calls, in milliseconds (at first 3000)."""
        self._retry_s = float(ms) / 1000

    def SetErrorFilter(self, pattern: str) -> None:
        """Hide errors that match this regular expression, in addition to earlier filters; ""
        removes all filters."""
        self._journal.filter(pattern)

    def GetLastError(self) -> str | None:
        """Return the text of the last error, even of a hidden error; None without an error since
        the last call."""
        return self._journal.take_last_error()
