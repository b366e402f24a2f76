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
from tests.support.amqp_tables import item, nested
from tests.support.certs import Certs
from tests.support.rabbit import Rabbit, answering, rabbit_url
from tests.support.sockets import SocketServer, deaf
from tests.support.waiting import Background, until
from trunkline import Connection, Dial, Message, connect, last_error
from trunkline.deadline import Deadline
from trunkline.errors import OperationTimeout, RefusedError
from trunkline.testing.faultproxy import FaultProxy

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
        assert (message.offset, message.redelivered, message.properties) == (
            1,
            False,
            {"delivery_mode": 2},
        )
        rabbit.send(
            queue, "y", reply_to="r", timestamp=5, message_id="m", headers={"n": [1, None, "a"]}
        )
        message = conn.receive(5000)
        assert isinstance(message, Message)
        assert (message.reply_to, message.timestamp, message.properties) == (
            "r",
            5.0,
            {"message_id": "m"},
        )
        assert message.headers == {"n": [1, None, "a"]}


def test_a_request_is_answered_or_refused(rabbitmq: RabbitMq, rabbit: Rabbit, queue: str) -> None:
    with dial(rabbit_url(rabbitmq, f"write_topic={queue}")) as conn:
        assert conn.request("nobody", 2000) is None
        assert "no queue takes messages" in str(last_error())
        rabbit.queue(queue)
        with answering(rabbitmq, queue, bytes.upper):
            assert conn.request("héllo", 10_000) == "HéLLO"
            assert conn.request(b"\xffa", 10_000) == b"\xffA"
    with (
        connect(rabbit_url(rabbitmq, f"write_topic={queue}")) as conn,
        pytest.raises(OperationTimeout),
    ):
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


def test_a_header_time_in_milliseconds_does_not_keep_back_the_queue(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str
) -> None:
    with dial(rabbit_url(rabbitmq, f"queue={queue}")) as conn:
        milliseconds = b"T" + (1_772_000_000_000).to_bytes(8, "big")
        rabbit.send_raw(queue, "x", item(b"at", milliseconds) + item(b"n", b"t\x01"))
        rabbit.send_raw(queue, "y", item(b"deep", nested(20_000)) + item(b"n", b"t\x01"))
        rabbit.send(queue, "z")
        first, second = conn.receive(5000), conn.receive(5000)
        assert isinstance(first, Message)
        assert isinstance(second, Message)
        assert (first.data, first.headers) == ("x", {"at": 1_772_000_000_000, "n": True})
        assert (second.data, second.headers["n"]) == ("y", True)
        assert conn.read(5000) == "z"
        stats = conn.stats()
        assert (stats.outages, stats.dropped) == (0, 0)
        assert "could not be read and were left out: 'deep'" in str(stats.last_error)


def test_a_quorum_queues_count_of_deliveries_makes_no_other_message(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str
) -> None:
    """It adds a header to what it gives again, by which the message has to be known all the same."""
    with FaultProxy(rabbitmq.port) as proxy:
        url = rabbit_url(rabbitmq, f"queue={queue}&x-queue-type=quorum", port=proxy.port)
        with dial(url) as conn:
            rabbit.send(queue, *"abc", headers={"desk": "a"})
            rabbit.send(queue, *"def")
            until(lambda: conn.stats().messages_in == 6, "their arrival")
            proxy.cut()
            until(lambda: conn.stats().reconnects == 1, "the new link")
            rabbit.send(queue, "end")
            got: list[object] = []
            while got[-1:] != ["end"]:
                got.append(conn.read(5000))
            assert [m for m in got if m] == [*"abcdef", "end"]


def test_a_silent_strategy_keeps_its_heartbeat(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str
) -> None:
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
                    assert (
                        conn.write(f"{outage}") == 1
                    )  # at once after the link is there: it is read
                    assert conn.read(5000) == f"{outage}"
                    proxy.cut()
                    until(lambda n=outage: conn.stats().reconnects == n + 1, "the new link")
                    assert conn.read(5000) == ""
    finally:
        rabbit.channel.exchange_delete(name)


def test_a_queue_that_somebody_deleted_is_waited_for_and_not_declared_again(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str
) -> None:
    with dial(rabbit_url(rabbitmq, f"queue={queue}"), maxInterval=100) as conn:
        rabbit.delete(queue)
        assert conn.read(5000) == ""
        gone = f"the queue '{queue}' is gone"
        until(lambda: gone in str(conn.stats().last_error), "the cause in words")
        assert conn.stats().state == "down"
        os.kill(conn.stats().pid, signal.SIGKILL)
        until(lambda: conn.stats().incarnation == 2, "another worker")
        until(lambda: gone in str(conn.stats().last_error), "the cause in words")
        # the operator's own kind of queue, which a plain one in its place would have refused
        rabbit.queue(queue, durable=True, arguments={"x-queue-type": "quorum"})
        until(lambda: conn.stats().state == "open", "the new link")
        assert conn.write("x") == 1
        while (message := conn.read(5000)) == "":
            pass
        assert message == "x"


