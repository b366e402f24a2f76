"""The original's example of the four message brokers runs as it stands, against the servers themselves.

Only the ports are arranged, from outside (`tests/support/named.py`): those that the example names may be
somebody else's on this machine.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.kafka import Kafka, KafkaMock
from tests.servers.mosquitto import Mosquitto
from tests.servers.nats import Nats
from tests.servers.rabbitmq import RabbitMq
from tests.support.named import named
from tests.support.strategies import RunningStrategy

pytestmark = pytest.mark.own_broker

EXAMPLE = Path(__file__).parents[2] / "examples" / "four_protocols.py"
NAMES = ("nats", "amqp", "mqtt", "kafka")


@pytest.fixture
def queue_user(rabbitmq: RabbitMq) -> Iterator[RabbitMq]:
    """The example's user, who may do everything in the default virtual host."""
    rabbitmq.ctl("add_user", "q", "admin")
    try:
        rabbitmq.ctl("set_permissions", "--vhost", "/", "q", ".*", ".*", ".*")
        yield rabbitmq
    finally:
        rabbitmq.ctl("delete_user", "q")


@pytest.mark.timeout(120)
def test_the_four_protocols_of_the_original(
    queue_user: RabbitMq,
    kafka: Kafka | KafkaMock,
    start_nats: Callable[..., Nats],
    start_mosquitto: Callable[..., Mosquitto],
    tmp_path: Path,
) -> None:
    nats, mosquitto = start_nats(token="admin"), start_mosquitto()
    env = named(
        {
            "127.0.0.1:4222": nats.port,
            "127.0.0.1:1883": mosquitto.port,
            "127.0.0.1:5672": queue_user.port,
            "localhost:9092": kafka.port,
        }
    )
    env.pop("TRUNKLINE_BROKER", None)
    with RunningStrategy(
        EXAMPLE, "--data", str(tmp_path / "data"), env=env, cwd=tmp_path
    ) as strategy:
        for name in NAMES:
            strategy.wait_line(f"{name} readMsg:", count=3)
        strategy.signal(signal.SIGINT)
        assert strategy.end() == 130
    lines = [line for line in strategy.lines if "readMsg:" in line]
    for name in NAMES:
        read = [line for line in lines if f"{name} readMsg:" in line]
        assert all(f"{name}, time: " in line and "test msg." in line for line in read), (
            strategy.output
        )
        assert strategy.lines[-4:][NAMES.index(name)].endswith(f"close {name} connect"), (
            strategy.output
        )
    assert "ERROR" not in strategy.output
