"""Messages through a binding of an earlier address: they are delivered, and it is said once."""

from __future__ import annotations

import asyncio

import pytest

from tests.servers.rabbitmq import RabbitMq
from tests.support.rabbit import Rabbit, rabbit_url
from tests.unit.drivers.amqp.test_amqp_driver import Taken, dialed
from trunkline.actors.drivers.amqp.plan import make_plan
from trunkline.actors.drivers.amqp.strays import Strays
from trunkline.address import parse_address


@pytest.mark.parametrize(
    ("keys", "fitting", "others"),
    [
        ("a.*", ["a.b", "a."], ["a", "a.b.c", "b.a"]),
        ("a.%23", ["a", "a.b", "a.b.c"], ["b", "ab", "ab.c"]),
        ("%23.z", ["z", "a.z", "a.b.z"], ["a", "z.a", "az"]),
        ("a.%23.z", ["a.z", "a.b.z", "a.b.c.z"], ["a", "z", "a.bz"]),
        ("%23", ["", "a", "a.b"], []),
        ("*.b,c", ["a.b", "c"], ["b", "a.b.c", "d"]),
        ("*.%23", ["a", "a.b.c"], []),
        ("%23.*", ["a", "a.b.c"], []),
        ("a+.*", ["a+.b"], ["aa.b"]),
    ],
)
def test_patterns_of_topic_exchanges(keys: str, fitting: list[str], others: list[str]) -> None:
    plan = make_plan(parse_address(f"amqp://h/?queue=q&exchange=e&type=topic&routing_key={keys}"))
    strays = Strays(plan, "topic")
    assert [key for key in fitting if strays.warning("e", key)] == []
    assert [key for key in others if not strays.warning("e", key)] == []
    assert not any(strays.warning("other", key) for key in others)


@pytest.mark.parametrize(
    "query", ["queue=q&exchange=e&routing_key=a", "exchange=e&type=topic&routing_key=a", "queue=q"]
)
def test_where_nothing_can_be_known_nothing_is_said(query: str) -> None:
    address = parse_address(f"amqp://h/?{query}")
    assert Strays(make_plan(address), address.params.get("type")).warning("e", "b") is None


def test_a_binding_of_an_earlier_address_is_said_once(rabbitmq: RabbitMq) -> None:
    name = rabbitmq.unique("q")

    async def body(rabbit: Rabbit) -> None:
        url = rabbit_url(rabbitmq, f"queue={name}&exchange={name}&type=topic&routing_key=")
        await (await dialed(f"{url}old.*")).close()
        sink = Taken()
        driver = await dialed(f"{url}new.*", sink)
        for key in ("new.a", "old.a", "new.b", "old.b"):
            rabbit.send(key, key, exchange=name)
        await sink.wait_received(4)
        assert len(sink.warnings) == 1
        assert (
            f"routing key 'old.a', which the address does not ask for: the queue '{name}'"
            in sink.warnings[0]
        )
        driver.settle(sink.tokens)
        await driver.close()

    with Rabbit(rabbitmq) as rabbit:
        try:
            asyncio.run(body(rabbit))
        finally:
            rabbit.delete(name)
            rabbit.channel.exchange_delete(name)
