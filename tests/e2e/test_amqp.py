"""amqp through Dial, on RabbitMQ: what its page promises. Faults that all brokers share are in
test_broker_faults, what the driver does by itself in tests/unit/test_amqp_driver.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from tests.servers.rabbitmq import RabbitMq
from tests.support.certs import Certs
from tests.support.faultproxy import FaultProxy
from tests.support.rabbit import Rabbit, answering, rabbit_url
from tests.support.sockets import SocketServer, deaf
from tests.support.waiting import Background, until
from trunkline import Connection, Dial, Message, connect, last_error
from trunkline.deadline import Deadline
from trunkline.errors import OperationTimeout, RefusedError

FAST = {"interval": 50}


@pytest.fixture
def rabbit(rabbitmq: RabbitMq) -> Iterator[Rabbit]:
    with Rabbit(rabbitmq) as client:
        yield client


@pytest.fixture
def queue(rabbit: Rabbit, rabbitmq: RabbitMq) -> Iterator[str]:
    name = rabbitmq.unique("q")
    yield name
    rabbit.delete(name)


def dial(address: str, **options: object) -> Connection:
    conn = Dial(address, {**FAST, **options})
    assert conn is not None, last_error()
    return conn


def test_one_address_reads_what_it_writes(rabbitmq: RabbitMq, queue: str) -> None:
    with dial(rabbit_url(rabbitmq, f"queue={queue}")) as conn:
        assert conn.write("héllo") == 6
        assert conn.write(b"\xff\x00") == 2
        assert conn.read(5000) == "héllo"
        assert conn.read(5000) == b"\xff\x00"
        assert conn.read(-1) is None


def test_a_message_has_its_envelope(rabbitmq: RabbitMq, rabbit: Rabbit, queue: str) -> None:
    with dial(rabbit_url(rabbitmq, f"queue={queue}"), headers={"desk": "a"}) as conn:
        assert conn.receive(-1) is None
        assert conn.write("x") == 1
        message = conn.receive(5000)
        assert isinstance(message, Message)
        assert (message.data, message.routing_key, message.headers) == ("x", queue, {"desk": "a"})
        assert (message.offset, message.redelivered, message.properties) == (1, False, {"delivery_mode": 2})
        rabbit.send(queue, "y", reply_to="r", timestamp=5, message_id="m", headers={"n": [1, None, "a"]})
        message = conn.receive(5000)
        assert isinstance(message, Message)
        assert (message.reply_to, message.timestamp, message.properties) == ("r", 5.0, {"message_id": "m"})
        assert message.headers == {"n": [1, None, "a"]}


def test_a_request_is_answered_or_refused(rabbitmq: RabbitMq, rabbit: Rabbit, queue: str) -> None:
    with dial(rabbit_url(rabbitmq, f"write_topic={queue}")) as conn:
        assert conn.request("nobody", 2000) is None
        assert "no queue takes messages" in str(last_error())
        rabbit.queue(queue)
        with answering(rabbitmq, queue, bytes.upper):
            assert conn.request("héllo", 10_000) == "HéLLO"
            assert conn.request(b"\xffa", 10_000) == b"\xffA"
    with connect(rabbit_url(rabbitmq, f"write_topic={queue}")) as conn, pytest.raises(OperationTimeout):
        conn.request("x", 100)


def test_an_unroutable_write_returns_zero_and_says_why(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str
) -> None:
    url = rabbit_url(rabbitmq, f"write_topic={queue}")
    with dial(url) as conn:
        assert conn.write("x") == 0
        assert f"no queue takes messages for routing key '{queue}'" in str(last_error())
        assert conn.stats().state == "open"
        with connect(url) as raising, pytest.raises(RefusedError):
            raising.write("x")
        rabbit.queue(queue)
        assert conn.write("x") == 1


def test_what_is_unread_stays_with_the_broker_beyond_the_buffer(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str
) -> None:
    rabbit.queue(queue)
    rabbit.send(queue, *(str(number) for number in range(300)))
    with dial(rabbit_url(rabbitmq, f"queue={queue}"), buffer=20) as conn:
        until(lambda: conn.stats().buffered == 20, "a full buffer")
        assert rabbit.ready(queue) == 280
        assert [conn.read(5000) for _ in range(300)] == [str(number) for number in range(300)]
        stats = conn.stats()
        assert (stats.peak, stats.dropped) == (20, 0)
        until(lambda: conn.stats().buffered == 0, "the acknowledgement")
    assert rabbit.ready(queue) == 0


def test_what_was_not_read_goes_back_when_the_connection_ends(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str
) -> None:
    rabbit.queue(queue)
    with dial(rabbit_url(rabbitmq, f"queue={queue}")) as conn:
        rabbit.send(queue, *"abcde")
        assert [conn.read(5000), conn.read(5000)] == ["a", "b"]
        until(lambda: conn.stats().buffered == 3, "the acknowledgement")
    until(lambda: rabbit.ready(queue) == 3, "their way back")
    with dial(rabbit_url(rabbitmq, f"queue={queue}")) as conn:
        message = conn.receive(5000)
        assert isinstance(message, Message)
        assert (message.data, message.redelivered) == ("c", True)
        assert [conn.read(5000), conn.read(5000)] == ["d", "e"]


def test_messages_that_are_alike_are_not_taken_for_one(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str
) -> None:
    """They are known again, after an outage, by what they are; there may be several of them."""
    rabbit.queue(queue)
    with FaultProxy(rabbitmq.port) as proxy:
        with dial(rabbit_url(rabbitmq, f"queue={queue}", port=proxy.port)) as conn:
            rabbit.send(queue, *["same"] * 10, "other", *["same"] * 10)
            until(lambda: conn.stats().messages_in == 21, "their arrival")
            assert [conn.read() for _ in range(5)] == ["same"] * 5
            unread = f"{queue}\t16"  # acknowledgements that are on their way when the link breaks are lost
            until(
                lambda: unread in rabbitmq.ctl("list_queues", "name", "messages_unacknowledged"),
                "the acknowledgement",
                20,
            )
            proxy.cut()
            until(lambda: conn.stats().reconnects == 1, "the new link")
            rabbit.send(queue, "same", "end")
            got: list[object] = []
            while got[-1:] != ["end"]:
                got.append(conn.read(5000))
            assert [m for m in got if m] == ["same"] * 5 + ["other"] + ["same"] * 11 + ["end"]
            until(lambda: conn.stats().buffered == 0, "the acknowledgement")
        until(lambda: rabbit.ready(queue) == 0 == rabbit.readers(queue), "the end")


def test_a_silent_strategy_keeps_its_heartbeat(rabbitmq: RabbitMq, rabbit: Rabbit, queue: str) -> None:
    with dial(rabbit_url(rabbitmq, f"queue={queue}&heartbeat=1"), buffer=5) as conn:
        rabbit.send(queue, *(str(number) for number in range(20)))  # more than the buffer holds
        threading.Event().wait(5)  # five times what the broker and we would bear
        assert conn.stats().outages == 0
        assert [conn.read(5000) for _ in range(20)] == [str(number) for number in range(20)]
        assert conn.write("x") == 1


def test_a_queue_of_ones_own_is_bound_again_before_anything_counts(
    rabbitmq: RabbitMq, rabbit: Rabbit
) -> None:
    name = rabbitmq.unique("ex")
    try:
        with FaultProxy(rabbitmq.port) as proxy:
            url = rabbit_url(rabbitmq, f"exchange={name}&type=fanout", port=proxy.port)
            with dial(url) as conn:
                for outage in range(3):
                    assert conn.write(f"{outage}") == 1  # at once after the link is there: it is read
                    assert conn.read(5000) == f"{outage}"
                    proxy.cut()
                    until(lambda n=outage: conn.stats().reconnects == n + 1, "the new link")
                    assert conn.read(5000) == ""
    finally:
        rabbit.channel.exchange_delete(name)


def test_a_deleted_queue_is_an_outage_and_is_declared_again(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str
) -> None:
    with dial(rabbit_url(rabbitmq, f"queue={queue}")) as conn:
        rabbit.delete(queue)
        assert conn.read(5000) == ""
        assert "queue was deleted" in str(conn.stats().last_error)
        until(lambda: conn.stats().reconnects == 1, "the new link")
        assert conn.write("x") == 1
        assert conn.read(5000) == "x"


def test_payloads_are_published_on_every_link(rabbitmq: RabbitMq, rabbit: Rabbit, queue: str) -> None:
    rabbit.queue(queue)
    with FaultProxy(rabbitmq.port) as proxy:
        url = rabbit_url(rabbitmq, f"write_topic={queue}", port=proxy.port)
        with dial(url, payload=["one", "two"]) as conn:
            proxy.cut()
            until(lambda: conn.stats().reconnects == 1, "the new link")
    assert [rabbit.take(queue)[1] for _ in range(4)] == [b"one", b"two"] * 2


def test_without_reconnect_a_lost_link_stays_lost(rabbitmq: RabbitMq, queue: str) -> None:
    with (
        FaultProxy(rabbitmq.port) as proxy,
        dial(rabbit_url(rabbitmq, f"queue={queue}", port=proxy.port), reconnect=False) as conn,
    ):
        proxy.reset()
        assert conn.read(5000) == ""
        assert conn.stats().state == "lost"
        assert conn.write("x") == 0
        proxy.wait_live(0)


@pytest.mark.parametrize("killed", ["worker", "nobody"])
def test_a_hundred_thousand_numbers_come_once_and_in_order(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str, killed: str
) -> None:
    count = 100_000 if killed == "nobody" else 20_000
    rabbit.queue(queue)

    def write() -> None:
        with Rabbit(rabbitmq) as writer:
            quick = writer._connection.channel()  # without confirms: they cost a round trip each
            for number in range(count):
                quick.basic_publish("", queue, str(number).encode())

    with dial(rabbit_url(rabbitmq, f"queue={queue}")) as conn:
        writing = Background(write)
        seen: list[int] = []
        deadline = Deadline(50)
        while seen[-1:] != [count - 1]:
            assert not deadline.expired(), len(seen)
            message = conn.read(1000)
            if message:
                seen.append(int(message))
            if killed == "worker" and len(seen) == 5000:
                os.kill(conn.stats().pid, signal.SIGKILL)
                killed = "done"
        writing.result(60)
        if killed == "nobody":
            assert seen == list(range(count))
        else:
            assert set(seen) == set(range(count))  # what it had not acknowledged came again
            assert len(seen) - count <= 2000, "no more than the buffer held"
        until(lambda: conn.stats().buffered == 0, "the acknowledgement")
    until(lambda: rabbit.ready(queue) == 0, "an empty queue")


def test_revoked_credentials_are_said_and_tried_until_they_are_right_again(
    private_rabbitmq: RabbitMq,
) -> None:
    server = private_rabbitmq
    server.ctl("add_user", "brief", "secret-word")
    server.ctl("set_permissions", "brief", ".*", ".*", ".*")
    url = rabbit_url(server, f"queue={server.unique()}", login="brief:secret-word")
    with dial(url, interval=20, maxInterval=100) as conn:
        assert conn.write("x") == 1
        server.ctl("delete_user", "brief")
        until(lambda: "refused the login" in str(conn.stats().last_error), "the refusal", 20)
        assert "secret-word" not in str(conn.stats()) + repr(conn)
        assert [conn.read(1000), conn.read(1000)] == ["x", ""]
        assert conn.write("y") == 0
        server.ctl("add_user", "brief", "secret-word")
        server.ctl("set_permissions", "brief", ".*", ".*", ".*")
        until(lambda: conn.stats().state == "open", "the new link", 20)


def test_tls_with_files(rabbitmq: RabbitMq, certs: Certs, queue: str) -> None:
    address = f"amqps://u:p@localhost:{rabbitmq.ports['tls']}/?queue={queue}"
    files = {"cafile": certs.ca, "certfile": certs.client.cert, "keyfile": certs.client.key}
    with dial(address, **{name: str(path) for name, path in files.items()}) as conn:
        assert conn.write("x") == 1
        assert conn.read(5000) == "x"


def test_what_cannot_work_is_one_clear_line_in_time(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str, free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with SocketServer(deaf) as silent:
        for address, words in (
            (f"amqp://u:p@127.0.0.1:{free_port}/?queue=q", "is the server running?"),
            (f"amqp://u:p@127.0.0.1:{silent.port}/?queue=q", "no AMQP answer"),
            (f"amqp://u:p@127.0.0.1:{rabbitmq.ports['tls']}/?queue=q", "speaks TLS; use amqps://"),
            (f"amqps://u:p@127.0.0.1:{rabbitmq.port}/?queue=q", "TLS"),
            (rabbit_url(rabbitmq, "queue=q", login="u:not-the-word"), "check user and password"),
            (rabbit_url(rabbitmq, "queue=q", vhost="nowhere"), "vhost nowhere not found"),
            (rabbit_url(rabbitmq, f"queue={queue}", login="stranger:p"), "refused"),
            (rabbit_url(rabbitmq, "queue=q&routing_key=k"), "give exchange="),
            (rabbit_url(rabbitmq, ""), "'queue'"),
            (rabbit_url(rabbitmq, "queue=q&qos=1"), "qos"),
            (rabbit_url(rabbitmq, "queue=q&prefetch=many"), "prefetch"),
            (rabbit_url(rabbitmq, "queue=amq.mine"), "reserved prefix"),
        ):
            caplog.clear()
            deadline = Deadline(5)
            assert Dial(address, {"timeout": 2}) is None
            assert not deadline.expired(), address
            lines = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
            assert len(lines) == 1, lines
            assert words in lines[0]
            assert "not-the-word" not in lines[0]
            assert lines[0] == last_error()


def test_a_frozen_broker_makes_writes_unconfirmed_and_reads_lost(private_rabbitmq: RabbitMq) -> None:
    server = private_rabbitmq
    with dial(rabbit_url(server, f"queue={server.unique()}&heartbeat=1")) as conn:
        server.freeze()
        try:
            deadline = Deadline(3)
            assert conn.write("perhaps", 300) == 0
            assert not deadline.expired()
            assert "may or may not have it" in str(last_error())
            assert conn.read(5000) == ""
            assert conn.write("never", 300) == 0
        finally:
            server.thaw()
        until(lambda: conn.stats().reconnects >= 1, "the new link", 20)
        assert conn.write("after") == 5
        got = [conn.read(2000), conn.read(300)]
        assert "never" not in got
        assert "after" in got
