"""Reading a JetStream stream: a pull consumer that is asked for as many messages as readers have taken.

The requests are made here, with nats-py's `publish` and `subscribe`. Its `fetch` waits until a whole batch
has come or its time is over, so that a single message is seconds late; a push consumer cannot be stopped when
the buffer is full, and after a cut stays bound to the lost link for minutes.

With a durable consumer each message is acknowledged when a reader has it. What was acknowledged lately is
kept here: a server that crashes and a link that breaks lose acknowledgements. Without a durable consumer the
place in the stream is kept: after an outage the next link goes on where the last one ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import Any

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import api
from nats.js import errors as js_errors

from trunkline.actors.driver import Delivery, FatalError, Sink
from trunkline.actors.drivers.nats.client import GuardedClient
from trunkline.actors.drivers.nats.delivery import delivery_of
from trunkline.actors.drivers.nats.gaps import Gaps, reads_whole_stream
from trunkline.actors.drivers.nats.plan import ACK_WAIT_S, StreamPlan
from trunkline.actors.drivers.nats.questions import NOT_READY, ConsumerLook, ask, look_at_consumer
from trunkline.deadline import Deadline
from trunkline.errors import DialError

__all__ = ["Place", "StreamReader", "explained"]

_EXPIRES_S = 30.0
"""A request for messages ends after so long and is made again: a cluster may forget one."""
_GRACE_S = 5.0
_RETRY_S = 0.5
_UNUSED_S = 300.0
"""How long the server keeps a consumer without a name for a reader that takes nothing."""
_MOST_PULLS = 4
_BEAT_S = 10.0
_ACKNOWLEDGE_S = 0.45
_GIVE_BACK_S = 0.4
_FORGET_S = 0.15
_CHECK_S = 1.0
"""So often it is looked whether a request for messages is without an answer."""
_LOOK_S = 10.0
"""So often the server is asked how the consumer is, whatever happens."""
_SILENT_S = 30.0
"""A JetStream that answers no question for so long counts as a lost link."""
_REMEMBERED = 10_000
"""So many acknowledged messages are known again after an outage, at the least: a server that is killed has
forgotten those of its last moments."""
_MADE_ANEW = timedelta(seconds=1)
_WANTS_ACKS = (10084, 10098)
"""A stream that keeps a message until it is acknowledged refuses a consumer that acknowledges nothing."""
"""nats-server tells the time when a consumer was made a little otherwise after a restart."""


@dataclass(slots=True)
class Place:
    """What a connection's next link has to know of the former ones."""

    next: int | None = None
    """The stream sequence that comes next; None before there was a consumer."""
    created: Any = None
    """When the stream was made: another one of the same name starts anew."""
    pending: int = 0
    """How many messages of the stream were still to come, as last heard."""
    durable: bool = False
    """The durable consumer was there."""
    made: Any = None
    """When it was made: whoever makes it anew wants the messages again."""
    read: dict[int, int] = field(default_factory=dict)
    """What former links acknowledged: stream sequence and time. The sequence alone is not enough: a server
    that lost the end of its stream gives the same ones again, to other messages."""
    unread: dict[int, int] = field(default_factory=dict)
    """The same for what they handed over and did not acknowledge."""

    def forget(self) -> None:
        """Whatever comes now is new."""
        self.read, self.unread = {}, {}


@dataclass(slots=True)
class _Pull:
    inbox: str
    left: int
    at: float = field(default_factory=time.monotonic)
    proved: bool = False
    """The consumer was there after the request had been made."""


@dataclass(slots=True)
class _Held:
    """A message that no reader has."""

    msg: Msg
    told: float
    """When the server last heard of it."""
    stamp: int
    """When the stream took it, in nanoseconds."""


