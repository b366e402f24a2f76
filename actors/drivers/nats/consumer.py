"""The consumer at the server: found or made for a link, and made again where it has vanished.

An existing durable consumer is used as it is. A consumer without `durable=` belongs to this
connection alone. The server deletes it some minutes after the link has ended, and the next link
makes a new consumer that goes on at the same place.
"""

from __future__ import annotations

import contextlib
import secrets
from datetime import timedelta

import nats.errors
from nats.js import api
from nats.js import errors as js_errors

from trunkline.actors.driver import FatalError, Sink
from trunkline.actors.drivers.nats.client import GuardedClient
from trunkline.actors.drivers.nats.errors import explain_stream_error
from trunkline.actors.drivers.nats.gaps import Gaps, reads_whole_stream
from trunkline.actors.drivers.nats.place import Place
from trunkline.actors.drivers.nats.plan import ACK_WAIT_S, StreamPlan
from trunkline.actors.drivers.nats.questions import ConsumerLook, ask, look_at_consumer
from trunkline.deadline import Deadline

__all__ = ["StreamConsumer"]

_UNUSED_S = 300.0
"""Seconds that the server keeps a consumer without `durable=` when no request for messages
comes.
"""
_FORGET_S = 0.15
_MADE_ANEW = timedelta(seconds=1)
"""A durable consumer counts as made anew when its creation time has moved by more. nats-server
reports the creation time a little differently after a restart.
"""


