"""The rows of a query, batch by batch, from a scripted worker."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from trunkline.errors import BrokenError, ClosedError, TrunklineError
from trunkline.proxy.rows import Rows
from trunkline.wire import values
from trunkline.wire.envelope import Kind
from trunkline.wire.table import pack_rows

HOLDER = b"holder"


class Connection:
    """What `Rows` asks of its connection: answers from a list, and notes of the questions."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[Any, ...]] = []
        self.told: list[tuple[Any, ...]] = []
        self._requests = SimpleNamespace(request=self._request)
        self._member = SimpleNamespace(
            holder_id=HOLDER, key=b"key", client=SimpleNamespace(tell=self._tell)
        )

    def _request(self, kind: Kind, *fields: Any, deadline: Any) -> list[bytes]:
        self.asked.append((kind, *fields))
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        more, rows = answer
        return [values.pack([more, pack_rows(rows)])]

    def _tell(self, *message: Any) -> None:
        self.told.append(message)


def rows_of(connection: Connection, first: list[list[Any]], number: int | None = 5) -> Rows:
    return Rows(connection, ["n"], first, number, 1000)  # type: ignore[arg-type]


def test_batches_are_fetched_as_they_are_taken() -> None:
    connection = Connection((True, [[2], [3]]), (False, [[4]]))
    rows = rows_of(connection, [[1]])
    assert next(rows) == [1]
    assert connection.asked == []
    assert list(rows) == [[2], [3], [4]]
    assert connection.asked == [(Kind.FETCH, HOLDER, 5, 1000)] * 2
    assert "at its end" in repr(rows)
    rows.close()
    assert len(connection.asked) == 2  # the worker has ended the query by itself


def test_a_short_result_asks_for_nothing() -> None:
    connection = Connection()
    assert list(rows_of(connection, [[1], [2]], None)) == [[1], [2]]
    assert connection.asked == []


def test_an_error_is_raised_again_and_again() -> None:
    connection = Connection(BrokenError("the server is gone", code="08006"))
    rows = rows_of(connection, [])
    for _ in range(2):
        with pytest.raises(BrokenError, match="the server is gone") as caught:
            next(rows)
        assert caught.value.code == "08006"
    assert len(connection.asked) == 1


def test_a_block_that_is_left_gives_up_the_rest() -> None:
    connection = Connection((True, []))
    with rows_of(connection, [[1], [2]]) as rows:
        assert next(rows) == [1]
    assert connection.asked == [(Kind.END_QUERY, HOLDER, 5)]
    with pytest.raises(ClosedError, match="this query was closed"):
        next(rows)


def test_closing_never_raises_an_error_of_the_connection() -> None:
    rows = rows_of(Connection(TrunklineError("the worker is gone")), [])
    rows.close()
    assert "closed" in repr(rows)


def test_dropping_the_object_tells_the_worker() -> None:
    connection = Connection()
    rows = rows_of(connection, [[1]])
    del rows
    assert connection.told == [(b"key", Kind.END_QUERY, (HOLDER, 5))]


def test_an_interrupted_fetch_ends_the_query() -> None:
    connection = Connection(KeyboardInterrupt(), (True, []))
    rows = rows_of(connection, [])
    with pytest.raises(KeyboardInterrupt):
        next(rows)
    assert connection.asked[-1] == (Kind.END_QUERY, HOLDER, 5)
    with pytest.raises(ClosedError):
        next(rows)


def test_an_interrupted_close_is_told_by_the_other_way() -> None:
    connection = Connection(KeyboardInterrupt())
    rows = rows_of(connection, [])
    with pytest.raises(KeyboardInterrupt):
        rows.close()
    assert connection.told == [(b"key", Kind.END_QUERY, (HOLDER, 5))]


def in_child(work: Callable[[], bool]) -> bool:
    pid = os.fork()
    if pid == 0:
        os._exit(0 if work() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_forked_child_reads_what_is_there_and_ends_nothing() -> None:
    connection = Connection((True, []))
    rows = rows_of(connection, [[1]])

    def work() -> bool:
        if next(rows) != [1]:
            return False
        try:
            next(rows)
        except ClosedError:
            rows.close()
            return connection.asked == [] and connection.told == []
        return False

    assert in_child(work)
    assert next(rows) == [1]
    rows.close()
