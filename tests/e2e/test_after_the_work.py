"""Messages that are acknowledged after the work (`receive(ack=False)`), on the real servers: what a strategy
that dies in its work had comes again, what it has done does not, and a verdict reaches the message broker.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.servers.kafka import Kafka
from tests.servers.mosquitto import Mosquitto
from tests.servers.nats import Nats
from tests.servers.rabbitmq import RabbitMq
from tests.support.kafka import BareClient, make_topic
from tests.support.nats_side import NatsSide
from tests.support.programs import Program
from tests.support.rabbit import Rabbit, rabbit_url
from tests.support.waiting import until
from trunkline import Connection, Dial, Message, connect, last_error
from trunkline.errors import Unsupported


@dataclass
class Place:
    """Where to read and write."""

    read: str
    write: str


@pytest.fixture(params=["mqtt", "jetstream", "amqp", "kafka"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A queue that keeps what is not acknowledged."""
    if request.param == "mqtt":
        server: Mosquitto = request.getfixturevalue("mosquitto")
        name = server.unique("t")
        at = f"mqtt://127.0.0.1:{server.port}"
        yield Place(
            f"{at}?topic={name}&qos=1&clean=false&client_id={name}",
            f"{at}?write_topic={name}&qos=1",
        )
    elif request.param == "jetstream":
        nats: Nats = request.getfixturevalue("jetstream")
        name, at = nats.unique("S"), f"nats://127.0.0.1:{nats.port}"
        with NatsSide(at) as side:
            side.stream(name, name)
            query = f"topic={name}&stream={name}"
            yield Place(f"{at}?{query}&durable=d&ack_wait=5000", f"{at}?write_{query}")
            side.delete_stream(name)
    elif request.param == "amqp":
        rabbitmq: RabbitMq = request.getfixturevalue("rabbitmq")
        name = rabbitmq.unique("q")
        with Rabbit(rabbitmq) as client:
            client.queue(name)
            yield Place(
                rabbit_url(rabbitmq, f"queue={name}"), rabbit_url(rabbitmq, f"write_topic={name}")
            )
            client.delete(name)
    else:
        kafka: Kafka = request.getfixturevalue("apache_kafka")
        name = make_topic(kafka)
        at = f"kafka://{kafka.address}/"
        yield Place(f"{at}{name}?group={name}&offset=earliest", f"{at}?write_topic={name}")


def dial(address: str, **options: object) -> Connection:
    conn = Dial(address, {"interval": 50, **options})
    assert conn is not None, last_error()
    return conn


def take(conn: Connection, *, ack: bool = False) -> Message:
    message = conn.receive(20_000, ack=ack)
    assert isinstance(message, Message), (message, last_error())
    return message


def test_the_work_of_a_killed_strategy_comes_again_and_what_it_has_done_does_not(
    place: Place,
) -> None:
    reader = dial(place.read)
    with dial(place.write) as writer:
        for number in range(6):
            assert writer.write(str(number), 20_000), last_error()
    handle = reader.fd()
    strategy = Program(
        """
conn = Dial(int(args[0]))
for _ in range(4):
    message = conn.receive(20000, ack=False)
    say(message.data, int(message.data) % 2 == 0 and message.ack())
threading.Event().wait()
""",
        handle,
    )
    with strategy:
        strategy.wait_line("3 False")
        done = [line for line in strategy.lines if line.endswith("True")]
        assert done == ["0 True", "2 True"]
        os.kill(strategy.process.pid, signal.SIGKILL)
    until(lambda: reader.stats().buffered == 4, "what the strategy did not do is unread again")
    left = [take(reader) for _ in range(4)]
    assert [message.data for message in left] == ["1", "3", "4", "5"]
    assert [message.redelivered for message in left[:2]] == [True, True]
    assert left[0].ack() is True
    assert left[0].ack() is False
    assert "nobody keeps this message" in (last_error() or "")
    reader.close()  # the others were not acknowledged
    other = Dial(handle)
    assert other is not None
    with other as reader:
        again = [take(reader, ack=True) for _ in range(3)]
        assert sorted(str(message.data) for message in again) == ["3", "4", "5"]
        assert again[0].ack() is False
        assert "acknowledged when it was received" in (last_error() or "")
        assert reader.receive(-1) is None


