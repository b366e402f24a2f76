"""`reconnect`, `interval` and `retry` on database servers: what a statement does that finds no link."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import trunkline
from tests.support.statements import rows
from tests.support.waiting import Background, until
from trunkline.deadline import Deadline
from trunkline.errors import BrokenError, DialError, OperationTimeout, TrunklineError
from trunkline.proxy.connection import Connection
from trunkline.testing.faultproxy import FaultProxy

ADDRESSES = {
    "mariadb": "mysql://u:p@tcp(127.0.0.1:{port})/t",
    "postgres": "postgres://u:p@127.0.0.1:{port}/postgres?sslmode=disable",
    "clickhouse": "clickhouse://u:p@127.0.0.1:{port}/default",
}


@pytest.fixture(params=ADDRESSES)
def proxy(request: pytest.FixtureRequest) -> Iterator[FaultProxy]:
    """A proxy before a server, for each kind of server."""
    server = request.getfixturevalue(request.param)
    with FaultProxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def dial(proxy: FaultProxy, request: pytest.FixtureRequest) -> Callable[..., Connection]:
    """`dial("retry=2")`: a connection through the proxy."""
    address = ADDRESSES[request.node.callspec.params["proxy"]].format(port=proxy.port)
    return lambda options: trunkline.connect(f"{address}|{options}", linger=0.2)


def lose(proxy: FaultProxy) -> None:
    """The server is gone, and takes no new links."""
    proxy.refuse()
    proxy.cut()


def refused(work: Callable[[], Any]) -> TrunklineError:
    with pytest.raises(TrunklineError) as caught:
        work()
    return caught.value


def test_statements_wait_for_a_server_that_is_away(
    proxy: FaultProxy, dial: Callable[..., Connection], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with dial("interval=20") as db, trunkline.connect(db.fd() or 0) as other:
        assert rows(db, "SELECT 1") == [[1]]
        lose(proxy)
        late = Deadline(30)
        error = refused(lambda: db.exec("SELECT 2", timeout=900))
        assert isinstance(error, (DialError, OperationTimeout))
        assert "refused" in str(error)
        assert not late.expired()
        waiting = [
            Background(lambda: rows(db, "SELECT 3")),
            Background(lambda: other.exec("SELECT 3", timeout=60_000)["values"]),  # type: ignore[index]
            Background(lambda: list(other.query("SELECT 3", timeout=60_000) or [])),
        ]
        until(lambda: db.stats().state == "down", "the outage told")
        assert all(each.running() for each in waiting)
        proxy.heal()
        assert [each.result() for each in waiting] == [[[3]]] * 3
        until(lambda: "is reached again" in caplog.text, "the end of the outage told")
        assert caplog.text.count("could not be reached") == 1
        assert db.stats().state == "open"


def test_a_statements_own_deadline_counts_and_not_that_of_the_dial(
    proxy: FaultProxy, dial: Callable[..., Connection]
) -> None:
    with dial("interval=20&timeout=1") as db, trunkline.connect(db.fd() or 0) as other:
        lose(proxy)
        waiting = [
            Background(lambda: rows_in_time(db, "SELECT 3")),
            Background(lambda: list(other.query("SELECT 3", timeout=60_000) or [])),
        ]
        longer = Deadline(2.5)  # than the option `timeout`
        until(longer.expired, "more time than a dial has")
        assert all(each.running() for each in waiting)
        proxy.heal()
        assert [each.result() for each in waiting] == [[[3]]] * 2


def rows_in_time(connection: Connection, sql: str) -> Any:
    result = connection.exec(sql, timeout=60_000)
    assert result is not None
    return result["values"]


def test_without_reconnect_the_first_loss_is_the_end(
    proxy: FaultProxy, dial: Callable[..., Connection]
) -> None:
    with dial("reconnect=false") as db:
        assert rows(db, "SELECT 1") == [[1]]
        proxy.cut()
        until(lambda: db.stats().state == "lost", "the loss seen without a statement")
        for call in (
            lambda: db.exec("SELECT 2"),
            lambda: db.query("SELECT 2"),
            lambda: db.transaction().begin(),
        ):
            error = refused(call)
            assert isinstance(error, BrokenError)
            assert "reconnect=false" in str(error)
        assert proxy.connections == 1


def test_retry_gives_up_after_so_many_failures(
    proxy: FaultProxy, dial: Callable[..., Connection]
) -> None:
    with dial("retry=3&interval=1") as db:
        lose(proxy)
        assert "refused" in str(refused(lambda: db.exec("SELECT 2", timeout=60_000)))
        until(lambda: db.stats().state == "failed", "the end told")
        proxy.heal()
        error = refused(lambda: db.exec("SELECT 2"))
        assert isinstance(error, BrokenError)
        assert "3 attempts" in str(error)
        assert "refused" in str(error)


def test_a_dropped_object_stops_the_dialling(
    proxy: FaultProxy, dial: Callable[..., Connection]
) -> None:
    with dial("interval=600000") as db, trunkline.connect(db.fd() or 0) as other:
        lose(proxy)
        waiting = Background(lambda: db.exec("SELECT 2"))
        until(lambda: other.stats().state == "down", "the dialling")
        db.close()
        with pytest.raises(TrunklineError):
            waiting.result()
        proxy.heal()
        assert rows(other, "SELECT 3") == [[3]]