class StreamConsumer:
    """The consumer of one link, with its name, its `ack_wait` and its count of gaps."""

    def __init__(
        self, client: GuardedClient, plan: StreamPlan, topic: str | None, sink: Sink, place: Place
    ) -> None:
        self._client = client
        self._plan = plan
        self._sink = sink
        self._place = place
        self.topic = topic
        self.name = ""
        """The name of the consumer at the server; empty before `bind`."""
        self.ack_wait_s = plan.ack_wait_s or ACK_WAIT_S
        self.gaps = Gaps()
        """Counts the messages that the stream threw away, by the numbers of this consumer's
        deliveries.
        """

    @property
    def request_subject(self) -> str:
        """The subject to which requests for messages are published."""
        return f"$JS.API.CONSUMER.MSG.NEXT.{self._plan.name}.{self.name}"

    # finding or making the consumer

    async def bind(self, deadline: Deadline) -> ConsumerLook | None:
        """Find or make the consumer, and return the server's report on it.

        The result is None when the consumer vanished right after it was found or made. Raises
        DialError where the next attempt may succeed, and FatalError where the address or the rights
        must change first.
        """
        name, place = self._plan.name, self._place
        try:
            info = await ask(self._client, lambda manager: manager.stream_info(name), deadline)
            self._note_stream(info)
            found = await self._find_durable(deadline) or await self._make(deadline)
            look = await self._look_until(found.name, deadline)
        except (nats.errors.Error, js_errors.Error) as error:
            raise explain_stream_error(error, self._plan, self.topic) from None
        resumes = place.next is not None
        if place.next is None and self._plan.deliver["deliver_policy"] != "last_per_subject":
            place.next = found.delivered.stream_seq + 1 if found.delivered else 1
        place.durable = self._plan.durable is not None
        if place.made is not None and abs(found.created - place.made) > _MADE_ANEW:
            place.forget()
        place.made = found.created
        self._count_gaps_from(found, info, resumes=resumes)
        self.name = found.name
        return look

    def _note_stream(self, info: api.StreamInfo) -> None:
        """Begin at message 1 where another stream has the same name now.

        The creation time tells the two streams apart. Unread messages of the former stream are
        counted as dropped.
        """
        place = self._place
        if place.created not in (None, info.created):
            place.next = 1
            place.forget()
            if place.pending:
                self._sink.dropped(place.pending)
                self._sink.warn(
                    f"stream {self._plan.name} was made anew: it is read from its beginning"
                )
                place.pending = 0
        place.created = info.created

    def _count_gaps_from(
        self, found: api.ConsumerInfo, info: api.StreamInfo, *, resumes: bool
    ) -> None:
        """Begin to count gaps behind the consumer's last delivery."""
        delivered = found.delivered
        delivery, sequence = (delivered.consumer_seq, delivered.stream_seq) if delivered else (0, 0)
        if resumes and self._plan.durable is None and self._place.next is not None:
            sequence = self._place.next - 1  # the consumer begins at the first message that is left
        self.gaps.begin(
            delivery,
            sequence,
            info.state.num_deleted or 0,
            counts=self._place.next is not None
            and reads_whole_stream(found.config.filter_subject or None, info.config.subjects or ()),
        )

    async def _look_until(self, consumer: str, deadline: Deadline) -> ConsumerLook | None:
        return await ask(
            self._client,
            lambda _: look_at_consumer(self._client, self._plan.name, consumer),
            deadline,
        )

    async def _make(self, deadline: Deadline) -> api.ConsumerInfo:
        """Make the consumer at the server."""
        name, config = self._plan.name, self._config()
        made: api.ConsumerInfo = await ask(
            self._client, lambda manager: manager.add_consumer(name, config=config), deadline
        )
        return made

    async def _find_durable(self, deadline: Deadline) -> api.ConsumerInfo | None:
        """Return the durable consumer, or None before the first link has made one.

        FatalError for a consumer that was used by an earlier link and deleted since. FatalError,
        too, for a consumer that contradicts the address.
        """
        durable = self._plan.durable
        if durable is None:
            return None
        try:
            name = self._plan.name
            found: api.ConsumerInfo = await ask(
                self._client, lambda manager: manager.consumer_info(name, durable), deadline
            )
        except js_errors.NotFoundError:
            if self._place.durable:
                raise FatalError(
                    f"the durable consumer {durable} of stream {self._plan.name} was deleted; "
                    "dial again to begin with a new one"
                ) from None
            return None
        self._check_durable(durable, found.config)
        self.ack_wait_s = float(found.config.ack_wait or ACK_WAIT_S)
        if self._plan.ack_wait_s not in (None, self.ack_wait_s):
            self._sink.warn(
                f"durable={durable} is there with ack_wait={self.ack_wait_s * 1000:.0f}, which holds"
            )
        return found

    def _check_durable(self, durable: str, config: api.ConsumerConfig) -> None:
        """Raise FatalError where the consumer cannot do what the address asks for."""
        if config.deliver_subject:
            raise FatalError(
                f"durable={durable} is a push consumer; name a pull consumer, or a new one"
            )
        if config.ack_policy != api.AckPolicy.EXPLICIT:
            policy = api.AckPolicy(config.ack_policy or api.AckPolicy.NONE).value
            raise FatalError(
                f"durable={durable} has ack_policy={policy}: messages that no reader had would be lost; "
                "name one with ack_policy=explicit, or a new one"
            )
        reads = config.filter_subject or ">"
        if self.topic is not None and reads != self.topic:
            raise FatalError(
                f"durable={durable} reads {reads} and not topic={self.topic}; name another"
            )

    def _config(self) -> api.ConsumerConfig:
        """Return the configuration of a new consumer, which begins where reading is or where the
        address says.
        """
        start = dict(self._plan.deliver)
        if self._place.next is not None:
            start = {"deliver_policy": "by_start_sequence", "opt_start_seq": self._place.next}
        start["deliver_policy"] = api.DeliverPolicy(start["deliver_policy"])
        topic = self.topic
        if topic is None and start["deliver_policy"] is api.DeliverPolicy.LAST_PER_SUBJECT:
            topic = ">"  # last_per_subject needs a filter
        if self._plan.durable is None:
            return api.ConsumerConfig(
                **start,
                # The driver chooses the name, so a repeated question makes only one consumer.
                name=f"trunkline-{secrets.token_hex(8)}",
                filter_subject=topic,
                ack_policy=api.AckPolicy.NONE,
                inactive_threshold=_UNUSED_S,
                mem_storage=True,
                num_replicas=1,
            )
        return api.ConsumerConfig(
            **start,
            filter_subject=topic,
            durable_name=self._plan.durable,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=self.ack_wait_s,
            max_ack_pending=self._plan.max_ack_pending,
        )

    # while the consumer exists

    async def look(self) -> ConsumerLook | None:
        """Ask the server for its report on the consumer.

        None where the consumer does not exist any more. nats.errors.Error when no answer comes.
        """
        return await look_at_consumer(self._client, self._plan.name, self.name)

    async def delete(self) -> None:
        """Tell the server that the consumer is not needed any more, without waiting for the
        answer.
        """
        await self._client.publish(f"$JS.API.CONSUMER.DELETE.{self._plan.name}.{self.name}")

    async def hear_from_server(self) -> None:
        """Wait for a round trip of JetStream, at most 0.15 s.

        Messages that were under way arrive before the answer.
        """
        with contextlib.suppress(nats.errors.Error, js_errors.Error):
            await self._client.jsm(timeout=_FORGET_S).consumer_info(self._plan.name, self.name)