@pytest.mark.parametrize("flag", ["auto_delete=true", "durable=false"])
def test_what_was_deleted_is_known_to_the_next_worker(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str, flag: str
) -> None:
    """Such a queue goes by itself, and is declared again; but not when somebody has deleted it."""
    with dial(rabbit_url(rabbitmq, f"queue={queue}&{flag}"), maxInterval=100) as conn:
        rabbit.delete(queue)
        assert conn.read(5000) == ""
        gone = f"the queue '{queue}' is gone"
        until(lambda: gone in str(conn.stats().last_error), "the cause in words")
        for incarnation in (2, 3):
            os.kill(conn.stats().pid, signal.SIGKILL)
            until(lambda number=incarnation: conn.stats().incarnation == number, "another worker")
            until(lambda: gone in str(conn.stats().last_error), "the cause in words")
        rabbit.queue(queue, durable=True)
        until(lambda: conn.stats().state == "open", "the new link")
        assert conn.write("x") == 1


@pytest.mark.parametrize(
    "flag", ["auto_delete=true", "exclusive=true", "durable=false&auto_delete=true"]
)
def test_a_queue_that_goes_with_its_link_is_declared_for_the_next(
    rabbitmq: RabbitMq, flag: str
) -> None:
    queue = rabbitmq.unique("q")  # it goes with its reader: nobody else may delete an exclusive one
    with (
        FaultProxy(rabbitmq.port) as proxy,
        dial(
            rabbit_url(rabbitmq, f"queue={queue}&{flag}", port=proxy.port), maxInterval=100
        ) as conn,
    ):
        proxy.reset()
        assert conn.read(5000) == ""
        until(lambda: conn.stats().reconnects == 1, "the new link")
        os.kill(conn.stats().pid, signal.SIGKILL)
        until(
            lambda: conn.stats().incarnation == 2 and conn.stats().state == "open", "another worker"
        )
        assert conn.write("x") == 1


def test_payloads_are_published_on_every_link(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str
) -> None:
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
            deadline = Deadline(20)
            assert Dial(address, {"timeout": 5}) is None
            assert not deadline.expired(), address
            lines = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
            assert len(lines) == 1, lines
            assert words in lines[0]
            assert "not-the-word" not in lines[0]
            assert lines[0] == last_error()


def test_a_frozen_broker_makes_writes_unconfirmed_and_reads_lost(
    private_rabbitmq: RabbitMq,
) -> None:
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


def test_lag_is_what_the_queue_holds_for_the_reader(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str
) -> None:
    rabbit.queue(queue)
    rabbit.send(queue, *(str(number) for number in range(30)))
    with dial(rabbit_url(rabbitmq, f"queue={queue}"), buffer=10) as conn:
        assert conn.stats().lag == 30, "at once"
        until(lambda: conn.stats().buffered == 10, "a full buffer")
        until(lambda: conn.stats().lag == 30, "its depth")
        assert [conn.read(5000) for _ in range(12)] == [str(number) for number in range(12)]
        until(lambda: conn.stats().lag == 18, "the acknowledgements")
        rabbit.send(queue, "a", "b")
        until(lambda: conn.stats().lag == 20, "the new ones")
        assert [conn.read(5000) for _ in range(20)][-1] == "b"
        until(lambda: conn.stats().lag == 0, "an empty queue")
        kept = conn.receive(0.001, ack=False)
        assert kept is None
        rabbit.send(queue, "c")
        kept = conn.receive(5000, ack=False)
        assert isinstance(kept, Message)
        until(lambda: conn.stats().lag == 1, "what is kept counts")
        assert kept.ack()
        until(lambda: conn.stats().lag == 0, "nothing")
    with dial(rabbit_url(rabbitmq, f"write_topic={queue}")) as conn:
        assert conn.stats().lag is None


def test_the_lag_of_a_stream_is_not_known(rabbitmq: RabbitMq, rabbit: Rabbit, queue: str) -> None:
    rabbit.queue(queue, durable=True, arguments={"x-queue-type": "stream"})
    with dial(rabbit_url(rabbitmq, f"queue={queue}&x-stream-offset=first")) as conn:
        assert conn.write("x") == 1
        assert conn.read(5000) == "x"
        assert conn.stats().lag is None
