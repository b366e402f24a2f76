"""Reading topics by core NATS: what is published while the link is open, at most once."""

from __future__ import annotations

import asyncio
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from trunkline.actors.driver import Delivery, Sink
from trunkline.actors.drivers.nats.plan import Plan, matches, meet

__all__ = ["CoreReader", "earlier_topics"]

_new = tuple.__new__
"""A Delivery without its constructor, which takes as long as all the rest of receiving one."""


class CoreReader:
    """The subscriptions of one link. `largest`: messages of more bytes are discarded and counted."""

    def __init__(self, client: Client, plan: Plan, sink: Sink, largest: int) -> None:
        self._client = client
        self._plan = plan
        self._sink = sink
        self._largest = largest
        self._earlier = earlier_topics(plan)
        self._batch: list[Delivery] = []

    async def open(self) -> None:
        """Subscribe to all topics; the server has not looked at the subscriptions when this returns."""
        # nats-py only calls it; see test_nats_driver.
        self._client.msg_class = self._make_message  # type: ignore[assignment]
        for topic in self._plan.topics:
            await self._client.subscribe(topic, queue=self._plan.queue or "")

    def _make_message(
        self,
        subject: str,
        reply: str,
        data: bytes,
        headers: dict[str, Any] | None,
        _client: Client,
        _sid: int,
    ) -> Msg | None:
        """In place of nats-py's `Msg`; it passes by what is None: a message of ours needs no queue and
        no task of its subscription. Those are a third of its cost, mix up the order of several topics, and
        drop what does not fit them."""
        if _sid > len(
            self._plan.topics
        ):  # the first subscriptions are ours: this answers a question
            return Msg(_client, subject, reply, data, headers, _sid=_sid)
        if self._earlier and any(matches(topic, subject) for topic in self._earlier.get(_sid, ())):
            return None  # it comes once for each topic that matches, and to us once is enough
        if len(data) > self._largest:
            self._sink.warn(
                f"a message of {len(data)} bytes was discarded: it is over the option max_size"
            )
            self._sink.dropped(1)
            return None
        if not self._batch:  # what came with it is handed over with it
            asyncio.get_running_loop().call_soon(self._hand_over)
        self._batch.append(
            _new(
                Delivery,
                (
                    data,
                    subject,
                    None,
                    headers,
                    None,
                    None,
                    None,
                    False,
                    reply or None,
                    None,
                    None,
                    None,
                ),
            )
        )
        return None

    def _hand_over(self) -> None:
        batch, self._batch = self._batch, []
        self._sink.deliver(batch)


def earlier_topics(plan: Plan) -> dict[int, list[str]]:
    """By number of the subscription, the topics before its own that some message may match, too. None in a
    queue group, whose server sends a message to it once."""
    if plan.queue:
        return {}
    found = {
        number + 1: [other for other in plan.topics[:number] if meet(other, topic)]
        for number, topic in enumerate(plan.topics)
    }
    return {number: topics for number, topics in found.items() if topics}
