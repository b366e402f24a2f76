"""Requests over MQTT 5: a message with the topic of its answer, and the wait for the answer."""

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
        """Whether this link has subscribed to the topic of answers."""

    def begin_link(self) -> None:
        """Note another link, whose broker does not know the topic of answers yet."""
        self._is_subscribed = False

    @contextlib.contextmanager
    def asked(self) -> Iterator[tuple[bytes, asyncio.Future[Delivery]]]:
        """Enter a question: yields its correlation data, and a future for the answer."""
        number = uuid.uuid4().bytes
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            yield number, answer
        finally:
            del self._waiting[number]

    async def answer_topic(self, subscriptions: Subscriptions, deadline: Deadline) -> str:
        """Return the topic of answers, subscribed to at the first request of a link.

        All links use the same topic, because a kept session keeps the subscription.
        """
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
        """Hand an answer to its question. A late or unexpected answer is dropped."""
        answer = self._waiting.get((delivery.properties or {}).get("correlation_data", b""))
        if answer is not None and not answer.done():
            answer.set_result(delivery._replace(token=None, identity=None))

    def fail(self) -> None:
        """End all questions with an error: the link is over."""
        for answer in self._waiting.values():
            fail_future(answer, ConnectionError("the link is gone; the request may have arrived"))
