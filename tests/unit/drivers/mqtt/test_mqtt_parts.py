"""Subscriptions, requests, the login and properties, with a client that keeps what it was asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from trunkline.actors.driver import Delivery, FatalError, Outgoing
from trunkline.actors.drivers.mqtt.envelope import addressed_properties, own_properties
from trunkline.actors.drivers.mqtt.errors import closed_while_opening
from trunkline.actors.drivers.mqtt.login import check_limits, goodbye, login_options
from trunkline.actors.drivers.mqtt.plan import Plan
from trunkline.actors.drivers.mqtt.questions import Questions
from trunkline.actors.drivers.mqtt.session import Session
from trunkline.actors.drivers.mqtt.subscriptions import Subscriptions
from trunkline.address import parse_address
from trunkline.deadline import Deadline
from trunkline.errors import DialError, DialTimeout, RefusedError, Unsupported


def _plan(query: str, **options: object) -> Plan:
    return Plan.of(parse_address(f"mqtt://h?{query}", options))


class Client:
    """Keeps what it was asked; packet ids count from 1."""

    def __init__(self) -> None:
        self.subscribed: list[Any] = []
        self.unsubscribed: list[str] = []

    def subscribe(self, filters: Any) -> tuple[int, int]:
        self.subscribed.append([topic for topic, _ in filters])
        return 0, len(self.subscribed)

    def unsubscribe(self, topics: list[str]) -> None:
        self.unsubscribed += topics


def _granted(qos: int) -> ReasonCode:
    return ReasonCode(PacketTypes.SUBACK, identifier=qos)


def _subscriptions(
    plan: Plan, session: Session | None = None
) -> tuple[Client, list[str], Subscriptions]:
    client: Any = Client()
    warnings: list[str] = []
    return (
        client,
        warnings,
        Subscriptions(client, plan, session or Session("c"), "h:1883", warnings.append),
    )


# subscriptions


async def _answered(subscribing: Any, found: Subscriptions, *codes: int) -> None:
    task = asyncio.ensure_future(subscribing)
    await asyncio.sleep(0)
    found.note_answer(1, [_granted(code) for code in codes])
    found.note_answer(99, [])  # of a packet that is not waited for
    await task


def test_the_topics_of_the_address_are_subscribed_without_those_that_others_include() -> None:
    async def body() -> None:
        session = Session("c")
        session.begin(resumed=True)
        client, warnings, found = _subscriptions(_plan("topic=a/%23,a/b,c"), session)
        await _answered(found.subscribe_to_own(Deadline(5)), found, 0, 0)
        assert client.subscribed == [["a/#", "c"]]
        assert client.unsubscribed == ["a/b"], "an earlier run may have left it"
        assert warnings == []

    asyncio.run(body())


def test_a_lower_quality_is_told_and_a_refusal_names_the_topic() -> None:
    async def body() -> None:
        _, warnings, found = _subscriptions(_plan("topic=a&qos=1"))
        await _answered(found.subscribe(["a"], Deadline(5)), found, 0)
        assert warnings == ["h:1883 sends a with QoS 0 at most, not 1"]
        _, _, found = _subscriptions(_plan("topic=a,b"))
        with pytest.raises(FatalError, match="refused the subscription to b"):
            await _answered(found.subscribe(["a", "b"], Deadline(5)), found, 0, 0x87)
        _, _, found = _subscriptions(_plan("topic=a,b"))
        with pytest.raises(DialError, match="confirmed 1 of 2 topics"):
            await _answered(found.subscribe(["a", "b"], Deadline(5)), found, 0)

    asyncio.run(body())


def test_a_subscription_without_an_answer_ends_at_the_deadline_or_with_the_link() -> None:
    async def body() -> None:
        _, _, found = _subscriptions(_plan("topic=a"))
        with pytest.raises(DialTimeout, match="did not confirm the subscription"):
            await found.subscribe(["a"], Deadline(0.01))
        task = asyncio.ensure_future(found.subscribe(["a"], Deadline(5)))
        await asyncio.sleep(0)
        found.fail(DialError("closed"))
        with pytest.raises(DialError, match="closed"):
            await task
        with pytest.raises(DialError, match="closed"):
            await found.subscribe(["a"], Deadline(5))
        await found.subscribe([], Deadline(5))

    asyncio.run(body())


# requests


def _answer(number: bytes) -> Delivery:
    return Delivery(
        b"yes", "trunkline/reply/x", properties={"correlation_data": number}, token=(1, 1, 0)
    )


def test_an_answer_belongs_to_the_question_whose_number_it_carries() -> None:
    async def body() -> None:
        questions = Questions(Session("c"))
        with questions.asked() as (one, first), questions.asked() as (two, second):
            assert one != two
            questions.note_answer(_answer(two))
            questions.note_answer(_answer(two))
            questions.note_answer(_answer(b"of an earlier run"))
            assert (await second)[:2] == (b"yes", "trunkline/reply/x")
            assert (await second).token is None
            assert not first.done()
            questions.fail()
            with pytest.raises(ConnectionError, match="may have arrived"):
                await first
        questions.note_answer(_answer(one))  # too late

    asyncio.run(body())


def test_the_topic_of_answers_is_subscribed_to_once_a_link() -> None:
    async def body() -> None:
        session = Session("c")
        questions = Questions(session)
        client, _, found = _subscriptions(_plan("topic=a&version=5"), session)

        async def ask() -> str:
            task = asyncio.ensure_future(questions.answer_topic(found, Deadline(5)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            found.note_answer(len(client.subscribed), [_granted(0)])
            return await task

        topic = await ask()
        assert questions.is_answer(Delivery(b"", topic))
        assert not questions.is_answer(Delivery(b"", "another"))
        assert await ask() == topic
        assert client.subscribed == [[topic]]
        questions.begin_link()
        assert await ask() == topic
        assert client.subscribed == [[topic], [topic]]

    asyncio.run(body())


# the login, and the goodbye


def test_only_mqtt_5_says_more_at_login() -> None:
    session = Session("c")
    assert login_options(_plan("topic=a"), session) == {}
    found = login_options(_plan("topic=a&version=5"), session)
    assert found["clean_start"]
    session.begin(resumed=False)
    assert not login_options(_plan("topic=a&version=5&qos=1"), session)["clean_start"], (
        "after an outage"
    )


def test_what_the_broker_cannot_take_is_told_at_login() -> None:
    class Found:
        MaximumQoS = 0
        RetainAvailable = 0

    check_limits(_plan("topic=a&qos=1"), Found(), "h:1883")
    check_limits(_plan("write_topic=a&version=5"), Found(), "h:1883")
    with pytest.raises(FatalError, match="QoS 0 at most; give qos=0"):
        check_limits(_plan("write_topic=a&version=5&qos=1"), Found(), "h:1883")
    with pytest.raises(FatalError, match="keeps no retained messages"):
        check_limits(_plan("write_topic=a&version=5&retain=true"), Found(), "h:1883")


def test_a_goodbye_says_whether_the_will_is_to_be_published() -> None:
    assert goodbye(_plan("topic=a"), with_will=False) == ()
    code, found = goodbye(_plan("topic=a&version=5&qos=1"), with_will=False)  # type: ignore[misc]
    assert (code.value, found.SessionExpiryInterval) == (0, 0)
    code, _ = goodbye(_plan("topic=a&version=5"), with_will=True)  # type: ignore[misc]
    assert code.value == 4


# properties and errors


def test_a_message_with_an_address_of_its_own_has_properties_with_mqtt_5() -> None:
    plain, five = _plan("topic=a"), _plan("topic=a&version=5", headers={"k": "v"})
    assert own_properties(plain) is None
    assert addressed_properties(plain, Outgoing(topic="b")) is None
    with pytest.raises(Unsupported, match="give version=5"):
        addressed_properties(plain, Outgoing(headers={"a": "b"}))
    assert own_properties(five).UserProperty == [("k", "v")]
    found = addressed_properties(five, Outgoing(expiry_ms=1500, reply_to="r", correlation="c"))
    assert (found.MessageExpiryInterval, found.ResponseTopic, found.CorrelationData) == (
        2,
        "r",
        b"c",
    )
    with pytest.raises(RefusedError, match="cannot be sent"):
        addressed_properties(five, Outgoing(headers={"a": "\0"}))


def test_why_a_connection_ended_while_it_was_opened() -> None:
    reason = DialError("said so")
    assert closed_while_opening("h:1883", reason, answered=False, advice="") is reason
    early = closed_while_opening("h:1883", None, answered=False, advice="; or a certificate")
    assert str(early).endswith("check the port, the scheme and version=; or a certificate")
    late = closed_while_opening("h:1883", ConnectionError("reset"), answered=True, advice="")
    assert str(late) == "h:1883 closed the connection: reset"