def test_what_was_read_behind_a_message_that_is_kept_does_not_come_again(place: Place) -> None:
    first = dial(place.read)
    with dial(place.write) as writer:
        for number in range(4):
            assert writer.write(str(number), 20_000), last_error()
    handle = first.fd()
    assert [take(first, ack=number > 0).data for number in range(4)] == ["0", "1", "2", "3"]
    first.close()
    other = Dial(handle)
    assert other is not None
    with other as reader:
        assert take(reader).data == "0"
        assert reader.receive(-1) is None


def test_a_message_that_is_given_back_is_read_again(place: Place) -> None:
    with dial(place.read) as reader, dial(place.write) as writer:
        assert writer.write("a", 20_000)
        message = take(reader)
        assert message.nak() is True
        message = take(reader)
        assert (message.data, message.redelivered) == ("a", True)
        assert message.nak(delay_ms=300) is True
        assert reader.receive(-1) is None
        message = take(reader)
        assert message.data == "a"
        assert message.ack() is True
    with dial(place.read) as reader:
        assert reader.receive(-1) is None
        stats = reader.stats()
        assert (stats.acknowledges, stats.buffered) == (True, 0)


def test_messages_that_are_kept_survive_their_worker(place: Place) -> None:
    with dial(place.read) as reader, dial(place.write) as writer:
        assert writer.write("a", 20_000)
        assert writer.write("b", 20_000)
        first, second = take(reader), take(reader)
        assert first.ack() is True
        until(lambda: reader.stats().buffered == 0, "both messages read")
        pid = reader.stats().pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: reader.stats().pid not in (None, pid), "another worker")
        assert second.ack() is False
        while (again := reader.receive(20_000, ack=False)) == "":
            pass
        assert isinstance(again, Message)
        if again.data == "a":  # MQTT, Kafka: the word of it may have died with the worker
            again = take(reader)
        assert again.data == "b"
        assert again.ack() is True


def test_a_worker_that_is_busy_hears_of_all_that_is_kept(rabbitmq: RabbitMq) -> None:
    """More words than its socket holds: the rest waited in the program, and the acknowledgements behind them,
    which come another way, found nothing to acknowledge."""
    name, count = rabbitmq.unique("q"), 1000
    with Rabbit(rabbitmq) as rabbit:
        rabbit.queue(name)
        rabbit.send(name, *map(str, range(count)))
        with dial(rabbit_url(rabbitmq, f"queue={name}")) as reader:
            messages = [take(reader)]
            until(lambda: reader.stats().queued == 0, "all sent ahead")
            pid = reader.stats().pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            try:
                while isinstance(message := reader.receive(10, ack=False), Message):
                    messages.append(message)
            finally:
                os.kill(pid, signal.SIGCONT)
            assert len(messages) > 300
            while len(messages) < count:
                messages.append(take(reader))
            assert [message.ack() for message in reversed(messages)] == [True] * count
            until(lambda: reader.stats().buffered == 0, "the acknowledgements")
        assert rabbit.ready(name) == 0
        rabbit.delete(name)


def test_a_busy_worker_hears_of_what_was_read_although_nothing_more_is(rabbitmq: RabbitMq) -> None:
    name, count = rabbitmq.unique("q"), 1000
    with Rabbit(rabbitmq) as rabbit:
        rabbit.queue(name)
        rabbit.send(name, *map(str, range(count)))
        with dial(rabbit_url(rabbitmq, f"queue={name}")) as reader:
            kept = [take(reader)]
            until(lambda: reader.stats().queued == 0, "all sent ahead")
            pid = reader.stats().pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            try:
                while isinstance(message := reader.receive(10, ack=False), Message):
                    kept.append(message)
            finally:
                os.kill(pid, signal.SIGCONT)
            until(lambda: reader.stats().read == len(kept), "what was read")
        until(lambda: rabbit.ready(name) == count, "all of it, which nobody has acknowledged")
        rabbit.delete(name)


