"""Interrupts, notices and descriptions without a server."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from trunkline.actors.driver import Result
from trunkline.actors.drivers.postgres.cancel import Interrupts
from trunkline.actors.drivers.postgres.descriptions import Descriptions
from trunkline.actors.drivers.postgres.notices import Notices
from trunkline.actors.drivers.postgres.shapes import Shape
from trunkline.actors.drivers.postgres.statements import read
from trunkline.errors import StatementError

# interrupts


class Canceller:
    """A server that takes note, or does not."""

    def __init__(self, *, takes_note: bool = True) -> None:
        self.takes_note = takes_note
        self.sent = 0

    def send(self, seconds: float) -> bool:
        self.sent += 1
        return self.takes_note

    def close(self) -> None:
        self.sent = -1


def _interrupts(*, takes_note: bool = True) -> tuple[Any, Interrupts]:
    canceller: Any = Canceller(takes_note=takes_note)
    return canceller, Interrupts(canceller)


def test_a_request_that_has_worked_is_not_awaited_any_more() -> None:
    canceller, interrupts = _interrupts()
    interrupts.interrupt()
    assert interrupts.is_asked
    interrupts.note_cancelled()
    interrupts.forget()
    assert not interrupts.is_asked
    assert not interrupts.take_late(in_transaction=False)
    interrupts.close()
    assert canceller.sent == -1


def test_a_request_that_came_too_late_is_absorbed_once() -> None:
    _, interrupts = _interrupts()
    interrupts.interrupt()
    assert interrupts.take_late(in_transaction=False)
    assert not interrupts.take_late(in_transaction=False)


def test_in_a_transaction_nothing_can_absorb_it() -> None:
    _, interrupts = _interrupts()
    interrupts.interrupt()
    assert not interrupts.take_late(in_transaction=True)
    assert not interrupts.take_late(in_transaction=False)


def test_no_second_request_goes_out_while_one_is_on_its_way() -> None:
    canceller, interrupts = _interrupts(takes_note=False)
    interrupts.interrupt()
    interrupts.interrupt()
    assert canceller.sent == 1
    assert interrupts.is_loose
    interrupts.note_cancelled()
    assert not interrupts.is_loose


def test_a_statement_timeout_of_the_servers_own_is_no_answer_to_a_later_request() -> None:
    _, interrupts = _interrupts()
    interrupts.note_cancelled()
    interrupts.interrupt()
    assert interrupts.take_late(in_transaction=False)


# notices


def test_a_warning_is_told_once_and_without_the_statement() -> None:
    told: list[str] = []
    notices = Notices(told.append)
    text = "WARNING:  there is no transaction\nLINE 1: SELECT 'secret'\n               ^\n"
    connection = SimpleNamespace(notifies=["x"], notices=[text, text, "NOTICE:  created\n"])
    notices.tell(connection)
    assert told == ["WARNING: there is no transaction"]
    assert (connection.notifies, connection.notices) == ([], [])
    connection.notices = [text]
    notices.tell(connection)
    assert len(told) == 1


# descriptions


class Server:
    """Answers each question with the same types; keeps what it was asked."""

    def __init__(self, rows: Sequence[Sequence[Any]] = (), *, in_transaction: bool = False) -> None:
        self.rows, self.open = rows, in_transaction
        self.asked: list[str] = []
        self.refusal: StatementError | None = None

    def run(self, text: str, values: Any = None, whole: bool = False) -> Result:
        self.asked.append(text)
        if self.refusal is not None and "PREPARE" in text and "DEALLOCATE" not in text:
            self.open = True
            raise self.refusal
        return Result(values=self.rows)

    def in_transaction(self) -> bool:
        return self.open


def _any(shapes: Sequence[Shape]) -> bool:
    return True


def _none(shapes: Sequence[Shape]) -> bool:
    return False


TEXT = read("INSERT INTO t VALUES (?)", 1)


def test_the_server_is_asked_once_for_each_text() -> None:
    server = Server()
    found = Descriptions(server)
    found.shapes(TEXT, 1, _any)
    asked = len(server.asked)
    assert asked == 2
    assert server.asked[0].startswith("BEGIN; PREPARE trunkline_1 AS INSERT INTO t VALUES")
    assert server.asked[1] == "DEALLOCATE trunkline_1; COMMIT"
    found.shapes(TEXT, 1, _any)
    assert len(server.asked) == asked


def test_it_is_asked_again_where_the_values_do_not_fit_or_something_was_defined() -> None:
    server = Server()
    found = Descriptions(server)
    found.shapes(TEXT, 1, _any)
    found.shapes(TEXT, 1, _none)
    assert len(server.asked) == 4
    found.note_statements(read("SELECT 1", 0))
    found.shapes(TEXT, 1, _any)
    assert len(server.asked) == 4
    found.note_statements(read("ALTER TABLE t ADD x int", 0))
    found.shapes(TEXT, 1, _any)
    assert len(server.asked) == 6


def test_in_a_transaction_a_refusal_leaves_it_as_it_was() -> None:
    server = Server(in_transaction=True)
    server.refusal = StatementError("no such table", code="42P01")
    with pytest.raises(StatementError, match="no such table"):
        Descriptions(server).shapes(TEXT, 1, _any)
    assert server.asked[0].startswith("SAVEPOINT trunkline_1; PREPARE")
    assert server.asked[1:] == ["ROLLBACK TO SAVEPOINT trunkline_1; RELEASE SAVEPOINT trunkline_1"]


def test_types_that_were_told_before_may_be_stale() -> None:
    found = Descriptions(Server())
    wrong_type = StatementError("invalid", code="22P02")
    assert not found.forget_stale(wrong_type, TEXT), "nothing was told"
    found.shapes(TEXT, 1, _any)
    assert found.forget_stale(wrong_type, TEXT)
    assert not found.forget_stale(wrong_type, TEXT), "forgotten"
    found.shapes(TEXT, 1, _any)
    assert not found.forget_stale(StatementError("unique", code="23505"), TEXT)
