"""Statements of an object: what is sent for them, from scripted answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from trunkline.deadline import Deadline
from trunkline.errors import StatementError
from trunkline.proxy.statements import CHUNK_ROWS, Statements, binds_of
from trunkline.proxy.transaction import BARE, OVER
from trunkline.wire import values
from trunkline.wire.envelope import Kind
from trunkline.wire.table import pack_rows, unpack_rows

HOLDER = b"holder"


class Requests:
    """Keeps the questions, and answers from a list: bytes, an error, or a function of the part taker."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.asked: list[tuple[Kind, Any, Any]] = []

    def request_until_taken(
        self,
        kind: Kind,
        fields: tuple[Any, ...],
        body: bytes,
        deadline: Deadline,
        part: Callable[[bytes], None] | None = None,
    ) -> list[bytes]:
        self.asked.append((kind, fields, values.unpack(body)))
        answer = self.answers.pop(0)
        if callable(answer):
            return [answer(part)]
        if isinstance(answer, BaseException):
            raise answer
        return [answer]


def result(**given: Any) -> bytes:
    return values.pack({"columns": [], "values": [], **given})


@pytest.fixture
def requests() -> Requests:
    return Requests()


@pytest.fixture
def told() -> list[Any]:
    """What was told to the worker beside the requests."""
    return []


@pytest.fixture
def statements(requests: Requests, told: list[Any]) -> Statements:
    connection = SimpleNamespace(_requests=None, _member=None)
    member = SimpleNamespace(
        about=SimpleNamespace(scheme="postgres"),
        key=b"key",
        holder_id=HOLDER,
        owner=lambda: connection,
        client=SimpleNamespace(tell=lambda *message: told.append(message)),
    )
    return Statements(member, requests)  # type: ignore[arg-type]


def test_rows_that_come_ahead_stand_before_the_last(
    statements: Statements, requests: Requests
) -> None:
    def answer(part: Callable[[bytes], None]) -> bytes:
        part(pack_rows([[1], [2]]))
        part(pack_rows([[3]]))
        return result(columns=["n"], values=[[4]])

    requests.answers = [answer]
    found = statements.execute("SELECT", [7], 1000, None)
    assert found.values == [[1], [2], [3], [4]]
    ((kind, fields, body),) = requests.asked
    assert (kind, fields[:2], body) == (Kind.EXEC, (None, 1000), ["SELECT", [7]])


def test_a_bare_begin_puts_the_next_statements_into_its_transaction(
    statements: Statements, requests: Requests
) -> None:
    requests.answers = [result(in_transaction=True), result(in_transaction=False)]
    assert statements.token() is None
    statements.execute("BEGIN", [], None, statements.token())
    assert statements.token() == BARE
    statements.execute("COMMIT", [], None, statements.token())
    assert statements.token() is None
    assert [fields[0] for _, fields, _ in requests.asked] == [None, BARE]


def test_a_transaction_that_is_over_is_forgotten(
    statements: Statements, requests: Requests
) -> None:
    requests.answers = [result(in_transaction=True), StatementError("it is over", code=OVER)]
    statements.execute("BEGIN", [], None, None)
    with pytest.raises(StatementError, match="it is over"):
        statements.execute("SELECT 1", [], None, statements.token())
    assert statements.token() is None


def test_rows_of_executemany_go_in_chunks(statements: Statements, requests: Requests) -> None:
    requests.answers = [result()]

    def rows() -> Iterator[tuple[int, str]]:
        yield from ((number, "x") for number in range(CHUNK_ROWS + 1))

    statements.executemany("INSERT", rows(), None, None)
    ((_, _, (sql, chunks, in_chunk, count)),) = requests.asked
    assert (sql, in_chunk, count) == ("INSERT", CHUNK_ROWS, CHUNK_ROWS + 1)
    assert [len(unpack_rows(chunk)) for chunk in chunks] == [CHUNK_ROWS, 1]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("text", "executemany takes rows, not str"),
        ({"a": 1}, "executemany takes rows, not dict"),
        (7, "executemany takes rows, not int"),
        ([[1], {"a": 1}], "either all mappings or all lists and tuples"),
        ([[1], "text"], "one of them is a str"),
    ],
)
def test_rows_that_are_none_are_refused(statements: Statements, rows: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        statements.executemany("INSERT", rows, None, None)


def test_a_query_that_fails_is_ended_in_case_it_has_begun(
    statements: Statements, requests: Requests, told: list[Any]
) -> None:
    requests.answers = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        statements.query("SELECT", [], None, None)
    assert told == [(b"key", Kind.END_QUERY, (HOLDER, 1))]


def test_a_query_gives_its_first_rows_and_has_a_number(
    statements: Statements, requests: Requests, told: list[Any]
) -> None:
    requests.answers = [values.pack([["n"], False, False, pack_rows([[1], [2]])])]
    rows = statements.query("SELECT", [5], 1000, None)
    assert (rows.columns, list(rows)) == (["n"], [[1], [2]])
    assert requests.asked[0][2] == ["SELECT", [5], 1]
    assert told == []


@pytest.mark.parametrize(
    ("sql", "timeout", "error", "words"),
    [
        (7, None, TypeError, "exec takes SQL text, not int"),
        ("SELECT", "5", TypeError, "a number of milliseconds, not str"),
        ("SELECT", True, TypeError, "a number of milliseconds, not bool"),
        ("SELECT", 0, ValueError, "must be above zero"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    statements: Statements, sql: Any, timeout: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        statements.execute(sql, [], timeout, None)


def test_binds_are_a_list_or_a_mapping() -> None:
    assert binds_of(()) == []
    assert binds_of((1, "a")) == [1, "a"]
    assert binds_of(({"a": 1},)) == {"a": 1}
    assert binds_of(({"a": 1}, 2)) == [{"a": 1}, 2]
