"""What an mqtt address asks for, and what is remembered from one link to the next: without a broker."""

from __future__ import annotations

import pytest

from trunkline.actors.driver import FatalError, Overflow
from trunkline.actors.drivers.mqtt.driver import MqttDriver
from trunkline.actors.drivers.mqtt.errors import login_refused, said_goodbye, subscription_refused
from trunkline.actors.drivers.mqtt.plan import FOR_EVER, Plan
from trunkline.actors.drivers.mqtt.session import Session, session_of
from trunkline.address import parse_address


def plan(query: str, **options: object) -> Plan:
    return Plan.of(parse_address(f"mqtt://h?{query}", options))


def test_the_defaults() -> None:
    found = plan("topic=t")
    assert found.topics == ("t",)
    assert (found.write_topic, found.qos, found.retain, found.clean, found.v5) == (
        "t",
        0,
        False,
        True,
        False,
    )
    assert found.keep_alive == 20
    assert found.receive_maximum == 65_535


@pytest.mark.parametrize(
    ("query", "topics", "write_topic"),
    [
        ("topic=a/%23", ("a/#",), None),
        ("topic=a/#&topic=b", ("a/#", "b"), "b"),
        ("topic=+,b,c", ("+", "b", "c"), "b"),
        ("topic=a/#&write_topic=c", ("a/#",), "c"),
        ("topic=$share/g/t", ("$share/g/t",), None),
        ("write_topic=c", (), "c"),
        ("topic=a%2Cb", ("a,b",), "a,b"),
    ],
)
def test_what_is_read_and_where_writes_go(
    query: str, topics: tuple[str, ...], write_topic: str | None
) -> None:
    found = plan(query)
    assert (found.topics, found.write_topic) == (topics, write_topic)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("topic=a%23", "topic=a# has a misplaced wildcard"),
        ("topic=a/%23/b", "misplaced wildcard"),
        ("topic=a/b%2B", "misplaced wildcard"),
        ("topic=$share/g", "no shared subscription: write"),
        ("topic=$share/g%2B/t", "no shared subscription"),
        (
            "topic=t&write_topic=a/%23",
            "write_topic=.a/#. is no topic to write to: it has a wildcard",
        ),
        ("topic=t&clean=false", "clean=false needs a client_id"),
        ("topic=t&session_expiry=5", "give version=5"),
        ("topic=t&will_payload=x", "a will needs will_topic"),
        (
            "topic=t&will_topic=a/%2B",
            "will_topic=.a/[+]. is no topic to write to: it has a wildcard",
        ),
        (f"topic={'t' * 70_000}", "it has 70000 bytes, and MQTT allows 65535"),
        (f"topic=t&will_topic=w&will_payload={'t' * 70_000}", "will_payload= has 70000 bytes"),
    ],
)
def test_what_cannot_be(query: str, says: str) -> None:
    with pytest.raises(FatalError, match=says):
        plan(query)


def test_headers_are_user_properties_of_mqtt_5() -> None:
    headers = {"a": "1", "b": ["2", "3"]}
    found = plan("topic=t&version=5", headers=headers)
    assert found.headers == (("a", "1"), ("b", "2"), ("b", "3"))
    with pytest.raises(FatalError, match="give version=5"):
        plan("topic=t", headers=headers)
    over_websocket = parse_address("ws+mqtt://h?topic=t", {"headers": {"a": "1"}})
    assert Plan.of(over_websocket).headers == ()


def test_no_secret_is_shown() -> None:
    found = plan("topic=t&will_topic=w&will_payload=geheim&version=5", headers={"key": "geheim"})
    assert "geheim" not in repr(found)


@pytest.mark.parametrize(
    ("query", "expiry", "persistent"),
    [
        ("topic=t", 0, False),
        ("topic=t&qos=1", 300, False),
        ("topic=t&qos=1&version=5", 300, True),
        ("topic=t&version=5", 0, False),
        ("write_topic=t&qos=1&version=5", 0, False),
        ("topic=t&clean=false&client_id=c&version=5", FOR_EVER, True),
        ("topic=t&clean=false&client_id=c&version=5&session_expiry=7", 7, True),
        ("topic=t&clean=false&client_id=c", FOR_EVER, True),
    ],
)
def test_how_long_the_broker_keeps_the_session(query: str, expiry: int, persistent: bool) -> None:
    found = plan(query)
    assert (found.expiry, found.persistent) == (expiry, persistent)


