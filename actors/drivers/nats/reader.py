"""Reading a JetStream stream by a pull consumer, asked for as many messages as readers have taken.

This module makes its requests with nats-py's `publish` and `subscribe`. nats-py's `fetch` waits
until a whole batch has come or its time is over, so a single message is seconds late. A push
consumer cannot be stopped when the buffer is full, and stays bound to a lost link for minutes after
a cut.

With a durable consumer each message is acknowledged when a reader has had it. The driver remembers
recent acknowledgements, because a server that crashes and a link that breaks lose them. Without a
durable consumer the driver remembers the place in the stream, and the next link goes on there.

The parts: `consumer` finds or makes the consumer, `pulls` decides when to ask for messages, `held`
knows the unread messages, `jobs` runs nats-py's coroutines.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import api

from trunkline.actors.driver import Delivery, Sink
from trunkline.actors.drivers.nats.client import GuardedClient
from trunkline.actors.drivers.nats.consumer import StreamConsumer
from trunkline.actors.drivers.nats.envelope import StreamDelivery, delivery_of
from trunkline.actors.drivers.nats.held import Held, HeldMessages
from trunkline.actors.drivers.nats.jobs import Jobs, run_all
from trunkline.actors.drivers.nats.place import Place
from trunkline.actors.drivers.nats.plan import StreamPlan
from trunkline.actors.drivers.nats.pulls import Pulls, StatusKind, read_status
from trunkline.actors.drivers.nats.questions import ConsumerLook
from trunkline.deadline import Deadline
from trunkline.errors import DialError

__all__ = ["StreamReader"]

_RETRY_S = 0.5
_REBIND_S = 10.0
_BEAT_S = 10.0
_CHECK_S = 1.0
"""Every so many seconds the reader checks for requests without an answer."""
_ACKNOWLEDGE_S = 0.45
_GIVE_BACK_S = 0.4


class StreamReader:
    """The reading half of one link. `ended` is called when the consumer is gone for good.

    Methods and nats-py's callbacks run on the event loop. The state changes only between two
    awaits, so no lock is needed. After an await the consumer may be a different one: compare the
    name.
    """

    def __init__(
        self,
        client: GuardedClient,
        plan: StreamPlan,
        topic: str | None,
        sink: Sink,
        place: Place,
        ended: Callable[[BaseException], None],
    ) -> None:
        self._client, self._plan, self._sink = client, plan, sink
        self._place, self._ended = place, ended
        self._acks = plan.durable is not None
        self._consumer = StreamConsumer(client, plan, topic, sink, place)
        self._pulls = Pulls(plan.window, time.monotonic())
        self._held = HeldMessages(place, plan.window)
        self._jobs = Jobs(self._note_failed_job)
        self._pending: int | None = None
        """How many messages the consumer has not delivered yet, as the server last said; None
        before.
        """
        self._looking: asyncio.Task[None] | None = None
        self._listening: Subscription | None = None
        self._batch: list[Delivery] = []
        self._paused = self._closing = False
        self._beat_timer: asyncio.TimerHandle | None = None
        self._check_timer: asyncio.TimerHandle | None = None

    # the consumer

    async def open(self, deadline: Deadline) -> None:
        """Find or make the consumer and subscribe to its messages.

        Raises DialError where the next attempt may succeed, and FatalError where the user must act
        first.
        """
        self._obey(await self._consumer.bind(deadline))
        self._pulls.inbox = self._client.new_inbox()
        self._listening = await self._client.subscribe(f"{self._pulls.inbox}.*", cb=self._receive)

    def start(self) -> None:
        """Begin to ask for messages: the link is open."""
        self._pulls.start(time.monotonic())
        self._pull()
        self._beat()
        self._check()

    def lag(self) -> int | None:
        """How many messages of the stream are unread, as the server last said.

        None before it did.
        """
        return None if self._pending is None else self._pending + len(self._held)

    def _obey(self, look: ConsumerLook | None) -> None:
        if look is not None:
            self._pending = self._place.pending = look.pending
            self._pulls.obey(look)

    # asking for messages

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._pull()

    def _pull(self) -> None:
        """Ask for as many messages as the window has room for, where that is worth a request."""
        if self._paused:
            return
        pull = self._pulls.next_request(len(self._held), time.monotonic())
        if pull is not None:
            body = self._pulls.body_of(pull)
            subject = self._consumer.request_subject
            self._jobs.run(partial(self._client.publish, subject, body, reply=pull.inbox))

    def _check(self) -> None:
        """Ask the server about the consumer after a reason for doubt."""
        if self._pulls.must_look(time.monotonic()) and self._looking is None:
            self._looking = asyncio.ensure_future(self._look())
            self._jobs.keep(self._looking)
        self._check_timer = asyncio.get_running_loop().call_later(_CHECK_S, self._check)

    async def _look(self) -> None:
        """Ask the server about the consumer, and act on the answer.

        The consumer may be made anew while the answer is awaited. An answer about the former one is
        ignored.
        """
        begun, consumer = time.monotonic(), self._consumer.name
        try:
            found = await self._consumer.look()
        except (nats.errors.Error, OSError, ValueError):
            if self._pulls.is_silent(time.monotonic()):
                seconds = self._pulls.patience_s
                self._ended(TimeoutError(f"JetStream has answered no question for {seconds:.0f} s"))
            return
        finally:
            self._looking = None
        if consumer != self._consumer.name:
            return
        self._pulls.note_answer(time.monotonic())
        if found is None:
            self._note_gone("it is not there any more")
            return
        self._obey(found)
        if self._consumer.topic is not None and found.filter != self._consumer.topic:
            self._ended(ConnectionError(f"consumer {consumer} reads {found.filter or '>'} now"))
            return
        self._pulls.note_consumer_there(begun, found.waiting)
        self._pull()

    def _beat(self) -> None:
        """Report progress on held messages, so the server does not deliver them again.

        The server gives up on a message after `ack_wait`, and a message may wait for its reader
        longer. A third of `ack_wait` leaves time for two more reports. The timer also drops
        requests that the server has forgotten.
        """
        now, every = time.monotonic(), min(_BEAT_S, self._consumer.ack_wait_s / 3)
        if self._acks:
            due = self._held.due_for_progress(now, every * 0.9)
            self._jobs.run(*(held.msg.in_progress for held in due))
        self._pulls.forget_expired(now)
        self._pull()
        self._beat_timer = asyncio.get_running_loop().call_later(every, self._beat)

    # receiving

    async def _receive(self, msg: Msg) -> None:
        """Take one message. A damaged message is counted as dropped and must not end nats-py's
        task.
        """
        self._pulls.note_heard(time.monotonic())
        try:
            self._take(msg)
        except (ValueError, LookupError, TypeError, ArithmeticError):
            # The message is not acknowledged: the server sends it again, and that copy may be
            # undamaged.
            self._sink.dropped(1)
            self._sink.warn(
                f"a message of stream {self._plan.name} cannot be read and is passed over"
            )

    def _take(self, msg: Msg) -> None:
        """Handle a message of the stream, or the server's report on a request."""
        headers = msg.headers
        is_ours = msg.subject.startswith(self._pulls.inbox)
        if headers is not None and api.Header.STATUS in headers and is_ours:
            description = headers.get(api.Header.DESCRIPTION, "")
            self._note_status(msg.subject, headers[api.Header.STATUS], description)
            return
        if not msg.reply.startswith("$JS.ACK."):
            return  # not a delivery of the stream
        found = delivery_of(msg.reply)
        self._note_progress(found)
        if self._is_known(msg, found):
            return
        if len(msg.data) > self._plan.largest:
            self._discard(msg, found)
            return
        self._held.add(found.sequence, Held(msg, time.monotonic(), found.taken))
        if not self._closing:  # close() gives back what arrives late
            self._deliver(msg, found)

    def _note_progress(self, found: StreamDelivery) -> None:
        """Count missing messages before the delivered one, and note how far reading has come."""
        if missing := self._consumer.gaps.missing(found.own, found.sequence):
            self._sink.dropped(missing)
            self._sink.warn(
                f"stream {self._plan.name} threw messages away before they could be read"
            )
        self._pending = self._place.pending = found.left
        self._pulls.note_message()
        if self._place.next is None or found.sequence >= self._place.next:
            self._place.next = found.sequence + 1

    def _is_known(self, msg: Msg, found: StreamDelivery) -> bool:
        """Whether the message has come before, so no reader is to get it again."""
        held = self._held.get(found.sequence)
        if held is not None:
            if (
                held.stamp != found.taken
            ):  # not acknowledged: the next link gets it, and knows the two apart
                self._ended(ConnectionError(f"stream {self._plan.name} was made anew"))
            else:
                held.msg, held.told = msg, time.monotonic()  # it comes again: once is enough
            return True
        # A reader has had the message, and the server does not know: the acknowledgement was lost
        # or came too late.
        if self._held.was_read(found.sequence, found.taken):
            self._jobs.run(msg.ack)
            self._pull()
            return True
        return False

    def _deliver(self, msg: Msg, found: StreamDelivery) -> None:
        """Keep a message for the next hand-over."""
        again = found.times > 1 or self._held.was_handed_over(found.sequence, found.taken)
        delivery = Delivery(
            msg.data,
            msg.subject,
            headers=dict(msg.headers) if msg.headers else None,
            timestamp=found.taken / 1e9,
            offset=found.sequence,
            redelivered=again,
            properties={
                "stream": found.stream,
                "consumer": found.consumer,
                "delivered": found.times,
            },
            token=found.sequence,
            identity=(found.stream, found.sequence, found.taken),
        )
        self._batch.append(delivery)
        if len(self._batch) == 1:  # messages of one read go together
            asyncio.get_running_loop().call_soon(self._hand_over)

    def _discard(self, msg: Msg, found: StreamDelivery) -> None:
        """Discard a message that is over `max_size`, and terminate it at the server. Otherwise the
        message would come again for ever.
        """
        self._sink.warn(
            f"a message of {len(msg.data)} bytes was discarded: it is over the option max_size"
        )
        self._sink.dropped(1)
        if self._acks:
            self._jobs.run(msg.term)
            self._held.note_read(found.sequence, found.taken)
        self._pull()

    def _hand_over(self) -> None:
        batch, self._batch = self._batch, []
        self._sink.deliver(batch)
        self._pull()

    def _note_status(self, inbox: str, code: str, description: str) -> None:
        """Handle the server's report that one of the requests has expired or cannot be met."""
        self._pulls.drop(inbox)
        status = read_status(code, description)
        if status.kind is StatusKind.CONSUMER_GONE:
            self._note_gone(description or "no responders")
        elif status.kind is StatusKind.ENDED:
            self._pull()
        elif status.kind is StatusKind.BATCH_LIMIT:
            self._pulls.limit_batch(status.most)
            self._pull()
        else:
            if status.limits_time:
                self._pulls.look_soon()
            self._sink.warn(
                f"stream {self._plan.name} does not take a request for messages: {code} {description}; "
                "it is made again"
            )
            asyncio.get_running_loop().call_later(_RETRY_S, self._pull)

    def _note_gone(self, why: str) -> None:
        """Handle the end of the consumer.

        A consumer without `durable=` is made again, at the present place of reading. A durable
        consumer held the place of its readers. The driver cannot guess the place, and ends the
        link.
        """
        self._pulls.clear()
        if self._plan.durable is None:
            self._jobs.run(self._rebind)
        else:
            self._ended(
                ConnectionError(f"the durable consumer {self._plan.durable} is gone ({why})")
            )

    async def _rebind(self) -> None:
        """Find or make the consumer again, after it has vanished."""
        try:
            self._obey(await self._consumer.bind(Deadline(_REBIND_S)))
        except DialError as error:
            self._ended(error)
        else:
            self._pull()

    # acknowledging

    def settle(self, tokens: Sequence[int]) -> None:
        """Acknowledge messages after reading."""
        read = [(token, held) for token in tokens if (held := self._held.take(token)) is not None]
        if self._acks:
            self._jobs.run(*(held.msg.ack for _, held in read))
            for token, held in read:
                self._held.note_read(token, held.stamp)
        self._pull()

    def refuse(self, token: int, verdict: str, delay_ms: float) -> None:
        """Refuse a message at the wish of its reader.

        `nak`: the server delivers the message again, after `delay_ms` milliseconds at the earliest.
        `reject`: the server delivers it to no reader any more.
        """
        held = self._held.take(token)
        if held is not None and self._acks:
            if verdict == "nak":
                self._jobs.run(partial(held.msg.nak, delay_ms / 1000 if delay_ms else None))
            else:
                self._jobs.run(held.msg.term)
                self._held.note_read(token, held.stamp)  # no reader is to get it again
        self._pull()

    def _note_failed_job(self, error: BaseException) -> None:
        # The job would have brought messages or acknowledged them. Without it reading may stand
        # still for ever.
        self._ended(ConnectionError(f"reading stream {self._plan.name} failed: {error!r:.200}"))

    # closing

    async def close(self) -> None:
        """Give back unread messages for other readers, and delete a consumer without `durable=`."""
        for timer in (self._beat_timer, self._check_timer):
            if timer is not None:
                timer.cancel()
        if self._acks:
            self._held.leave_to_next_link()
        self._paused = self._closing = True
        # Acknowledgements go first and have their own time limit: acknowledged messages must not
        # come again.
        await self._finish(_ACKNOWLEDGE_S)
        if self._client.is_connected and self._acks and self._listening is not None:
            self._jobs.run(partial(self._give_back, self._listening))
        elif self._client.is_connected and self._consumer.name and not self._acks:
            self._jobs.run(self._consumer.delete)
        await self._finish(_GIVE_BACK_S)
        self._held.clear()
        self._jobs.cancel()

    async def _give_back(self, listening: Subscription) -> None:
        """Give back held messages, and messages under way.

        Otherwise readers would wait for such messages until `ack_wait` is over. The order of the
        steps matters.
        """
        # First a round trip: messages that the server has begun to send would be lost without the
        # subscription.
        await self._consumer.hear_from_server()
        # Without the subscription the server sends given back messages to other readers only.
        await self._client.end_interest(listening)
        # The question makes the server forget the requests that wait. Such a request would swallow
        # the first message that is given back (seen with nats-server 2.9).
        await self._consumer.hear_from_server()
        await run_all([held.msg.nak for held in self._held.all()])

    async def _finish(self, seconds: float) -> None:
        if self._looking is not None:
            self._looking.cancel()
        await self._jobs.wait(seconds)