class StreamReader:
    """The reading half of one link. `ended` is called when the consumer is gone for good."""

    def __init__(
        self,
        client: GuardedClient,
        plan: StreamPlan,
        topic: str | None,
        sink: Sink,
        place: Place,
        ended: Callable[[BaseException], None],
    ) -> None:
        self._client, self._plan, self._topic = client, plan, topic
        self._sink, self._place, self._ended = sink, place, ended
        self._consumer = self._next = self._inbox = ""
        self._acks = plan.durable is not None
        self._ack_wait = plan.ack_wait_s or ACK_WAIT_S
        self._most = plan.window
        self._expires = _EXPIRES_S
        self._pending: int | None = None
        self._gaps = Gaps()
        self._looking: asyncio.Task[None] | None = None
        self._heard_at = self._looked_at = self._answered_at = time.monotonic()
        self._pulls: deque[_Pull] = deque()
        self._pull_count = 0
        self._held: dict[int, _Held] = {}
        self._read: dict[int, int] = {}
        self._read_before: dict[int, int] = {}
        """What this link acknowledged, the latest and those before them."""
        self._listening: Subscription | None = None
        self._batch: list[Delivery] = []
        self._paused = self._closing = False
        self._timer: asyncio.TimerHandle | None = None
        self._check_timer: asyncio.TimerHandle | None = None
        self._jobs: set[asyncio.Task[None]] = set()

    # the consumer

    async def open(self, deadline: Deadline) -> None:
        """Find or make the consumer and listen. DialError or FatalError in words."""
        await self._bind(deadline)
        self._inbox = self._client.new_inbox()
        self._listening = await self._client.subscribe(f"{self._inbox}.*", cb=self._received)

    def start(self) -> None:
        """The link is open: ask for messages."""
        self._looked_at = self._answered_at = time.monotonic()
        self._pull()
        self._beat()
        self._check()

    def lag(self) -> int | None:
        """Messages of the stream that no reader has, as the server last said; None before it did."""
        return None if self._pending is None else self._pending + len(self._held)

    async def _bind(self, deadline: Deadline) -> None:
        name, place, client = self._plan.name, self._place, self._client
        try:
            info = await ask(client, lambda manager: manager.stream_info(name), deadline)
            if place.created not in (None, info.created):
                place.next = 1  # another stream of the same name
                place.forget()
                if place.pending:
                    self._sink.dropped(place.pending)
                    self._sink.warn(f"stream {name} was made anew: it is read from its beginning")
                    place.pending = 0
            place.created = info.created
            found = await self._existing(deadline) or await self._made(deadline)
            look = await self._look_until(found.name, deadline)
        except (nats.errors.Error, js_errors.Error) as error:
            raise explained(error, self._plan, self._topic) from None
        self._obey(look)
        resumes = place.next is not None
        if place.next is None and self._plan.deliver["deliver_policy"] != "last_per_subject":
            place.next = found.delivered.stream_seq + 1 if found.delivered else 1
        place.durable = self._plan.durable is not None
        if place.made is not None and abs(found.created - place.made) > _MADE_ANEW:
            place.forget()
        place.made = found.created
        self._count_gaps_from(found, info, resumes=resumes)
        self._consumer = found.name
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{name}.{found.name}"

    def _count_gaps_from(self, found: api.ConsumerInfo, info: api.StreamInfo, *, resumes: bool) -> None:
        delivered = found.delivered
        delivery, sequence = (delivered.consumer_seq, delivered.stream_seq) if delivered else (0, 0)
        if resumes and self._plan.durable is None and self._place.next is not None:
            sequence = self._place.next - 1  # the consumer begins at the first that is left
        self._gaps.begin(
            delivery,
            sequence,
            info.state.num_deleted or 0,
            counts=self._place.next is not None
            and reads_whole_stream(found.config.filter_subject or None, info.config.subjects or ()),
        )

    async def _look_until(self, consumer: str, deadline: Deadline) -> ConsumerLook | None:
        return await ask(
            self._client, lambda _: look_at_consumer(self._client, self._plan.name, consumer), deadline
        )

    def _obey(self, look: ConsumerLook | None) -> None:
        """Ask for no more than the consumer's limits allow: the server refuses other requests."""
        if look is not None:
            self._pending = self._place.pending = look.pending
            self._expires = min(_EXPIRES_S, look.max_expires_s or _EXPIRES_S)
            self._most = min(self._plan.window, look.max_batch or self._plan.window)

    async def _made(self, deadline: Deadline) -> api.ConsumerInfo:
        name, config = self._plan.name, self._config()
        made: api.ConsumerInfo = await ask(
            self._client, lambda manager: manager.add_consumer(name, config=config), deadline
        )
        return made

    async def _existing(self, deadline: Deadline) -> api.ConsumerInfo | None:
        """The durable consumer, when it is there: it is used as it is."""
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
        config = found.config
        if config.deliver_subject:
            raise FatalError(f"durable={durable} is a push consumer; name a pull consumer, or a new one")
        if config.ack_policy != api.AckPolicy.EXPLICIT:
            policy = api.AckPolicy(config.ack_policy or api.AckPolicy.NONE).value
            raise FatalError(
                f"durable={durable} has ack_policy={policy}: messages that no reader had would be lost; "
                "name one with ack_policy=explicit, or a new one"
            )
        reads = config.filter_subject or ">"
        if self._topic is not None and reads != self._topic:
            raise FatalError(f"durable={durable} reads {reads} and not topic={self._topic}; name another")
        self._ack_wait = float(config.ack_wait or ACK_WAIT_S)
        if self._plan.ack_wait_s not in (None, self._ack_wait):
            self._sink.warn(
                f"durable={durable} is there with ack_wait={self._ack_wait * 1000:.0f}, which holds"
            )
        return found

    def _config(self) -> api.ConsumerConfig:
        start = dict(self._plan.deliver)
        if self._place.next is not None:
            start = {"deliver_policy": "by_start_sequence", "opt_start_seq": self._place.next}
        start["deliver_policy"] = api.DeliverPolicy(start["deliver_policy"])
        topic = self._topic
        if topic is None and start["deliver_policy"] is api.DeliverPolicy.LAST_PER_SUBJECT:
            topic = ">"  # it must have a filter
        if self._plan.durable is None:
            return api.ConsumerConfig(
                **start,
                # Named by us, so that a question that is asked twice makes one consumer.
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
            ack_wait=self._ack_wait,
            max_ack_pending=self._plan.max_ack_pending,
        )

    # asking

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._pull()

    def _pull(self) -> None:
        """Ask for as many as the window has room for, when that is worth a request."""
        asked = sum(pull.left for pull in self._pulls)
        room = min(self._plan.window - len(self._held) - asked, self._most)
        if self._paused or room <= 0 or len(self._pulls) >= _MOST_PULLS:
            return
        if asked and room * 4 < self._plan.window:
            return
        self._pull_count += 1
        pull = _Pull(f"{self._inbox}.{self._pull_count}", room)
        self._pulls.append(pull)
        request = json.dumps({"batch": room, "expires": int(self._expires * 1e9)}).encode()
        self._do(partial(self._client.publish, self._next, request, reply=pull.inbox))

    def _pull_later(self) -> None:
        asyncio.get_running_loop().call_later(_RETRY_S, self._pull)

    def _check(self) -> None:
        """Have the consumer prove that it is there: nats-server does not answer requests to one that is gone.
        Each request that brought nothing within a second is a reason to look, and so is the time."""
        now = time.monotonic()
        asked = any(not p.proved and now - p.at > _CHECK_S and self._heard_at < p.at for p in self._pulls)
        if (asked or now - self._looked_at > _LOOK_S) and self._looking is None:
            self._looking = asyncio.ensure_future(self._look())
            self._keep(self._looking)
        self._check_timer = asyncio.get_running_loop().call_later(_CHECK_S, self._check)

    async def _look(self) -> None:
        begun, consumer = time.monotonic(), self._consumer
        try:
            found = await look_at_consumer(self._client, self._plan.name, consumer)
        except (nats.errors.Error, OSError, ValueError):
            if time.monotonic() - self._answered_at > _SILENT_S:
                self._ended(TimeoutError(f"JetStream has answered no question for {_SILENT_S:.0f} s"))
            return
        finally:
            self._looking = None
        if consumer != self._consumer:
            return
        self._looked_at = self._answered_at = time.monotonic()
        if found is None:
            self._gone("it is not there any more")
            return
        self._obey(found)
        if self._topic is not None and found.filter != self._topic:
            self._ended(ConnectionError(f"consumer {consumer} reads {found.filter or '>'} now"))
            return
        early = [pull for pull in self._pulls if pull.at < begun]
        for pull in early:
            pull.proved = True
        if early and not found.waiting and self._heard_at < begun and early[-1].at < begun - _CHECK_S:
            self._pulls.clear()  # the server has none of our requests: a cluster forgets them with its leader
        self._pull()

    def _beat(self) -> None:
        """Say of what waits here for a reader that it is not lost, so that it is not delivered again; and
        forget requests that the server must have forgotten."""
        now, every = time.monotonic(), min(_BEAT_S, self._ack_wait / 3)
        if self._acks:
            waiting = [held for held in self._held.values() if now - held.told >= every * 0.9]
            for held in waiting:
                held.told = now
            self._do(*(held.msg.in_progress for held in waiting))
        if any(now - pull.at > self._expires + _GRACE_S for pull in self._pulls):
            self._pulls.clear()
        self._pull()
        self._timer = asyncio.get_running_loop().call_later(every, self._beat)

    # receiving

    async def _received(self, msg: Msg) -> None:
        self._heard_at = time.monotonic()
        try:
            self._take(msg)
        except (ValueError, LookupError, TypeError, ArithmeticError):
            # Not acknowledged: what the server sends again may be whole then.
            self._sink.dropped(1)
            self._sink.warn(f"a message of stream {self._plan.name} cannot be read and is passed over")

    def _take(self, msg: Msg) -> None:
        headers = msg.headers
        if headers is not None and api.Header.STATUS in headers and msg.subject.startswith(self._inbox):
            self._status(msg.subject, headers[api.Header.STATUS], headers.get(api.Header.DESCRIPTION, ""))
            return
        if not msg.reply.startswith("$JS.ACK."):
            return  # not from the stream
        stream, consumer, delivered, sequence, own, taken, left = delivery_of(msg.reply)
        if missing := self._gaps.missing(own, sequence):
            self._sink.dropped(missing)
            self._sink.warn(f"stream {self._plan.name} threw messages away before they could be read")
        self._pending = self._place.pending = left
        if self._pulls:
            self._pulls[0].left -= 1
            if not self._pulls[0].left:
                self._pulls.popleft()
        if self._place.next is None or sequence >= self._place.next:
            self._place.next = sequence + 1
        if (held := self._held.get(sequence)) is not None:
            if held.stamp != taken:  # not acknowledged: the next link gets it, and knows the two apart
                self._ended(ConnectionError(f"stream {self._plan.name} was made anew"))
                return
            held.msg, held.told = msg, time.monotonic()  # it comes again: once is enough
            return
        # A reader had it, and the server does not know, or did not in time: it was frozen.
        if any(known.get(sequence) == taken for known in (self._read, self._read_before, self._place.read)):
            self._do(msg.ack)
            self._pull()
            return
        if len(msg.data) > self._plan.largest:
            self._discard(msg, sequence, taken)
            return
        self._held[sequence] = _Held(msg, time.monotonic(), taken)
        if self._closing:
            return  # it is given back
        again = delivered > 1 or self._place.unread.pop(sequence, None) == taken
        delivery = Delivery(
            msg.data,
            msg.subject,
            headers=dict(headers) if headers else None,
            timestamp=taken / 1e9,
            offset=sequence,
            redelivered=again,
            properties={"stream": stream, "consumer": consumer, "delivered": delivered},
            token=sequence,
            identity=(stream, sequence, taken),
        )
        self._batch.append(delivery)
        if len(self._batch) == 1:  # what came with it is handed over with it
            asyncio.get_running_loop().call_soon(self._hand_over)

    def _discard(self, msg: Msg, sequence: int, taken: int) -> None:
        """For good: it would come again and again."""
        self._sink.warn(f"a message of {len(msg.data)} bytes was discarded: it is over the option max_size")
        self._sink.dropped(1)
        if self._acks:
            self._do(msg.term)
            self._read[sequence] = taken
        self._pull()

    def _hand_over(self) -> None:
        batch, self._batch = self._batch, []
        self._sink.deliver(batch)
        self._pull()

    def _status(self, inbox: str, status: str, description: str) -> None:
        """A word about one of our requests: it has expired, or cannot be met."""
        self._pulls = deque(pull for pull in self._pulls if pull.inbox != inbox)
        low = description.lower()
        limit = low.rpartition(" ")[2]
        if status == api.StatusCode.SERVICE_UNAVAILABLE or "consumer deleted" in low or "push based" in low:
            self._gone(description or "no responders")
        elif status in (api.StatusCode.NO_MESSAGES, api.StatusCode.REQUEST_TIMEOUT):
            self._pull()
        elif "maxrequestbatch" in low and limit.isdecimal():
            self._most = max(1, int(limit))
            self._pull()
        else:
            if "maxrequestexpires" in low:
                self._looked_at = 0.0  # look what is allowed
            self._sink.warn(
                f"stream {self._plan.name} does not take a request for messages: {status} {description}; "
                "it is made again"
            )
            self._pull_later()

    def _gone(self, why: str) -> None:
        """The consumer is not there any more. One without a name is made again where we are; a durable one
        had the place of all its readers: that is not for us to guess."""
        self._pulls.clear()
        if self._plan.durable is None:
            self._do(self._rebind)
        else:
            self._ended(ConnectionError(f"the durable consumer {self._plan.durable} is gone ({why})"))

    async def _rebind(self) -> None:
        try:
            await self._bind(Deadline(10.0))
        except DialError as error:
            self._ended(error)
        else:
            self._pull()

    # acknowledging

    def settle(self, tokens: Sequence[int]) -> None:
        """Readers have these."""
        read = [(token, held) for token in tokens if (held := self._held.pop(token, None)) is not None]
        if self._acks:
            self._do(*(held.msg.ack for _, held in read))
            self._read.update((token, held.stamp) for token, held in read)
            if len(self._read) >= _REMEMBERED:
                self._read_before, self._read = self._read, {}
        self._pull()

    def refuse(self, token: int, verdict: str, delay_ms: float) -> None:
        """The reader of this message did not do its work: the server delivers it again (`nak`, no sooner than
        the delay) or to nobody any more (`reject`)."""
        held = self._held.pop(token, None)
        if held is not None and self._acks:
            if verdict == "nak":
                self._do(partial(held.msg.nak, delay_ms / 1000 if delay_ms else None))
            else:
                self._do(held.msg.term)
                self._read[token] = held.stamp  # nobody is to see it again
        self._pull()

    def _do(self, *jobs: Callable[[], Awaitable[Any]]) -> None:
        """Things that nats-py has as coroutines and that hardly ever wait, in this order."""
        if jobs:
            self._keep(asyncio.ensure_future(_all(jobs)))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._jobs.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._jobs.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # It was to bring messages or to acknowledge them: without it nothing may ever come.
            self._ended(ConnectionError(f"reading stream {self._plan.name} failed: {error!r:.200}"))

    def _remember(self) -> None:
        """Leave to the next link what it has to know again."""
        if self._acks:
            place = self._place
            unread = {sequence: held.stamp for sequence, held in self._held.items()}
            place.unread = _last(max(_REMEMBERED, self._plan.window), place.unread, unread)
            place.read = _last(_REMEMBERED, place.read, self._read_before, self._read)
            self._read, self._read_before = {}, {}

    async def close(self) -> None:
        """Give back what no reader has, so that others get it at once, and what the server keeps for us."""
        for timer in (self._timer, self._check_timer):
            if timer is not None:
                timer.cancel()
        self._remember()
        self._paused = self._closing = True
        # Acknowledgements first, and with a time of their own: what they are for must not come again.
        await self._finish(_ACKNOWLEDGE_S)
        if self._client.is_connected and self._acks and self._listening is not None:
            self._do(self._give_back)
        elif self._client.is_connected and self._consumer and not self._acks:
            name = f"$JS.API.CONSUMER.DELETE.{self._plan.name}.{self._consumer}"
            self._do(partial(self._client.publish, name))
        await self._finish(_GIVE_BACK_S)
        self._held.clear()
        for job in self._jobs:
            job.cancel()

    async def _give_back(self) -> None:
        """What is under way is given back, too; else nobody gets it before `ack_wait` is over."""
        assert self._listening is not None
        await self._hear_from_server()  # what it has begun to send would be lost without our interest
        await self._client.end_interest(self._listening)  # else what is given back comes here again
        # Asked then, the server forgets our requests that wait; one of them would swallow the first message
        # that is given back (nats-server 2.9).
        await self._hear_from_server()
        await _all([held.msg.nak for held in self._held.values()])

    async def _hear_from_server(self) -> None:
        """Its answer comes after what was under way."""
        with contextlib.suppress(nats.errors.Error, js_errors.Error):
            await self._client.jsm(timeout=_FORGET_S).consumer_info(self._plan.name, self._consumer)

    async def _finish(self, seconds: float) -> None:
        if self._looking is not None:
            self._looking.cancel()
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=seconds)