@pytest.mark.parametrize(
    ("query", "overflow", "redelivers"),
    [
        ("topic=t", Overflow.DROP_OLDEST, False),
        ("topic=t&qos=0", Overflow.DROP_OLDEST, False),
        ("topic=t&qos=1", Overflow.BACK_PRESSURE, False),
        ("topic=t&qos=2&clean=false&client_id=c", Overflow.BACK_PRESSURE, True),
        ("topic=t&qos=0&clean=false&client_id=c", Overflow.DROP_OLDEST, False),
        ("topic=a%23&qos=1", Overflow.BACK_PRESSURE, False),
    ],
)
def test_what_a_full_buffer_does(query: str, overflow: Overflow, redelivers: bool) -> None:
    address = parse_address(f"mqtt://h?{query}")
    assert MqttDriver.overflow_for(address) is overflow
    assert MqttDriver.redelivers(address) is redelivers


# the session


def test_the_session_belongs_to_the_connection_and_its_generated_name_stays() -> None:
    address, other = parse_address("mqtt://h?topic=t"), parse_address("mqtt://h?topic=t")
    assert session_of(address) is session_of(address)
    assert session_of(address).client_id != session_of(other).client_id
    assert len(session_of(address).client_id) <= 23
    assert session_of(parse_address("mqtt://h?topic=t&client_id=me")).client_id == "me"


A, B = 1, 2
"""Contents."""


def test_a_message_is_known_again_until_its_acknowledgement_goes_out() -> None:
    session = Session()
    session.begin(resumed=False)
    first = session.identity(5, A)
    session.begin(resumed=True)
    assert session.identity(5, A) == first
    session.acknowledged(5, 1, A)
    assert session.identity(5, A) != first  # perhaps another one under the same number


def test_a_qos_2_message_is_known_until_the_broker_has_released_it() -> None:
    session = Session()
    session.begin(resumed=False)
    first = session.identity(5, A)
    session.acknowledged(5, 2, A)
    session.begin(resumed=True)
    assert session.is_received(5, A)
    session.released(5)
    assert not session.is_received(5, A)
    assert session.identity(5, A) != first


def test_a_new_session_knows_nothing() -> None:
    session = Session()
    session.begin(resumed=False)
    first = session.identity(5, A)
    session.acknowledged(6, 2, A)
    session.left_in_doubt(7)
    session.begin(resumed=False)
    assert session.identity(5, A) != first
    assert not session.is_received(6, A)
    assert session.in_doubt == 0


def test_another_message_under_an_id_that_is_held_is_not_taken_for_that_one() -> None:
    """As a killed broker sends it, which has come back with an older state of the session."""
    session = Session()
    session.begin(resumed=False)
    first = session.identity(5, A)
    session.acknowledged(6, 2, A)
    session.begin(resumed=True)
    assert session.identity(5, B) != first
    assert session.is_received(6, A)
    assert not session.is_received(6, B)
    known = session.identity(6, B)
    assert not session.is_received(6, A)
    session.begin(resumed=True)
    assert session.identity(6, B) == known


def test_packet_ids_go_round_and_avoid_those_in_doubt() -> None:
    session = Session()
    session.left_in_doubt(3)
    session.left_in_doubt(65_535)
    ids = [session.next_id() for _ in range(65_533)]
    assert sorted(ids) == [number for number in range(1, 65_536) if number not in (3, 65_535)]
    assert session.next_id() == ids[0]


# words


def test_refusals_say_what_to_do_and_whether_to_come_again() -> None:
    refused = login_refused("h:1", 0x87)
    assert isinstance(refused, FatalError)
    assert str(refused) == (
        "h:1 refused the login: not authorized; check the user and password, and what this client may do"
    )
    assert not isinstance(login_refused("h:1", 0x88), FatalError)
    assert str(login_refused("h:1", 0xFE)) == "h:1 refused the login: reason 0xfe"
    refused = subscription_refused("h:1", "a/b", 0x80)
    assert isinstance(refused, FatalError)
    assert "refused the subscription to a/b: it gives no reason; check the rights on it" in str(
        refused
    )
    assert "same client_id" in str(said_goodbye("h:1", 0x8E))
    assert str(said_goodbye("h:1", 0)) == "h:1 ended the connection"
    assert "in\nlog" not in str(said_goodbye("h:1", 0x80, "in\nlog"))
