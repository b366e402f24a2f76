"""The channel that an amqp connection reads from: messages to the sink, acknowledgements to the
broker.

Everything runs on the event loop. pika calls `_take` for each message of the bytes just read.
`Stream` then calls `hand_over`, which gives the messages to the sink together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from pika.exceptions import ChannelClosedByBroker

from trunkline.actors.driver import Delivery, Sink
from trunkline.actors.drivers.amqp.client import ask
from trunkline.actors.drivers.amqp.envelope import delivery
from trunkline.actors.drivers.amqp.header import Properties
from trunkline.actors.drivers.amqp.memory import Memory
from trunkline.actors.drivers.amqp.plan import STREAM_OFFSET, Plan
from trunkline.actors.drivers.amqp.settled import SettledTags
from trunkline.actors.drivers.amqp.strays import Strays
from trunkline.actors.drivers.amqp.watch import QueueWatch

__all__ = ["Reader"]


class Reader:
    """The reading half of one link.

    `largest`: messages of more bytes are rejected. `cut`: ends the link for the reason given.
    `hide`: removes the user's name from the broker's words.
    """

    def __init__(
        self,
        channel: Any,
        plan: Plan,
        memory: Memory,
        sink: Sink,
        *,
        largest: int,
        cut: Callable[[str], None],
        hide: Callable[[str], str],
    ) -> None:
        self.channel = channel
        self._plan = plan
        self._memory = memory
        self._sink = sink
        self._largest = largest
        self._cut = cut
        self._hide = hide
        self._batch: list[Delivery] = []
        self._is_paused = False
        self._settled = SettledTags()
        self._strays: Strays | None = None
        self._queue_watch: QueueWatch | None = None
        self._offsets: dict[int, int] | None = {} if plan.streams else None
        """For a stream: the offsets of unsettled messages, by delivery tag."""

    async def begin(
        self, connection: Any, queue: str, ready: int, exchange_type: str | None
    ) -> None:
        """Have the broker send the messages of the queue.

        `ready`: how many messages wait in the queue. `exchange_type`: the type that the address
        names, or None.
        """
        plan = self._plan
        self._strays = Strays(plan, exchange_type)
        self._queue_watch = QueueWatch(connection, plan, queue, self._note_exchange_gone)
        self._queue_watch.ready(ready)
        arguments = self._consume_arguments()
        await ask(
            self.channel.basic_consume,
            queue,
            self._take,
            exclusive=plan.exclusive,
            arguments=arguments,
        )
        self.channel.add_on_close_callback(self._note_closed)

    async def limit(self) -> None:
        """Tell the broker how many messages may be unsettled, and listen for the end of the
        subscription.
        """
        self.channel.add_on_cancel_callback(self._note_cancelled)
        await ask(self.channel.basic_qos, prefetch_count=self._plan.prefetch)

    def close(self) -> None:
        """Stop looking after the queue."""
        if self._queue_watch is not None:
            self._queue_watch.close()

    def _consume_arguments(self) -> dict[str, Any] | None:
        """Return the arguments of the subscription.

        A stream is read on from the place that readers have reached.
        """
        plan = self._plan
        if plan.streams and self._memory.stream_next is not None:
            return {**(plan.consume_arguments or {}), STREAM_OFFSET: self._memory.stream_next}
        return plan.consume_arguments

    # ends of the subscription

    def _note_cancelled(self, frame: Any) -> None:
        """End the link after the broker has cancelled the subscription."""
        self._memory.deleted.add("queue")  # removed again if the next link finds the queue
        self._cut(
            "the broker cancelled the subscription: the queue was deleted, or its node is gone"
        )

    def _note_exchange_gone(self) -> None:
        """End the link after the exchange was deleted: no more messages would come."""
        self._memory.deleted.add("exchange")
        self._cut(
            "the exchange was deleted on the broker, and what is published to it comes no more"
        )

    def _note_closed(self, channel: Any, reason: Exception) -> None:
        """End the link after the broker has closed the channel, with the reason in words."""
        if not isinstance(reason, ChannelClosedByBroker):
            return
        text = self._hide(str(reason.reply_text))
        if "timed out" in str(reason.reply_text):
            text = "a message was unread for longer than the broker's consumer_timeout"
        self._cut(f"the broker ended the subscription: {text}")

    # incoming messages

    def _take(self, channel: Any, method: Any, properties: Properties, body: bytes) -> None:
        """Take one message from pika, and keep it for `hand_over`. A too big message is
        rejected.
        """
        found = delivery(method, properties, body)
        if self._queue_watch is not None:
            self._queue_watch.counted(delivered=1)
        if properties.unread:
            names = ", ".join(map(repr, properties.unread))
            self._sink.warn(f"headers of a message could not be read and were left out: {names}")
        if self._offsets is not None:
            found = self._number(self._offsets, found)
        self._warn_of_stray(method.exchange, found.topic or "")
        if len(body) <= self._largest:
            self._batch.append(found)
            return
        # The broker dead-letters or drops the message. Requeued, the message would come again for
        # ever.
        channel.basic_reject(method.delivery_tag, requeue=False)
        self._note_settled(method.delivery_tag)
        self._sink.dropped(1)
        self._sink.warn(
            f"a message of {len(body)} bytes was rejected: max_size is {self._largest} bytes"
        )

    def _number(self, offsets: dict[int, int], found: Delivery) -> Delivery:
        """Note the offset of a stream's message: a stream never sets `redelivered`, but it numbers
        its messages.
        """
        number = (found.headers or {}).get(STREAM_OFFSET)
        if not isinstance(number, int):
            return found
        offsets[found.token] = number
        again = number <= self._memory.stream_seen
        self._memory.stream_seen = max(number, self._memory.stream_seen)
        return found._replace(
            redelivered=found.redelivered or again, identity=(STREAM_OFFSET, number)
        )

    def _warn_of_stray(self, exchange: str, key: str) -> None:
        """Warn once that the queue has another binding than the address asks for."""
        if self._strays is None or self._memory.stray_told:
            return
        warning = self._strays.warning(exchange, key)
        if warning is not None:
            self._memory.stray_told = True
            self._sink.warn(warning)

    def hand_over(self) -> None:
        """Give the sink the messages that have come since the last call."""
        if self._batch and not self._is_paused:
            batch, self._batch = self._batch, []
            self._sink.deliver(batch)

    def pause(self) -> None:
        """Keep incoming messages here.

        They are at most `prefetch`, and the socket is read on for the heartbeats.
        """
        self._is_paused = True

    def resume(self) -> None:
        self._is_paused = False
        self.hand_over()

    def lag(self) -> int | None:
        """Return the number of messages in the queue, with the unsettled messages.

        None for a stream, which keeps every message.
        """
        if self._queue_watch is None or self._offsets is not None:
            return None
        return self._queue_watch.lag()

    # settling messages

    def settle(self, tokens: Sequence[int]) -> None:
        """Acknowledge messages; one acknowledgement covers consecutive tags."""
        if not self.channel.is_open:
            return
        last = 0
        for tag in tokens:
            if self._settled.follows(tag):
                last = tag
                self._note_settled(tag)
            elif not self._settled.is_settled(tag):
                self.channel.basic_ack(tag)
                self._note_settled(tag)
        if last:
            self.channel.basic_ack(last, multiple=True)

    def refuse(self, token: int, verdict: str, delay_ms: float) -> None:
        """Give the message back to its queue (`nak`) or have it dead-lettered (`reject`).

        AMQP knows no delay, so the refusal is sent only after `delay_ms` milliseconds.
        """
        if delay_ms:
            asyncio.get_running_loop().call_later(delay_ms / 1000, self.refuse, token, verdict, 0.0)
        elif self.channel.is_open and not self._settled.is_settled(token):
            self.channel.basic_nack(token, requeue=verdict == "nak")
            self._note_settled(token)

    def _note_settled(self, tag: int) -> None:
        """Note a settled tag. For a stream, move the place of reading over all tags settled in a
        row.
        """
        if self._queue_watch is not None:
            self._queue_watch.counted(settled=1)
        for settled in self._settled.add(tag):
            if self._offsets and (number := self._offsets.pop(settled, None)) is not None:
                self._memory.stream_next = number + 1