@pytest.mark.parametrize("delay", [-1, float("inf"), float("nan"), 86_400_001])
def test_a_delay_that_is_none_is_refused(rabbitmq: RabbitMq, delay: float) -> None:
    name = rabbitmq.unique("q")
    with Rabbit(rabbitmq) as rabbit:
        rabbit.queue(name)
        rabbit.send(name, "x")
        with dial(rabbit_url(rabbitmq, f"queue={name}")) as reader:
            message = take(reader)
            with pytest.raises(
                ValueError, match="nak takes a delay from 0 to 86400000 milliseconds"
            ):
                message.nak(delay)
            assert message.ack() is True
        rabbit.delete(name)


def test_rejected_messages_are_dead_letters_in_amqp(rabbitmq: RabbitMq) -> None:
    name = rabbitmq.unique("q")
    with Rabbit(rabbitmq) as client:
        client.queue(f"{name}.dead")
        client.queue(
            name,
            arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{name}.dead"},
        )
        with dial(rabbit_url(rabbitmq, f"queue={name}")) as reader:
            client.send(name, "poison", "good")
            assert take(reader).reject() is True
            assert take(reader).ack() is True
            assert client.take(f"{name}.dead")[1] == b"poison"
            assert reader.receive(-1) is None
        client.delete(name, f"{name}.dead")


def test_terminated_messages_are_not_delivered_again_by_jetstream(jetstream: Nats) -> None:
    name, at = jetstream.unique("S"), f"nats://127.0.0.1:{jetstream.port}"
    with NatsSide(at) as side:
        side.stream(name, name)
        with dial(f"{at}?topic={name}&stream={name}&durable=d&ack_wait=1000") as reader:
            assert reader.write("poison") == 6
            assert take(reader).term() is True
            until(lambda: side.consumer(name, "d").num_ack_pending == 0, "nothing is waited for")
            assert reader.receive(-1) is None
        side.delete_stream(name)


def test_where_nothing_is_acknowledged_it_is_refused(
    nats_server: Nats, mosquitto: Mosquitto
) -> None:
    with dial(f"nats://127.0.0.1:{nats_server.port}?topic=t") as conn:
        assert conn.receive(-1, ack=False) is None
        assert "nats:// has no acknowledgements" in (last_error() or "")
    name = mosquitto.unique("t")
    with connect(f"mqtt://127.0.0.1:{mosquitto.port}?topic={name}&qos=1") as conn:
        assert conn.write("x")
        message = conn.receive(10_000, ack=False)
        assert isinstance(message, Message)
        with pytest.raises(Unsupported, match="cannot reject"):
            message.reject()
        assert message.ack() is True
    with (
        connect(f"mqtt://127.0.0.1:{mosquitto.port}?topic={name}") as conn,
        pytest.raises(Unsupported),
    ):
        conn.receive(-1, ack=False)


def test_kafka_commits_nothing_behind_a_message_that_is_kept(apache_kafka: Kafka) -> None:
    topic = make_topic(apache_kafka)
    client = BareClient(apache_kafka)
    with dial(f"kafka://{apache_kafka.address}/{topic}?group={topic}&offset=earliest") as reader:
        client.write(topic, "0", "1", "2")
        kept = take(reader)
        later = [take(reader), take(reader, ack=True)]
        assert later[0].ack()
    assert client.committed(topic, topic) <= 0
    with dial(f"kafka://{apache_kafka.address}/{topic}?group={topic}&offset=earliest") as reader:
        first = take(reader)
        assert (first.data, first.offset) == (kept.data, 0)
        assert first.ack()
    client.close()
