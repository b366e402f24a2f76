"""Requests over MQTT 5: a message that says where its answer is to go, and the wait for that answer."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Iterator

from trunkline.actors.driver import Delivery
from trunkline.actors.drivers.mqtt.session import Session
from trunkline.actors.drivers.mqtt.subscriptions import Subscriptions, fail_future
from trunkline.deadline import Deadline

__all__ = ["Questions"]


class Questions:
    """The requests of one connection that have no answer yet."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiting: dict[bytes, asyncio.Future[Delivery]] = {}
        self._subscribing = asyncio.Lock()
        self._is_subscribed = False
        """The topic of answers is subscribed to, on this link."""

    def begin_link(self) -> None:
        """Another link: its broker does not know of the topic of answers yet."""
        self._is_subscribed = False

    @contextlib.contextmanager
    def asked(self) -> Iterator[tuple[bytes, asyncio.Future[Delivery]]]:
        """A question under way: the correlation data that it carries, and the answer to be awaited."""
        number = uuid.uuid4().bytes
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            yield number, answer
        finally:
            del self._waiting[number]

    async def answer_topic(self, subscriptions: Subscriptions, deadline: Deadline) -> str:
        """The topic where answers come, subscribed to with a link's first request. It is the same for all
        links, for a kept session keeps it."""
        async with self._subscribing:
            if self._session.reply_topic is None:
                self._session.reply_topic = f"trunkline/reply/{uuid.uuid4().hex}"
            topic = self._session.reply_topic
            if not self._is_subscribed:
                await subscriptions.subscribe([topic], deadline)
                self._is_subscribed = True
            return topic

    def is_answer(self, delivery: Delivery) -> bool:
        """Whether the message has come to the topic of answers."""
        return delivery.topic == self._session.reply_topic

    def note_answer(self, delivery: Delivery) -> None:
        """An answer has come. One that is too late, or that we have not asked for, is dropped."""
        answer = self._waiting.get((delivery.properties or {}).get("correlation_data", b""))
        if answer is not None and not answer.done():
            answer.set_result(delivery._replace(token=None, identity=None))

    def fail(self) -> None:
        """The link is over: no answer comes any more."""
        for answer in self._waiting.values():
            fail_future(answer, ConnectionError("the link is gone; the request may have arrived"))
