"""Writing to an MQTT broker: a message waits until the broker takes it, and then for the
confirmation.

paho would queue a message and send it whenever that becomes possible. The writer keeps waiting
messages outside paho, so a message never goes out after its deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from paho.mqtt.properties import Properties

from trunkline.actors.drivers.mqtt import errors
from trunkline.actors.drivers.mqtt.client import Client
from trunkline.actors.drivers.mqtt.plan import Plan
from trunkline.actors.drivers.mqtt.session import Session
from trunkline.deadline import Deadline
from trunkline.errors import RefusedError, Unconfirmed

__all__ = ["Writer"]

_IN_FLIGHT = 20
"""How many messages may be unconfirmed with MQTT 3.1.1, whose brokers name no limit. paho's
number.
"""
_IN_FLIGHT_V5 = 1000
_LARGEST = 268_435_455
_SMALL = 64 * 1024
"""A message up to this size in bytes goes out at once when no other message waits."""


@dataclass(slots=True, eq=False)
class _Writing:
    """A message that is being written."""

    topic: str
    payload: bytes
    properties: Properties | None
    deadline: Deadline
    done: asyncio.Future[None]
    started: bool = False


class Writer:
    """Writes over one link, after its login.

    `found`: the properties of the broker's answer (MQTT 5).
    """

    def __init__(
        self,
        client: Client,
        plan: Plan,
        session: Session,
        peer: str,
        found: Any,
        end: Callable[[BaseException], None],
    ) -> None:
        self._client = client
        self._end = end
        self._partly: _Writing | None = None
        """The message that may be handed over in part, because the socket takes no more."""
        self._plan = plan
        self._session = session
        self._peer = peer
        limits = found if plan.v5 else None
        most = _IN_FLIGHT_V5 if plan.v5 else _IN_FLIGHT
        self._most = min(most, getattr(limits, "ReceiveMaximum", most))
        self._largest = getattr(limits, "MaximumPacketSize", _LARGEST)
        # The payload is surrounded by the packet's head, the properties and the topic.
        headers = sum(5 + len(name.encode()) + len(value.encode()) for name, value in plan.headers)
        self._around = 12 + headers
        self._small = min(
            _SMALL, self._largest - self._around - len((plan.write_topic or "").encode())
        )
        self._waiting: deque[_Writing] = deque()
        self._in_flight: dict[int, _Writing] = {}
        self._over = False

    def would_wait(self, size: int) -> bool:
        """As `StreamDriver.would_wait`. Also true for a message that will be refused."""
        return bool(
            self._plan.qos
            or self._plan.write_topic is None
            or size > self._small
            or self._waiting
            or self._over
            or self._client.is_blocked()
        )

    async def publish(
        self,
        topic: str,
        payload: bytes,
        properties: Properties | None,
        deadline: Deadline,
        around: int | None = None,
    ) -> bool:
        """Send a message and wait for the broker's confirmation (QoS 0: until it has been handed
        over).

        Returns False when the message did not go out by the deadline. Raises Unconfirmed (sent, no
        confirmation by the deadline), RefusedError and ConnectionError. `around`: bytes of the
        properties and the packet's head, where they differ from those of the address.
        """
        self._check(topic, payload, self._around if around is None else around)
        writing = _Writing(
            topic, payload, properties, deadline, asyncio.get_running_loop().create_future()
        )
        if self._waiting or not self._may_start():
            self._waiting.append(writing)
        else:
            self._start(writing)
        try:
            if not writing.done.done():
                async with asyncio.timeout(deadline.timeout()):
                    await writing.done
            writing.done.result()
        except TimeoutError:
            if not writing.started:
                return False
            if writing is self._partly and self._client.want_write():
                # A part of a message cannot be taken back, and the rest must not go out after the
                # deadline.
                self._end(ConnectionError("only a part of a message went out in time; broken off"))
            what = "did not confirm" if self._plan.qos else "did not take all of"
            raise Unconfirmed(
                f"{self._peer} {what} the message in the time allowed: it may or may not have arrived"
            ) from None
        finally:
            if not writing.started:
                with contextlib.suppress(ValueError):
                    self._waiting.remove(writing)
        return True

    def advance(self) -> None:
        """Send waiting messages in order, as far as possible, without those that are late or given
        up.

        Called when the socket takes more, or when a message was confirmed.
        """
        if not self._plan.qos and not self._client.want_write():
            self._handed_over()
        while self._waiting and not self._over and self._may_start():
            writing = self._waiting.popleft()
            if not writing.done.done() and not writing.deadline.expired():
                self._start(writing)

    def confirmed(self, number: int, code: int, text: str) -> None:
        """Handle the broker's confirmation or refusal of the message with this packet id.

        `advance` must follow.
        """
        writing = self._in_flight.pop(number, None)
        if writing is None or writing.done.done():
            return
        if code >= errors.FAILURE:
            writing.done.set_exception(
                errors.message_refused(self._peer, writing.topic, code, text)
            )
        else:
            writing.done.set_result(None)

    def close(self) -> None:
        """End all waiting calls with an error: the link is gone."""
        self._over = True
        for number, writing in self._in_flight.items():
            if self._plan.qos == 2 and self._plan.persistent:
                self._session.left_in_doubt(number)
            _fail(writing, "the link broke; the message may have arrived")
        for writing in self._waiting:
            _fail(writing, "the link is gone; the message was not sent")
        self._in_flight.clear()
        self._waiting.clear()

    def _check(self, topic: str, payload: bytes, around: int) -> None:
        """Raise the error of a message that cannot be sent on this link."""
        if self._over:
            raise ConnectionError("the link is gone")
        if len(payload) + len(topic.encode()) + around > self._largest:
            raise RefusedError(
                f"a message of {len(payload)} bytes was not sent: {self._peer} takes packets of "
                f"{self._largest} bytes at most",
                code=0x95,
            )
        if self._plan.qos == 2 and self._session.in_doubt >= self._most:
            raise RefusedError(
                f"{self._peer} holds {self._session.in_doubt} unfinished QoS 2 messages of this client_id "
                "and takes no more; dial with clean=true or another client_id"
            )

    def _may_start(self) -> bool:
        """Whether the broker and the socket take another message now."""
        if self._client.is_blocked():
            return False
        return not self._plan.qos or len(self._in_flight) + self._session.in_doubt < self._most

    def _start(self, writing: _Writing) -> None:
        """Give a message to paho, and enter it among the unconfirmed messages."""
        plan = self._plan
        try:
            info = self._client.publish(
                writing.topic, writing.payload, plan.qos, plan.retain, writing.properties
            )
        except ValueError as error:
            writing.done.set_exception(RefusedError(f"the message cannot be sent: {error}"))
            return
        writing.started = True
        self._partly = writing if self._client.want_write() else None
        if plan.qos or not info.is_published():
            self._in_flight[info.mid] = writing
        else:
            writing.done.set_result(None)

    def _handed_over(self) -> None:
        """Mark QoS 0 messages as sent: paho has nothing left to send."""
        for writing in self._in_flight.values():
            if not writing.done.done():
                writing.done.set_result(None)
        self._in_flight.clear()


def _fail(writing: _Writing, text: str) -> None:
    if not writing.done.done():
        writing.done.set_exception(ConnectionError(text))
