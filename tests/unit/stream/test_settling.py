"""Verdicts on messages that were received without an acknowledgement."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from trunkline.actors.stream.settling import Settling
from trunkline.errors import BrokenError, RemoteError, Unsupported

TICKET = 7


class Driver:
    def __init__(self, verdicts: tuple[str, ...]) -> None:
        self.verdicts = verdicts
        self.settled: list[Any] = []
        self.refused: list[tuple[Any, str, float]] = []
        self.address = SimpleNamespace(scheme="nats")

    def settle(self, tokens: list[Any]) -> None:
        self.settled += tokens

    def refuse(self, token: Any, verdict: str, delay_ms: float) -> None:
        self.refused.append((token, verdict, delay_ms))


class Buffer:
    """What `Settling` asks of the buffer, with one message."""

    def __init__(self, message: Any) -> None:
        self.holders = {b"reader": object()}
        self.messages = {TICKET: message}
        self.given_back: list[int] = []

    def kept(self, ticket: int) -> Any:
        return self.messages.get(ticket)

    def let_go(self, ticket: int) -> None:
        del self.messages[ticket]

    def give_back(self, ticket: int) -> None:
        self.given_back.append(ticket)


class Stage:
    def __init__(self, *verdicts: str, tokens: tuple[str, ...] = ("token",)) -> None:
        self.link = SimpleNamespace(driver=Driver(verdicts))
        self.present: Any = self.link
        self.run = SimpleNamespace(done=False, link=self.link, owing=lambda: list(tokens))
        self.buffer = Buffer(SimpleNamespace(run=self.run))
        self.heard: list[bytes] = []
        self.changed = asyncio.Event()
        self.settling = Settling(
            self.buffer,  # type: ignore[arg-type]
            lambda: self.present,
            self._hear,
            self.changed.set,
        )
        self.word: Callable[[], None] = lambda: None
        """What a holder says when its pipe is heard."""

    @property
    def driver(self) -> Driver:
        return self.link.driver

    def _hear(self, holder: bytes) -> None:
        self.heard.append(holder)
        self.word()


def run(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 20))


def test_an_acknowledgement_goes_to_the_link_that_the_message_came_by() -> None:
    async def body() -> None:
        stage = Stage()
        await stage.settling.settle(TICKET, "ack", 0)
        assert stage.driver.settled == ["token"]
        assert stage.run.done
        assert not stage.buffer.messages

    run(body)


def test_the_work_counts_as_done_though_the_link_is_gone() -> None:
    async def body() -> None:
        stage = Stage()
        stage.present = None
        with pytest.raises(BrokenError, match="the link was lost after this message came"):
            await stage.settling.settle(TICKET, "ack", 0)
        assert stage.run.done
        assert not stage.buffer.messages

    run(body)


def test_a_message_without_a_token_needs_no_link() -> None:
    async def body() -> None:
        stage = Stage(tokens=())
        stage.present = None
        await stage.settling.settle(TICKET, "ack", 0)
        assert stage.run.done

    run(body)


def test_a_holder_that_has_not_been_heard_yet_is_heard_first() -> None:
    async def body() -> None:
        stage = Stage()
        message = stage.buffer.messages.pop(TICKET)
        stage.word = lambda: stage.buffer.messages.update({TICKET: message})
        await stage.settling.settle(TICKET, "ack", 0)
        assert stage.heard == [b"reader"]
        assert stage.driver.settled == ["token"]

    run(body)


def test_a_ticket_that_no_message_has_is_refused_after_a_moment() -> None:
    async def body() -> None:
        with pytest.raises(BrokenError, match="nobody keeps this message any more"):
            await Stage().settling.settle(TICKET + 1, "ack", 0)

    run(body)


def test_a_nak_goes_to_a_message_broker_that_knows_it_with_a_bounded_delay() -> None:
    async def body() -> None:
        stage = Stage("nak")
        await stage.settling.settle(TICKET, "nak", 1e12)
        assert stage.driver.refused == [("token", "nak", 86_400_000.0)]
        assert not stage.buffer.messages

    run(body)


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_nak_that_cannot_be_sent_gives_the_message_back_here(is_lost: bool) -> None:
    async def body() -> None:
        stage = Stage(*(["nak"] if is_lost else []))
        stage.present = None if is_lost else stage.link
        await stage.settling.settle(TICKET, "nak", 10)
        await stage.changed.wait()
        assert stage.buffer.given_back == [TICKET]
        assert stage.driver.refused == []

    run(body)


def test_a_reject_goes_to_a_message_broker_that_knows_it() -> None:
    async def body() -> None:
        stage = Stage("reject")
        await stage.settling.settle(TICKET, "reject", 0)
        assert stage.driver.refused == [("token", "reject", 0.0)]
        assert stage.run.done

    run(body)


def test_a_reject_that_is_impossible_keeps_the_message() -> None:
    async def body() -> None:
        stage = Stage("nak")
        with pytest.raises(Unsupported, match="nats:// cannot reject a message"):
            await stage.settling.settle(TICKET, "reject", 0)
        stage.present = None
        with pytest.raises(BrokenError, match="could not be rejected"):
            await stage.settling.settle(TICKET, "reject", 0)
        assert stage.buffer.messages

    run(body)


@pytest.mark.parametrize(
    ("ticket", "verdict", "delay_ms"), [(7, "eat", 0), ("7", "ack", 0), (7, "nak", "soon")]
)
def test_what_is_no_verdict_is_malformed(ticket: Any, verdict: Any, delay_ms: Any) -> None:
    async def body() -> None:
        with pytest.raises(RemoteError, match="a malformed SETTLE arrived"):
            await Stage().settling.settle(ticket, verdict, delay_ms)

    run(body)
