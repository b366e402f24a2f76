"""`seek` through broker and worker: no holder gives what was on its way, and the figures add up."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.servers.kafka import Kafka
from tests.support.kafka import BareClient, KafkaProxy, make_topic
from tests.support.waiting import Background, until
from trunkline import Connection, Dial, connect, last_error
from trunkline.errors import BrokenError, ClosedError, OperationTimeout, RefusedError, Unsupported

COUNT = 3000


@pytest.fixture
def client(apache_kafka: Kafka) -> Iterator[BareClient]:
    made = BareClient(apache_kafka)
    yield made
    made.close()


@pytest.fixture
def topic(apache_kafka: Kafka, client: BareClient) -> str:
    topic = make_topic(apache_kafka)
    client.write(topic, *(str(number) for number in range(COUNT)))
    return topic


def dial(address: str, **options: object) -> Connection:
    conn = Dial(address, options)
    assert conn is not None, last_error()
    return conn


def adds_up(conn: Connection) -> bool:
    stats = conn.stats()
    assert stats.dropped == 0
    return stats.messages_in == stats.read + stats.buffered + stats.skipped


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("envelopes", [False, True])
def test_the_next_message_is_the_one_there(
    apache_kafka: Kafka, topic: str, grouped: bool, envelopes: bool
) -> None:
    group = f"&group={apache_kafka.unique('g')}" if grouped else ""

    def take(conn: Connection) -> object:
        message = conn.receive(10_000) if envelopes else conn.read(10_000)
        return message.data if envelopes else message  # type: ignore[union-attr]

    with dial(f"kafka://{apache_kafka.address}/{topic}?offset=earliest{group}") as conn:
        assert [take(conn) for _ in range(3)] == ["0", "1", "2"]
        until(lambda: conn.stats().buffered > 1000)  # sent ahead, and waiting
        for place, first in ((2500, 2500), ("earliest", 0), (0, 0), (2999, 2999), (10, 10)):
            assert conn.seek(place)
            for number in range(first, min(first + 300, COUNT)):
                assert take(conn) == str(number)
        assert conn.seek("latest")
        assert conn.read(-1) is None
        until(lambda: adds_up(conn))
        assert conn.stats().skipped > 1000
        assert conn.stats().outages == 0


@pytest.mark.parametrize("grouped", [False, True])
def test_every_holder_goes_on_there(apache_kafka: Kafka, topic: str, grouped: bool) -> None:
    """One was streamed to, one waits, and one of them seeks."""
    group = f"&group={apache_kafka.unique('g')}" if grouped else ""
    with dial(f"kafka://{apache_kafka.address}/{topic}?offset=earliest{group}") as conn:
        assert conn.read(10_000) == "0"
        until(lambda: conn.stats().buffered > 1000)
        with Dial(conn.fd()) as other:  # type: ignore[arg-type, union-attr]
            assert other.read(10_000) is not None
            for reader, seeker in ((conn, other), (other, conn), (conn, conn)):
                assert seeker.seek(2000)
                got = [reader.read(10_000), other.read(10_000), conn.read(10_000)]
                assert got == ["2000", "2001", "2002"]
            assert conn.seek("latest")
            waiting = [Background(lambda each=each: each.read(20_000)) for each in (conn, other)]
            until(lambda: conn.stats().buffered == 0)
            assert other.seek(COUNT - 2)
            assert sorted(each.result(20) for each in waiting) == [str(COUNT - 2), str(COUNT - 1)]
            assert conn.read(-1) is other.read(-1) is None
            until(lambda: adds_up(conn))


def test_a_group_goes_on_there_after_a_killed_worker(apache_kafka: Kafka, topic: str) -> None:
    address = (
        f"kafka://{apache_kafka.address}/{topic}?group={apache_kafka.unique('g')}&offset=earliest"
    )
    with dial(address, buffer=100) as conn:
        assert conn.read(10_000) == "0"
        assert conn.seek(1500)
        os.kill(conn.stats().pid, signal.SIGKILL)  # type: ignore[arg-type]
        while not (message := conn.read(30_000)):
            assert message is not None
        assert message == "1500"


def test_what_a_killed_worker_left_is_not_read_after_a_seek(
    apache_kafka: Kafka, topic: str
) -> None:
    """Without a group it is read first, as after any loss; but not what lies before the seek."""
    with dial(f"kafka://{apache_kafka.address}/{topic}?offset=earliest") as conn:
        assert conn.read(10_000) == "0"
        until(lambda: conn.stats().buffered > 1000)
        incarnation = conn.stats().incarnation
        os.kill(conn.stats().pid, signal.SIGKILL)  # type: ignore[arg-type]
        until(
            lambda: conn.stats().incarnation > incarnation and conn.stats().state == "open",
            seconds=30,
        )
        assert conn.seek(2000)
        while not (message := conn.read(30_000)):
            assert message is not None
        assert message == "2000"


def test_a_stopped_holder_is_told_of(apache_kafka: Kafka, topic: str) -> None:
    with connect(f"kafka://{apache_kafka.address}/{topic}?offset=earliest") as conn:
        handle = conn.fd()
        ready, there = os.pipe()
        child = os.fork()
        if child == 0:
            with Dial(handle) as other:  # type: ignore[arg-type, union-attr]
                os.write(there, b"x" if other.read(20_000) else b"-")
                signal.pause()
        try:
            assert os.read(ready, 1) == b"x"
            os.kill(child, signal.SIGSTOP)
            with pytest.raises(OperationTimeout, match="stopped"):
                conn.seek(1000, timeout_ms=1500)
            os.kill(child, signal.SIGCONT)
            assert conn.seek(2000, timeout_ms=20_000)
            assert conn.read(10_000) == "2000"
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(ready)
            os.close(there)


def test_what_is_wrong_is_told(apache_kafka: Kafka, client: BareClient, topic: str) -> None:
    with KafkaProxy(apache_kafka) as proxy:
        conn = connect(
            f"kafka://{proxy.address}/{topic}?offset=earliest|interval=60000&pingInterval=2000"
        )
        silent = dial(f"kafka://{apache_kafka.address}/{topic}?offset=earliest")
        with pytest.raises(RefusedError, match=f"has the offsets 0 to {COUNT - 1}"):
            conn.seek(COUNT + 1)
        assert silent.seek(COUNT + 1) is False
        assert "has the offsets" in (last_error() or "")
        assert (conn.read(10_000), silent.read(10_000)) == ("0", "0")
        for wrong in (-1, "tomorrow", "1960-01-01T00:00:00Z"):
            with pytest.raises(ValueError, match="seek"):
                conn.seek(wrong)
        for wrong in (None, 1.5, True, b"1"):
            with pytest.raises(TypeError, match="seek"):
                conn.seek(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="partition"):
            conn.seek(0, topic, "0")  # type: ignore[arg-type]
        proxy.blackhole()
        with pytest.raises(OperationTimeout, match="reading goes on where it was"):
            conn.seek(5, timeout_ms=500)
        proxy.reset()
        until(lambda: conn.stats().state == "down", seconds=20)
        with pytest.raises(BrokenError, match="down"):
            conn.seek(5)
        conn.close()
        with pytest.raises(ClosedError):
            conn.seek(5)
        silent.close()
        assert silent.seek(5) is False


def test_other_schemes_refuse() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with connect(address) as conn, pytest.raises(Unsupported, match="tcp:// has no seek"):
            conn.seek(0)
    with (
        connect("sqlite3://:memory:") as db,
        pytest.raises(Unsupported, match="sqlite3:// has no seek"),
    ):
        db.seek("earliest")
