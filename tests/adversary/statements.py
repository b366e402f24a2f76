"""The program under trial with a database: numbered rows, questions whose answers are known. See `program`.

Notes beside those of `Program`:

    ["x", number, began, ended, outcome]   a row (number, 0) was inserted: "ok", or the error's name
    ["t", number, began, ended, outcome]   the same for a transaction with the rows (number, 1), (number, 2)
    ["rows", [[number, part], ...]]        what is in the table at the end
"""

from __future__ import annotations

import time
from typing import Any

import trunkline
from tests.adversary.program import PACE, Program

__all__ = ["DatabaseProgram"]

EXEC_MS = 1000
IN_FORM_OF_DIAL = "None"
"""The outcome of a statement that failed on an object of `Dial`, which does not raise."""


class DatabaseProgram(Program):
    def dialled(self, conn: Any) -> None:
        """Make the table, and do not begin before it is there."""
        while self.config["create"] and not self.ending.is_set():
            outcome, _ = self.outcome(conn, self.config["create"])
            if outcome == "ok":
                self.config["create"] = ""
            PACE.wait(0.02)

    def outcome(self, conn: Any, sql: str, *binds: object) -> tuple[str, Any]:
        try:
            found = self.call(
                "exec", EXEC_MS / 1000, lambda: conn.exec(sql, *binds, timeout=EXEC_MS)
            )
        except trunkline.TrunklineError as error:
            return type(error).__name__, str(error)
        return (
            (IN_FORM_OF_DIAL, trunkline.last_error()) if found is None else ("ok", found["values"])
        )

    # one thread asks

    def read(self, conn: Any, generation: int, who: str) -> bool:
        self._asked = getattr(self, "_asked", 0) + 1
        self.ask(conn, self._asked)
        if self._asked % 20 == 0 and self.figures(conn)[0] in ("lost", "failed", "closed"):
            self.dial(generation)
        PACE.wait(0.01)
        return False

    def ask(self, conn: Any, number: int) -> None:
        outcome, values = self.outcome(conn, f"SELECT 1000 + {number}")
        if outcome == "ok" and [list(row) for row in values] != [[1000 + number]]:
            self.note("wrong", f"SELECT 1000 + {number} was answered {values}")
        if outcome == "StatementError" and "the statement was stopped" not in values:
            self.note("wrong", f"SELECT 1000 + {number}: {values}")

    def forked(self, conn: Any, generation: int) -> None:
        self._asked = getattr(self, "_asked", 0) + 1
        self.ask(conn, 100_000 + self._asked)

    # one inserts

    def write(self, conn: Any) -> None:
        self._number += 1
        number, began = self._number * 10, time.monotonic()
        outcome, text = self.outcome(conn, self.config["insert"].format(n=number, part=0))
        self.note("x", number, began, time.monotonic(), outcome, text if outcome != "ok" else "")
        if outcome == "ok" and self._number % 4 == 0:
            self.look(conn, number)

    def look(self, conn: Any, number: int) -> None:
        """What was done is seen by the next statement."""
        outcome, values = self.outcome(conn, self.config["select"].format(n=number))
        if outcome == "ok" and [list(row) for row in values] != [[number]]:
            self.note("wrong", f"row {number} was inserted and the next statement finds {values}")

    def do_transaction(self) -> None:
        """Two rows, or none."""
        conn = self.conn
        if conn is None or self.config["scheme"] == "clickhouse":
            return
        self._transactions = getattr(self, "_transactions", 0) + 1
        number, began, outcome = self._transactions * 10 + 5, time.monotonic(), "interrupted"
        try:
            outcome = self._in_transaction(conn, number)
        except trunkline.TrunklineError as error:
            outcome = type(error).__name__
        finally:
            self.note("t", number, began, time.monotonic(), outcome)

    def _in_transaction(self, conn: Any, number: int) -> str:
        insert = self.config["insert"]
        with conn.transaction():
            for part in (1, 2):
                if conn.exec(insert.format(n=number, part=part), timeout=EXEC_MS) is None:
                    raise trunkline.BrokenError("as an object of connect would have raised")
        return "ok"

    # the end

    def do_finish(self) -> None:
        self.finishing.set()
        PACE.wait(0.3)
        until = time.monotonic() + 30
        while time.monotonic() < until:
            conn = self.conn
            if conn is not None and self._rows(conn):
                break
            PACE.wait(0.05)
        conn = self.conn
        if conn is not None:
            self.note("done", self.generation, *self.figures(conn))

    def _rows(self, conn: Any) -> bool:
        outcome, values = self.outcome(conn, self.config["all"])
        if outcome == "ok":
            self.note("rows", [list(row) for row in values])
        return outcome == "ok"
