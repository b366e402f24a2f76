"""Reading topics by core NATS: messages published while the link is open, delivered at most
once.
"""

from __future__ import annotations

import asyncio
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from trunkline.actors.driver import Delivery, Sink
from trunkline.actors.drivers.nats.plan import Plan, matches, meet

__all__ = ["CoreReader", "earlier_topics"]

_new = tuple.__new__
"""Makes a Delivery without calling its constructor, which takes as long as all other steps of
receiving.
"""


class CoreReader:
    """The subscriptions of one link.

    A message of more than `largest` bytes is discarded and counted as dropped.
    """

    def __init__(self, client: Client, plan: Plan, sink: Sink, largest: int) -> None:
        self._client = client
        self._plan = plan
        self._sink = sink
        self._largest = largest
        self._earlier = earlier_topics(plan)
        self._batch: list[Delivery] = []

    async def open(self) -> None:
        """Subscribe to all topics.

        The server may not have processed the subscriptions yet when `open` returns.
        """
        # nats-py only calls this attribute; a test in test_nats_driver checks that.
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
        """Take a message in place of nats-py's `Msg` class; nats-py ignores a result of None.

        Messages of the address's topics thereby bypass the queue and the task of nats-py's
        subscription. Queue and task cost a third of the time per message, mix up the order of
        several topics, and drop messages that do not fit. The result is a `Msg` only for answers to
        questions.
        """
        if _sid > len(
            self._plan.topics
        ):  # the first numbers are the topics: this answers a question
            return Msg(_client, subject, reply, data, headers, _sid=_sid)
        if self._earlier and any(matches(topic, subject) for topic in self._earlier.get(_sid, ())):
            return None  # another subscription delivers the same message, once is enough
        if len(data) > self._largest:
            self._sink.warn(
                f"a message of {len(data)} bytes was discarded: it is over the option max_size"
            )
            self._sink.dropped(1)
            return None
        if not self._batch:  # messages of the same read of the socket are handed over together
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
    """Return for each subscription the earlier topics that may match the same messages.

    The keys are the numbers that nats-py gives the subscriptions, from 1. The result is empty in a
    queue group, because the server sends each message to the group once.
    """
    if plan.queue:
        return {}
    found = {
        number + 1: [other for other in plan.topics[:number] if meet(other, topic)]
        for number, topic in enumerate(plan.topics)
    }
    return {number: topics for number, topics in found.items() if topics}
