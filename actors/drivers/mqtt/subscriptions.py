"""Subscribing to topics over one link, until the broker has confirmed them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from trunkline.actors.drivers.mqtt import errors
from trunkline.actors.drivers.mqtt.client import Client
from trunkline.actors.drivers.mqtt.plan import Plan
from trunkline.actors.drivers.mqtt.session import Session
from trunkline.actors.net import dialer
from trunkline.deadline import Deadline
from trunkline.errors import DialError

__all__ = ["Subscriptions", "fail_future"]


class Subscriptions:
    """The subscriptions of one link. `warn` writes to the user's log."""

    def __init__(
        self, client: Client, plan: Plan, session: Session, peer: str, warn: Callable[[str], None]
    ) -> None:
        self._client = client
        self._plan = plan
        self._session = session
        self._peer = peer
        self._warn = warn
        self._waiting: dict[int, asyncio.Future[list[ReasonCode]]] = {}
        """The answers that callers wait for, by packet id."""
        self._failure: BaseException | None = None
        """Why the link is over; None for an open link."""

    async def subscribe_to_own(self, deadline: Deadline) -> None:
        """Subscribe to the topics of the address, except topics included in another topic."""
        plan, covered = self._plan, self._plan.covered
        if covered and self._session.inherited:
            self._client.unsubscribe(list(covered))  # may stem from an earlier run
        topics = [topic for topic in dict.fromkeys(plan.topics) if topic not in covered]
        own = SubscribeOptions(plan.qos, noLocal=plan.no_local, retainHandling=plan.retain_handling)
        await self.subscribe(topics, deadline, own)

    async def subscribe(
        self, topics: Sequence[str], deadline: Deadline, options: SubscribeOptions | None = None
    ) -> None:
        """Subscribe, and return when the broker has confirmed all topics.

        Raises DialError naming a refused topic.
        """
        if not topics:
            return
        if self._failure is not None:
            raise self._failure
        qos = self._plan.qos
        filters: Any = [(topic, qos) for topic in topics]
        if self._plan.v5:
            filters = [(topic, options or SubscribeOptions(qos)) for topic in topics]
        _, number = self._client.subscribe(filters)
        assert number is not None
        codes = await self._wait_for_answer(number, deadline)
        if len(codes) != len(topics):
            raise DialError(
                f"{self._peer} confirmed {len(codes)} of {len(topics)} topics: some are not read"
            )
        for topic, code in zip(topics, codes, strict=True):
            if code.is_failure:
                raise errors.subscription_refused(self._peer, topic, code.value)
            if code.value < qos:
                self._warn(f"{self._peer} sends {topic} with QoS {code.value} at most, not {qos}")

    async def _wait_for_answer(self, number: int, deadline: Deadline) -> list[ReasonCode]:
        """Return the codes of the broker's answer; DialTimeout when it does not come by the
        deadline.
        """
        answer: asyncio.Future[list[ReasonCode]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            async with dialer.within(deadline, f"{self._peer} did not confirm the subscription"):
                return await answer
        finally:
            del self._waiting[number]

    def note_answer(self, number: int, codes: list[ReasonCode]) -> None:
        """Handle a SUBACK: a code for each topic of the packet with the given id."""
        answer = self._waiting.get(number)
        if answer is not None and not answer.done():
            answer.set_result(codes)

    def fail(self, error: BaseException) -> None:
        """Make all waiting calls raise the error: the link is over."""
        self._failure = error
        for answer in self._waiting.values():
            fail_future(answer, error)


def fail_future(awaited: asyncio.Future[Any] | None, error: BaseException) -> None:
    """Set the exception of a future, unless the future is None or done."""
    if awaited is not None and not awaited.done():
        awaited.set_exception(error)
        awaited.exception()  # marks it as seen: its caller may be gone
