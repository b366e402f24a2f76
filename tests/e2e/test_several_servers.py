"""Several servers in an address, and the first is no good: the next is taken, on every scheme."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

import trunkline
from tests.servers.mosquitto import Mosquitto
from tests.servers.rabbitmq import RabbitMq
from tests.support.sockets import SocketServer, echo
from trunkline.errors import DialError

ADDRESSES = {
    "mosquitto": "mqtt://{login1}127.0.0.1:{one},{login2}127.0.0.1:{two}?topic={name}",
    "nats_server": "nats://{login1}127.0.0.1:{one},{login2}127.0.0.1:{two}?topic={name}",
    "rabbitmq": "amqp://{login1}127.0.0.1:{one},{login2}127.0.0.1:{two}/?queue={name}&auto_delete=true",
    "kafka": "kafka://127.0.0.1:{one},127.0.0.1:{two}/{name}",
    "postgres": "postgres://u:p@127.0.0.1,127.0.0.1/postgres?port={one},{two}&sslmode=disable",
    "clickhouse": "clickhouse://u:p@127.0.0.1:{one},127.0.0.1:{two}/default",
}
LOGINS = ("u:wrong@", "u:p@")
DATABASES = ("postgres", "clickhouse")


@pytest.fixture
def stranger() -> Iterator[int]:
    """The port of a server that speaks no protocol of ours."""
    with SocketServer(echo) as server:
        yield server.port


def address(name: str, one: int, two: int, logins: tuple[str, str] = ("", "")) -> str:
    first, second = (LOGINS[1], LOGINS[1]) if name == "rabbitmq" and not logins[0] else logins
    topic = f"t{uuid.uuid4().hex[:12]}"
    return ADDRESSES[name].format(login1=first, login2=second, one=one, two=two, name=topic)


def works(address: str) -> None:
    with trunkline.connect(address, timeout=20) as conn:
        if address.startswith(tuple(f"{name}:" for name in DATABASES)):
            assert conn.exec("SELECT 1")["values"] == [[1]]  # type: ignore[index]
        else:
            assert conn.write("x") == 1


@pytest.mark.parametrize("name", ADDRESSES)
def test_the_servers_of_an_address_are_tried_in_turn(
    request: pytest.FixtureRequest, name: str, stranger: int, free_port: int
) -> None:
    port = request.getfixturevalue(name).port
    for bad in (stranger, free_port):
        works(address(name, bad, port))
    if name == "kafka":
        return  # librdkafka asks all of them at once, and names the last that answered
    with pytest.raises(DialError) as caught:
        trunkline.connect(address(name, stranger, free_port), timeout=6)
    assert all(str(bad) in str(caught.value) for bad in (stranger, free_port)), str(caught.value)


def test_a_refused_login_is_not_the_end_of_the_search(
    rabbitmq: RabbitMq, mosquitto: Mosquitto
) -> None:
    for name, port in (("rabbitmq", rabbitmq.port), ("mosquitto", mosquitto.ports["auth"])):
        works(address(name, port, port, LOGINS))
