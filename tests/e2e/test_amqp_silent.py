"""amqp through Dial: no state in which the connection says "open" and can never give anything again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.rabbitmq import RabbitMq
from tests.support.rabbit import Rabbit, rabbit_url
from tests.support.waiting import until
from trunkline import Connection, Dial, connect, last_error
from trunkline.errors import RefusedError
from trunkline.testing.faultproxy import FaultProxy


@pytest.fixture
def rabbit(rabbitmq: RabbitMq) -> Iterator[Rabbit]:
    with Rabbit(rabbitmq) as client:
        yield client


@pytest.fixture
def name(rabbit: Rabbit, rabbitmq: RabbitMq) -> Iterator[str]:
    """Of a topic exchange that is there, and of a queue, which the test may declare."""
    name = rabbitmq.unique("ex")
    declare(rabbit, name)
    yield name
    rabbit.channel.exchange_delete(name)
    rabbit.delete(name)


def declare(rabbit: Rabbit, name: str) -> None:
    rabbit.channel.exchange_declare(name, "topic", durable=True)


def dial(address: str) -> Connection:
    conn = Dial(address, {"interval": 20, "maxInterval": 100})
    assert conn is not None, last_error()
    return conn


def reads_again(rabbit: Rabbit, exchange: str, conn: Connection) -> bool:
    rabbit.channel.basic_publish(exchange, "a", b"x")
    return conn.read(200) == "x"


def test_an_exchange_of_another_type_is_told_of(
    rabbitmq: RabbitMq, rabbit: Rabbit, caplog: pytest.LogCaptureFixture
) -> None:
    name = rabbitmq.unique("e")
    rabbit.channel.exchange_declare(name, "direct", durable=True)
    for query, told in (
        ("type=topic", True),
        ("type=direct", False),
        ("type=direct&durable=false", False),
    ):
        caplog.clear()
        with connect(rabbit_url(rabbitmq, f"exchange={name}&{query}&routing_key=a.*,a")) as conn:
            rabbit.send("a", "1", exchange=name)
            assert conn.read(5000) == "1"
        assert ("received 'topic' but current is 'direct'" in caplog.text) is told
    user = rabbit_url(rabbitmq, f"exchange={name}&type=topic&routing_key=a", login="bound:p")
    rabbitmq.ctl("add_user", "bound", "p")
    rabbitmq.ctl("set_permissions", "bound", "^amq.gen.*", ".*", ".*")
    with connect(user) as conn:
        rabbit.send("a", "2", exchange=name)
        assert conn.read(5000) == "2"
    rabbitmq.ctl("delete_user", "bound")
    rabbit.channel.exchange_delete(name)


@pytest.mark.parametrize("query", ["", "&queue={}", "&queue={}&passive=true"])
def test_an_exchange_that_is_deleted_ends_the_link_and_is_waited_for(
    rabbitmq: RabbitMq, rabbit: Rabbit, name: str, query: str
) -> None:
    if "passive" in query:
        rabbit.queue(name, durable=True)
        rabbit.channel.queue_bind(name, name, "a")
    url = rabbit_url(rabbitmq, f"exchange={name}&routing_key=a&heartbeat=1{query.format(name)}")
    with dial(url) as conn:
        rabbit.send("a", "before", exchange=name)
        assert conn.read(5000) == "before"
        rabbit.channel.exchange_delete(name)
        until(lambda: conn.stats().state == "down", "the end of the link", 30)
        assert conn.read(5000) == ""
        until(
            lambda: f"the exchange '{name}' is gone" in str(conn.stats().last_error),
            "the cause in words",
        )
        declare(rabbit, name)
        if "passive" in query:
            rabbit.channel.queue_bind(name, name, "a")
        until(lambda: conn.stats().state == "open", "the new link")
        until(lambda: reads_again(rabbit, name, conn), "what is published now")


@pytest.mark.parametrize("done", ["the exchange anew", "no binding"])
def test_a_binding_that_was_taken_away_is_made_again(
    rabbitmq: RabbitMq, rabbit: Rabbit, name: str, done: str
) -> None:
    url = rabbit_url(rabbitmq, f"exchange={name}&queue={name}&routing_key=a,b&heartbeat=1")
    with dial(url) as conn:
        if done == "no binding":
            rabbit.channel.queue_unbind(name, name, "a")
        else:
            rabbit.channel.exchange_delete(name)
            declare(rabbit, name)
        until(lambda: reads_again(rabbit, name, conn), "the binding", 30)
        rabbit.send("b", "y", exchange=name)
        while (message := conn.read(5000)) == "x":
            pass
        assert message == "y"


def test_looking_after_the_exchange_leaves_no_channel_behind(
    rabbitmq: RabbitMq, rabbit: Rabbit, name: str
) -> None:
    query = f"exchange={name}&queue={name}&heartbeat=1&name={name}"
    with dial(rabbit_url(rabbitmq, query)) as conn:
        rabbit.channel.queue_unbind(name, name, "#")
        until(lambda: reads_again(rabbit, name, conn), "a look", 30)
        rabbit.channel.queue_unbind(name, name, "#")
        until(lambda: reads_again(rabbit, name, conn), "another look", 30)
        until(lambda: f"{name}\t2" in channels(rabbitmq), "two channels, as at the beginning", 20)


def channels(server: RabbitMq) -> str:
    lines = server.ctl("list_connections", "client_properties", "channels").splitlines()
    found = []
    for line in lines:
        properties, _, count = line.rpartition("\t")
        found += [f"{name}\t{count}" for name in properties.split('"') if name.startswith("ex")]
    return "\n".join(found)


@pytest.mark.parametrize("mandatory", ["true", "false"])
def test_writes_to_an_exchange_that_was_deleted_do_not_vanish(
    rabbitmq: RabbitMq, rabbit: Rabbit, name: str, mandatory: str
) -> None:
    rabbit.queue(name)
    rabbit.channel.queue_bind(name, name, "a")
    url = rabbit_url(rabbitmq, f"exchange={name}&write_topic=a&mandatory={mandatory}")
    with connect(url) as conn:
        assert conn.write("x") == 1
        rabbit.channel.exchange_delete(name)
        for _ in range(3):
            with pytest.raises(RefusedError, match="no exchange"):
                conn.write("y")
        assert conn.stats().state == "open"
        declare(rabbit, name)
        rabbit.channel.queue_bind(name, name, "a")
        until(lambda: _writes(conn), "the exchange")
        assert [rabbit.take(name)[1], rabbit.take(name)[1]] == [b"x", b"z"]


def _writes(conn: Connection) -> bool:
    try:
        return conn.write("z") == 1
    except RefusedError:
        return False


def test_an_exchange_that_is_missing_on_a_later_link_is_waited_for(
    rabbitmq: RabbitMq, rabbit: Rabbit, name: str
) -> None:
    with FaultProxy(rabbitmq.port) as proxy:
        url = rabbit_url(rabbitmq, f"exchange={name}&type=topic&routing_key=a", port=proxy.port)
        with dial(url) as conn:
            proxy.refuse()
            proxy.cut()
            until(lambda: conn.stats().state == "down", "the outage")
            rabbit.channel.exchange_delete(name)
            proxy.heal()
            gone = f"the exchange '{name}' is gone"
            until(lambda: gone in str(conn.stats().last_error), "the cause in words")
            declare(rabbit, name)
            until(lambda: conn.stats().state == "open", "the new link")
            until(lambda: reads_again(rabbit, name, conn), "what is published now")
