"""Transactions of a program: what is said to the worker, and what is told to the user."""

from __future__ import annotations

import gc
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from trunkline.errors import (
    BrokenError,
    BrokerGone,
    OperationTimeout,
    OutcomeUnknown,
    StatementError,
    Unsupported,
    WorkerDied,
)
from trunkline.proxy.route import NotTaken
from trunkline.proxy.transaction import OVER, Transaction
from trunkline.wire.envelope import Kind

HOLDER = b"holder"


class Connection:
    """What `Transaction` asks of its connection. `answers`: None, or the error, for each question."""

    def __init__(self, *answers: BaseException | None) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.told: list[str] = []
        self._statements = SimpleNamespace(local=threading.local())
        self._member = SimpleNamespace(
            holder_id=HOLDER, key=b"key", client=SimpleNamespace(tell=self._tell)
        )
        self._requests = SimpleNamespace(
            request=lambda kind, holder, *fields, deadline: self._ask(*fields),
            request_until_taken=lambda kind, fields, body, deadline: self._ask(*fields),
            client_now=lambda deadline: None,
        )

    def _ask(self, token: bytes, what: str, *times: Any) -> list[bytes]:
        self.asked.append(what)
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        return [b""]

    def _tell(self, key: bytes, kind: Kind, fields: tuple[Any, ...]) -> None:
        assert (key, kind, fields[0]) == (b"key", Kind.TRANSACTION, HOLDER)
        self.told.append(fields[2])


def made(connection: Connection, timeout_ms: Any = 1000, how: str = "") -> Transaction:
    return Transaction(connection, timeout_ms, how)  # type: ignore[arg-type]


def test_a_block_is_committed_and_belongs_to_its_thread() -> None:
    connection = Connection()
    block = made(connection)
    with block as given:
        assert given is connection
        assert Transaction.of_thread(connection._statements.local) is block
        assert Transaction.holds_up(b"key")
        assert not Transaction.holds_up(b"another")
    assert connection.asked == ["begin", "commit"]
    assert connection.told == []
    assert Transaction.of_thread(connection._statements.local) is None
    assert not Transaction.holds_up(b"key")


def test_a_block_that_raises_is_rolled_back_and_its_own_error_is_seen() -> None:
    connection = Connection(None, BrokenError("the link is gone"))
    with pytest.raises(ZeroDivisionError), made(connection):
        raise ZeroDivisionError
    assert connection.asked == ["begin", "rollback"]
    assert connection.told == ["rollback"]  # the worker is told once more, when it can hear


def test_blocks_of_one_thread_do_not_nest() -> None:
    connection = Connection()
    with made(connection), pytest.raises(Unsupported, match="they do not nest"), made(connection):
        pass
    assert connection.asked == ["begin", "commit"]


def test_modes_stand_behind_the_begin() -> None:
    connection = Connection()
    with made(connection, how="IMMEDIATE"):
        pass
    assert connection.asked == ["begin IMMEDIATE", "commit"]


@pytest.mark.parametrize("error", [WorkerDied("x"), OperationTimeout("x"), BrokerGone("x")])
def test_a_commit_without_an_answer_is_unknown(error: Exception) -> None:
    connection = Connection(None, error)
    with pytest.raises(OutcomeUnknown, match="may or may not be committed"), made(connection):
        pass
    assert connection.asked[:2] == ["begin", "commit"]


def test_a_commit_that_no_worker_took_was_rolled_back() -> None:
    connection = Connection(None, NotTaken("the worker is gone"))
    with (
        pytest.raises(StatementError, match="it was rolled back; begin it again") as caught,
        made(connection),
    ):
        pass
    assert caught.value.code == OVER


def test_a_commit_that_the_database_refuses_is_over() -> None:
    connection = Connection(None, StatementError("serialization failure", code="40001"))
    with pytest.raises(StatementError, match="serialization failure"), made(connection):
        pass
    assert connection.told == []


def test_a_begin_that_fails_may_have_begun() -> None:
    connection = Connection(OperationTimeout("no turn came"))
    with pytest.raises(OperationTimeout), made(connection):
        pass
    assert connection.told == ["rollback"]
    assert not Transaction.holds_up(b"key")


@pytest.mark.parametrize("step", [0, 1])
def test_ctrl_c_at_either_end_tells_the_worker_to_roll_back(step: int) -> None:
    connection = Connection(*([None] * step), KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt), made(connection):
        pass
    assert connection.told == ["rollback"]
    assert not Transaction.holds_up(b"key")


def test_an_object_that_is_dropped_in_a_transaction_ends_it() -> None:
    connection = Connection()
    transaction = made(connection)
    transaction.begin()
    del transaction
    gc.collect()
    assert connection.told == ["rollback"]


@pytest.mark.parametrize(
    ("timeout_ms", "error"),
    [(True, TypeError), ("5", TypeError), (0, ValueError), (-1, ValueError)],
)
def test_a_timeout_that_is_none_is_refused(timeout_ms: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="transaction's timeout_ms"):
        made(Connection(), timeout_ms)