def explained(error: Exception, plan: StreamPlan, topic: str | None) -> DialError:
    """What JetStream says, for users. Fatal unless it may be otherwise in a moment."""
    code = getattr(error, "err_code", None)
    said = getattr(error, "description", None) or str(error)
    if isinstance(error, nats.errors.TimeoutError):
        return DialError("JetStream did not answer in the time allowed")
    if code == NOT_READY or isinstance(error, js_errors.ServerError):
        return DialError(f"JetStream is not ready: {said}", code=code)
    if isinstance(error, js_errors.ServiceUnavailableError):
        return FatalError(
            "the server has no JetStream for this account; start it with -js, or leave out stream="
        )
    if isinstance(error, js_errors.NotFoundError) and "stream" in said:
        subjects = topic or f"{plan.name}.>"
        return FatalError(
            f"there is no stream {plan.name}; create it: nats stream add {plan.name} --subjects '{subjects}'",
            code=code,
        )
    if code in _WANTS_ACKS:
        return FatalError(
            f"stream {plan.name} keeps a message until it is acknowledged (retention=workqueue): "
            "it is read with durable=name",
            code=code,
        )
    what = f"durable={plan.durable} of stream {plan.name}" if plan.durable else f"stream {plan.name}"
    by = f" by topic={topic}" if topic else ""
    return FatalError(f"{what} cannot be read{by}: {said}", code=code)


def _last(count: int, *known: dict[int, int]) -> dict[int, int]:
    """The last so many of all, those of the later dicts being later."""
    every = {sequence: stamp for each in known for sequence, stamp in each.items()}
    return dict(islice(every.items(), max(0, len(every) - count), None))


async def _all(jobs: Sequence[Callable[[], Awaitable[Any]]]) -> None:
    for job in jobs:
        # The link is gone, and what was not acknowledged comes again.
        with contextlib.suppress(nats.errors.Error, OSError):
            await job()
