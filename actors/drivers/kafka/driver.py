"""Kafka (`kafka`), on confluent-kafka.

One driver object is one link. librdkafka has no such notion: it reconnects by itself. Here a link
means "some broker answers". The link is lost when all brokers are gone, or when a request has no
answer for the ping interval. The consumer, its place in the group and its positions outlive a link
(`reader`). The producer does not, so no old message is sent after an outage (`writer`).

Three threads meet. The driver object lives on the event loop. The reader and the writer have a
thread each, because librdkafka's calls block.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

from confluent_kafka import KafkaException, Producer

from trunkline.actors.driver import (
    Delivery,
    FatalError,
    Outgoing,
    Overflow,
    Place,
    Sink,
    StreamDriver,
)
from trunkline.actors.drivers.kafka.errors import settings_failure
from trunkline.actors.drivers.kafka.log import quiet_logger
from trunkline.actors.drivers.kafka.plan import Plan, check_topic, header_pairs, plan_of
from trunkline.actors.drivers.kafka.reader import Reader
from trunkline.actors.drivers.kafka.seek import Void
from trunkline.actors.drivers.kafka.writer import Writer
from trunkline.actors.net import dialer
from trunkline.address import Address
from trunkline.deadline import Deadline
from trunkline.errors import RefusedError

__all__ = ["KafkaDriver"]

_CLOSE_S = 0.9

_left_behind: dict[int, tuple[Address, Reader]] = {}
"""The readers of lost links, by the identity of the address object; the next driver object takes
the reader over.

A worker has one connection, so the dict has at most one entry.
"""


_opened: dict[int, Address] = {}
"""Addresses that have had a link, by the identity of the address object.

Only the first link may have the broker make missing topics. Later links wait until somebody makes
them.
"""


class KafkaDriver(StreamDriver):
    """One link to a Kafka cluster."""

    schemes: ClassVar[tuple[str, ...]] = ("kafka",)
    overflow: ClassVar[Overflow] = Overflow.BACK_PRESSURE
    confirms: ClassVar[bool] = True
    extra: ClassVar[str | None] = "kafka"
    seeks: ClassVar[bool] = True
    addressing: ClassVar[frozenset[str]] = frozenset(("topic", "key", "headers", "null"))

    def __init__(self, address: Address, sink: Sink) -> None:
        super().__init__(address, sink)
        self._plan: Plan | None = None
        self._reader: Reader | None = None
        self._writer: Writer | None = None
        self._over: str | None = None
        self._opened = False
        self._took_over = False

    @classmethod
    def redelivers(cls, address: Address) -> bool:
        """Whether unread messages come again after a crash: with a group they do."""
        return bool(address.params.get("group"))

    async def open(self, deadline: Deadline) -> None:
        """Take over the reader of the lost link, or make one, and open a link with it.

        Making the plan reads files and tries librdkafka's settings, so it runs in a thread.
        """
        _, reader = _left_behind.pop(id(self.address), (None, None))
        self._took_over = reader is not None
        if reader is None or reader.is_useless:
            plan = await dialer.run_in_thread(
                lambda: _checked(self.address), "trunkline-kafka-plan"
            )
            reader = Reader(plan, reader, makes_topics=id(self.address) not in _opened)
        self._plan, self._reader = reader.plan, reader
        await reader.open(self, deadline)
        self._opened = True
        _opened[id(self.address)] = self.address

    async def send(self, data: str | bytes, deadline: Deadline) -> int:
        writer = self._living_writer()
        return await writer.send(data, writer.own_route(), deadline)

    async def send_to(
        self, data: str | bytes | None, outgoing: Outgoing, deadline: Deadline
    ) -> int:
        """Write a message that may have its own topic, key and headers; see `Writer.send`."""
        writer = self._living_writer()
        route = writer.own_route()
        if outgoing.topic is not None:
            check_topic(outgoing.topic)
            same = outgoing.topic == route.topic  # another topic may have fewer partitions
            route = route._replace(topic=outgoing.topic, partition=route.partition if same else -1)
        if outgoing.key is not None:
            route = route._replace(key=outgoing.key)
        if outgoing.headers is not None:
            route = route._replace(headers=header_pairs(outgoing.headers))
        return await writer.send(data, route, deadline)

    def _living_writer(self) -> Writer:
        """Return the writer of the open link, made at the first write; ConnectionError where the
        link is over.
        """
        if self._over is not None or self._plan is None or not self._opened:
            raise ConnectionError(self._over or "the link is gone")
        if self._writer is None:
            try:
                self._writer = Writer(self._plan, self.say)
            except FatalError as error:
                raise RefusedError(str(error)) from None
        return self._writer

    async def close(self) -> None:
        """Close the writer, and the reader unless the next link takes it over. Waits at most
        `_CLOSE_S` seconds.
        """
        lost = self._over is not None or not self._opened
        self._over = self._over or "the connection was closed"
        reader, self._reader = self._reader, None
        jobs = []
        if self._writer is not None:
            jobs.append(self._writer.close(_CLOSE_S))
        if reader is not None:
            reader.leave(self)
            # The reader is kept for the next attempt. No attempt follows where the first one
            # failed, or where the address says `reconnect=false`.
            again = (
                lost
                and (self._opened or self._took_over)
                and bool(self.address.option("reconnect"))
            )
            if again:
                _left_behind[id(self.address)] = (self.address, reader)
            if not again or reader.is_useless:
                jobs.append(reader.close(_CLOSE_S))
        await asyncio.gather(*jobs)

    async def seek(self, place: Place, deadline: Deadline) -> Void:
        if self._over is not None or self._reader is None:
            raise ConnectionError(self._over or "the link is gone")
        return await self._reader.seek(place, deadline)

    def pause(self) -> None:
        if self._reader is not None:
            self._reader.pause()

    def resume(self) -> None:
        if self._reader is not None:
            self._reader.resume()

    def lag(self) -> int | None:
        return self._reader.lag() if self._reader is not None else None

    def settle(self, tokens: Sequence[Any]) -> None:
        # A link lost a moment ago counts, too: the next link goes on behind these messages.
        if self._reader is not None:
            self._reader.settle(tokens)

    # reports of the reader (`loop_side.Owner`), called on the event loop

    def arrived(self, batch: Sequence[Delivery]) -> None:
        if self._over is None:
            self.sink.deliver(batch)

    def went(self, reason: BaseException) -> None:
        """Report the end of the link, once, and end all writes."""
        if self._over is not None:
            return
        self._over = str(reason) or type(reason).__name__
        if self._writer is not None:
            self._writer.lost(self._over)
        if self._opened:
            self.sink.lost(reason)

    def passed_over(self, count: int) -> None:
        self.sink.dropped(count)

    def say(self, text: str) -> None:
        self.sink.warn(text)


def _checked(address: Address) -> Plan:
    """Return the plan. The producer's properties are tried now, and not at the first write."""
    plan = plan_of(address)
    if plan.given:
        try:
            Producer(
                {**plan.producer, "bootstrap.servers": ""}, logger=quiet_logger(lambda _: None)
            )
        except KafkaException as error:
            raise settings_failure(error) from None
    return plan
