"""kafka through Dial: what a strategy sees of it, with real servers, faults and wrong input."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.servers.kafka import Kafka, KafkaMock
from tests.support.certs import Certs
from tests.support.kafka import BareClient, KafkaProxy, make_topic
from tests.support.sockets import SocketServer, deaf, unused_port
from tests.support.waiting import Background, until
from trunkline import Connection, Dial, Message, connect, last_error
from trunkline.deadline import Deadline
from trunkline.errors import DialError, RefusedError, TrunklineError, Unconfirmed

AnyKafka = Kafka | KafkaMock


def dial(address: str, **options: object) -> Connection:
    conn = Dial(address, options)
    assert conn is not None, last_error()
    return conn


@pytest.fixture
def client(kafka: AnyKafka) -> Iterator[BareClient]:
    made = BareClient(kafka)
    yield made
    made.close()


@pytest.fixture
def proxy(kafka: AnyKafka) -> Iterator[KafkaProxy]:
    with KafkaProxy(kafka) as made:
        yield made


def read_until(conn: Connection, last: int, seconds: float = 60.0) -> list[int]:
    """The numbers read, until `last` has come."""
    got: list[int] = []
    deadline = Deadline(seconds)
    while not got or got[-1] != last:
        assert not deadline.expired(), f"{len(got)}: {got[-5:]}"
        if message := conn.read(500):
            got.append(int(message))
    return got


# what a strategy does


def test_the_seeds_address_writes_and_reads_its_topic(kafka: AnyKafka) -> None:
    # Nobody has made the topic; localhost may be two addresses, of which the server has one.
    with dial(f"kafka://localhost:{kafka.port}/{kafka.unique('test_topic')}") as conn:
        assert conn.write("kafka, test msg.") == 16
        assert conn.read(5000) == "kafka, test msg."
        assert conn.read(-1) is None


def test_envelopes(kafka: AnyKafka, client: BareClient) -> None:
    topic = make_topic(kafka)
    with dial(f"kafka://{kafka.address}/{topic}?partition=0") as conn:
        client.write(topic, "1", key="eur", headers=[("kind", b"tick"), ("n", b"1"), ("n", b"2")])
        message = conn.receive(5000)
        assert isinstance(message, Message)
        assert (message.data, message.topic, message.key) == ("1", topic, "eur")
        assert message.headers == {"kind": "tick", "n": ["1", "2"]}
        assert (message.partition, message.offset, message.redelivered) == (0, 0, False)
        assert abs((message.timestamp or 0) - time.time()) < 60
        client.write(topic, b"\xff\xfe")
        assert conn.read(5000) == b"\xff\xfe"


def test_key_headers_and_partition_of_what_is_written(kafka: AnyKafka, client: BareClient) -> None:
    topic = make_topic(kafka, 4)
    with dial(f"kafka://{kafka.address}/{topic}?partition=2&key=k", headers={"h": "v"}) as conn:
        assert conn.write("x") == 1
        (message,) = client.read(topic)
        assert (message.partition(), message.key(), message.headers()) == (2, b"k", [("h", b"v")])
        assert conn.read(5000) == "x"


def test_many_writers_are_confirmed_together(kafka: AnyKafka, client: BareClient) -> None:
    topic = make_topic(kafka)
    with dial(f"kafka://{kafka.address}?write_topic={topic}&partition=0") as conn:

        def write(thread: int) -> None:
            for number in range(100):
                assert conn.write(f"{thread} {number}")

        threads = [Background(lambda n=n: write(n)) for n in range(8)]
        for each in threads:
            each.result(30)
        values = [message.value().decode().split() for message in client.read(topic, [0])]
        for thread in range(8):
            assert [int(n) for t, n in values if int(t) == thread] == list(range(100))


def test_login_and_tls(apache_kafka: Kafka, certs: Certs) -> None:
    topic = make_topic(apache_kafka)
    for address in (
        f"kafka://u:p@{apache_kafka.at('sasl')}/{topic}",
        f"kafka://u:p@{apache_kafka.at('sasl')}/{topic}?sasl_mechanisms=SCRAM-SHA-512",
        f"kafka://u:p@{apache_kafka.at('sasl_tls')}/{topic}|cafile={certs.ca}",
        f"kafka://{apache_kafka.at('tls')}/{topic}|cafile={certs.ca}",
        f"kafka://{apache_kafka.at('tls')}/{topic}?security.protocol=ssl&ssl.ca.location={certs.ca}",
    ):
        with dial(address) as conn:
            assert conn.write("in") == 2
            assert conn.read(5000) == "in"


# groups


def test_a_group_goes_on_where_its_readers_were(kafka: AnyKafka, client: BareClient) -> None:
    topic, group = make_topic(kafka), kafka.unique("g")
    address = f"kafka://{kafka.address}/{topic}?group={group}"
    with dial(address) as conn:
        client.write(topic, *map(str, range(10)))
        assert [conn.read(5000) for _ in range(4)] == ["0", "1", "2", "3"]
        until(lambda: client.committed(group, topic) == 4, "the commit")
    client.write(topic, "10")
    with dial(address) as conn:
        assert read_until(conn, 10) == list(range(4, 11))


def test_what_a_killed_worker_had_comes_again(kafka: AnyKafka, client: BareClient) -> None:
    topic, group = make_topic(kafka), kafka.unique("g")
    address = f"kafka://{kafka.address}/{topic}?group={group}&session_timeout_ms=6000"
    with dial(address, interval=20) as conn:
        client.write(topic, *map(str, range(10)))
        assert [conn.read(5000) for _ in range(3)] == ["0", "1", "2"]
        until(lambda: client.committed(group, topic) == 3, "the commit")
        pid = conn.stats().pid
        os.kill(pid, signal.SIGKILL)
        got = read_until(conn, 9)
        assert set(got) >= set(range(3, 10))
        until(lambda: conn.stats().pid not in (0, pid), "the next worker", 30)
        deadline = Deadline(40)
        while client.committed(group, topic) != 10:
            assert not deadline.expired()
            if message := conn.read(200):
                got.append(int(message))
        assert set(got) == set(range(3, 10))


def test_two_programs_share_a_group(apache_kafka: Kafka) -> None:
    topic, group = make_topic(apache_kafka, 4), apache_kafka.unique("g")
    address = f"kafka://{apache_kafka.address}/{topic}?group={group}"
    client = BareClient(apache_kafka)
    got: list[list[str]] = [[], []]

    def read(which: int, conn: Connection, stop: threading.Event) -> None:
        while not stop.is_set():
            if message := conn.read(50):
                got[which].append(str(message))

    with dial(address) as one, dial(address) as two:
        stop = threading.Event()
        readers = [Background(lambda n=n, c=c: read(n, c, stop)) for n, c in enumerate((one, two))]
        # The first one hears of the second with its next heartbeat.
        deadline, number = Deadline(30), 0
        while not (got[0] and got[1] and number >= 100):
            assert not deadline.expired()
            client.write(topic, str(number), partition=number % 4)
            number += 1
        until(lambda: len({*got[0], *got[1]}) == number, "all of them", 30)
        stop.set()
        for reader in readers:
            reader.result()
        # What was under way when the partitions moved may have come to both.
        assert {*got[0], *got[1]} == {str(n) for n in range(number)}
    client.close()


# faults


def faults(proxy: KafkaProxy, fault: str) -> Callable[[], None]:
    """Do it; returns what ends it."""
    if fault == "cut":
        proxy.refuse()
        proxy.cut()
    elif fault == "reset":
        proxy.refuse()
        proxy.reset()
    else:
        proxy.blackhole()
    return proxy.heal


@pytest.mark.parametrize("group", [True, False])
@pytest.mark.parametrize("fault", ["cut", "reset", "blackhole"])
def test_none_lost_whatever_happens_to_the_network(
    kafka: AnyKafka, client: BareClient, proxy: KafkaProxy, fault: str, group: bool
) -> None:
    topic = make_topic(kafka)
    name = f"&group={kafka.unique('g')}" if group else ""
    address = f"kafka://{proxy.address}/{topic}?partition=0{name}"
    with dial(address, interval=50, pingInterval=2000) as conn:
        client.write(topic, *map(str, range(300)))
        assert [conn.read(5000) for _ in range(100)] == [str(n) for n in range(100)]
        for outage in (1, 2):
            end = faults(proxy, fault)
            until(lambda n=outage: conn.stats().outages == n, "the loss", 20)
            assert conn.write("late") == 0
            client.write(topic, *map(str, range(200 + 100 * outage, 300 + 100 * outage)))
            end()
            until(lambda n=outage: conn.stats().reconnects == n, "the new link", 20)
        got = read_until(conn, 499)
        # What was read a moment before the loss may not have been acknowledged by then, and come again.
        again = [number for number in got if number < 100]
        assert len(again) <= 100
        assert [number for number in got if number >= 100] == list(range(100, 500)), (
            "once each, in order"
        )
        stats = conn.stats()
        assert (stats.dropped, stats.outages) == (0, 2)
    values = {message.value() for message in client.read(topic, [0])}
    assert b"late" not in values, "nothing written in an outage is sent later"


def test_a_frozen_server_is_noticed_and_reading_goes_on(private_kafka: Kafka) -> None:
    topic = make_topic(private_kafka)
    client = BareClient(private_kafka)
    options = {"pingInterval": 2000, "interval": 50, "maxInterval": 1000}
    with dial(f"kafka://{private_kafka.address}/{topic}", **options) as conn:
        assert conn.write("0") == 1
        assert conn.read(5000) == "0"
        private_kafka.freeze()
        try:
            begun = time.monotonic()
            assert conn.read(15_000) == ""
            assert time.monotonic() - begun < 8
            assert conn.write("1", 500) == 0
            private_kafka.thaw()
            until(lambda: conn.stats().reconnects == 1, "the new link", 30)
            client.write(topic, "2")
            deadline = Deadline(10)
            while conn.read(500) != "2":
                assert not deadline.expired()
        finally:
            private_kafka.thaw()
    client.close()


def test_a_write_that_nobody_confirms_says_so(kafka: AnyKafka, proxy: KafkaProxy) -> None:
    topic = make_topic(kafka)
    with connect(f"kafka://{proxy.address}/{topic}?partition=0") as conn:
        assert conn.write("0") == 1
        proxy.stall("up")
        with pytest.raises(Unconfirmed, match="may have arrived"):
            conn.write("1", 300)


def test_a_login_that_was_taken_away_is_tried_until_it_is_right_again(
    start_kafka: Callable[..., Kafka],
) -> None:
    server = start_kafka()
    topic = make_topic(server)
    from confluent_kafka.admin import (
        AdminClient,
        ScramCredentialInfo,
        ScramMechanism,
        UserScramCredentialDeletion,
        UserScramCredentialUpsertion,
    )

    proxy = KafkaProxy(server, server.ports["sasl"])
    try:
        address = f"kafka://u:p@{proxy.address}/{topic}?sasl_mechanisms=SCRAM-SHA-256"
        with dial(address, interval=20, maxInterval=100) as conn:
            assert conn.write("0") == 1
            assert conn.read(10_000) == "0"
            admin = AdminClient({"bootstrap.servers": server.address})
            gone = UserScramCredentialDeletion("u", ScramMechanism.SCRAM_SHA_256)
            admin.alter_user_scram_credentials([gone])["u"].result(10)
            proxy.cut()
            until(lambda: "refused the login" in str(conn.stats().last_error), "the refusal", 20)
            client = BareClient(server)
            client.write(topic, "1")  # the link is down: read when it is there again
            client.close()
            again = UserScramCredentialUpsertion(
                "u", ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), b"p"
            )
            admin.alter_user_scram_credentials([again])["u"].result(10)
            until(lambda: conn.stats().state == "open", "the new link", 20)
            assert [conn.read(10_000), conn.read(10_000)] == ["", "1"]
            del admin
    finally:
        proxy.stop()


# wrong input


def refused(
    address: str, text: str, seconds: float = 10.0, or_text: str = "", **options: object
) -> None:
    begun = time.monotonic()
    with pytest.raises(TrunklineError) as caught:
        connect(address, options)
    assert time.monotonic() - begun < seconds
    assert text in str(caught.value) or (or_text and or_text in str(caught.value)), caught.value
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_nobody_or_somebody_else_is_there() -> None:
    with unused_port() as port:
        refused(f"kafka://127.0.0.1:{port}/t", "refused the connection; is the server running?")
    with SocketServer(deaf) as server:
        # Said by the worker or, if that is a moment late, by the client.
        refused(
            f"kafka://127.0.0.1:{server.port}/t", "no answer", 4, "could not be opened", timeout=1
        )


def test_wrong_login_and_no_rights(apache_kafka: Kafka) -> None:
    refused(f"kafka://u:s3cret@{apache_kafka.at('sasl')}/t", "refused the login")
    topic = make_topic(apache_kafka)
    refused(
        f"kafka://limited:p@{apache_kafka.at('sasl')}/{topic}", f"no right to the topic '{topic}'"
    )


def test_a_message_over_the_limit(apache_kafka: Kafka) -> None:
    topic = make_topic(apache_kafka, **{"max.message.bytes": "1000"})
    with connect(f"kafka://{apache_kafka.address}/{topic}") as conn:
        with pytest.raises(RefusedError, match="over its limit"):
            conn.write("x" * 2000)
        assert conn.write("y") == 1


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("kafka://127.0.0.1", "topic"),
        ("kafka://127.0.0.1/t?qos=1", "qos"),
        ("kafka://127.0.0.1/t?no.such=1", 'No such configuration property: "no.such"'),
        ("kafka://127.0.0.1/t?offset=sometime", "offset"),
        ("kafka://127.0.0.1/t|proxy=socks5://127.0.0.1:1", "cannot be had with kafka"),
    ],
)
def test_what_is_wrong_in_the_address_is_told_at_once(address: str, text: str) -> None:
    refused(address, text, 5)


def test_the_error_of_an_unknown_topic_is_a_dial_error(start_kafka: Callable[..., Kafka]) -> None:
    server = start_kafka(config="auto.create.topics.enable=false")
    with pytest.raises(DialError, match="no topic 'nosuch' and makes none by itself"):
        connect(f"kafka://{server.address}/nosuch")
