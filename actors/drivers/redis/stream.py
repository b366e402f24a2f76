"""Reading streams: one connection asks for entries, and the server answers when entries have come.

With a consumer group an entry is acknowledged (XACK) after reading. Unacknowledged entries of
earlier deliveries to this consumer are read first. Entries that silent consumers leave
unacknowledged for `claim_idle` are taken over (XAUTOCLAIM). Regular claims tell the server that
held entries are in use. Without a group there are no acknowledgements. The driver keeps the place
in each stream for the next link.

Two tasks of the event loop share the state: `_read` asks for entries, and `_keep_up` renews and
takes over. Both tasks add to `_held`, and `settle` removes. Changes happen between two awaits, so
no lock is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from trunkline.actors.driver import Delivery, FatalError, Sink
from trunkline.actors.drivers.redis.entries import Entry, delivery_of, entries_of, id_key
from trunkline.actors.drivers.redis.gaps import Gaps, StreamState, named
from trunkline.actors.drivers.redis.line import Commands
from trunkline.actors.drivers.redis.plan import GroupPlan, StreamPlan
from trunkline.actors.drivers.redis.words import (
    REPLIES,
    code_of,
    is_missing_group,
    is_unknown_command,
    refused_link,
)
from trunkline.address import Address

__all__ = ["Place", "StreamReader"]

_BATCH = 200
"""The most entries of one answer."""
_CHECK_S = 1.0
_REST_S = 5.0
"""The intervals, in seconds, for asking about the streams: while messages come, and while none
come.
"""
_HEAVY_S = 30.0
_HEAVY_BYTES = 1 << 20
"""XINFO STREAM answers with two whole entries, so it is asked rarely where entries are long."""
_LOOK_S = 5.0
"""The longest interval, in seconds, for taking over entries."""
_SHORTEST_LOOK_S = 0.1
_IDS = 500
"""The most entries that one command names."""
_REMEMBERED = 10_000
"""The number of acknowledged entries that are recognised after an outage: a link that breaks loses
acknowledgements.
"""
_GIVEN_BACK_MS = 30 * 86_400_000
"""The idle time, in milliseconds, of entries given back: longer than any other consumer waits."""
_UNBLOCK_S, _ACKNOWLEDGE_S, _GIVE_BACK_S = 0.25, 0.35, 0.35


@dataclass(slots=True)
class _StreamPlace:
    """The place of reading in one stream."""

    read: str | None = None
    """The id of the last entry delivered as a new entry; None for unknown."""
    gaps: Gaps = field(default_factory=Gaps)


@dataclass(slots=True)
class Place:
    """What the next link of a connection has to know of the former links."""

    consumer: str = field(default_factory=lambda: f"trunkline-{secrets.token_hex(8)}")
    """This connection's name in the group, where the address gives none."""
    streams: defaultdict[str, _StreamPlace] = field(
        default_factory=lambda: defaultdict(_StreamPlace)
    )
    acknowledged: dict[tuple[str, str], None] = field(default_factory=dict)
    """The latest entries that this connection acknowledged, by stream and id, the oldest first."""


class StreamReader:
    """The reading half of one link that reads streams.

    `asks` has a connection of its own, on which the server may keep a question for seconds. `tells`
    is the other connection of the link. `ended` is called with the reason when reading cannot go
    on.
    """

    def __init__(
        self,
        address: Address,
        plan: StreamPlan,
        data_field: bytes,
        largest: int,
        asks: Commands,
        tells: Commands,
        sink: Sink,
        place: Place,
        *,
        had_link: bool,
        ended: Callable[[BaseException], None],
    ) -> None:
        self._address, self._plan, self._group = address, plan, plan.group
        self._data_field, self._largest = data_field, largest
        self._asks, self._tells = asks, tells
        self._sink, self._place, self._ended = sink, place, ended
        self._had_link = had_link
        self._consumer = (plan.group.consumer if plan.group else None) or place.consumer
        self._held: dict[tuple[str, str], float] = {}
        """Unread entries by stream and id, with the time at which the server last heard of each."""
        self._history: dict[str, str] = {}
        """By stream: the id behind which entries of an earlier delivery to this consumer may
        lie.
        """
        self._cursors = dict.fromkeys(plan.names, "0-0")
        self._lags: dict[str, int | None] = {}
        self._client_id: int | None = None
        self._room = asyncio.Event()
        self._paused = self._closing = self._blocked = False
        self._takes_over = plan.group is not None
        self._checked_at = self._looked_at = float("-inf")
        self._check_every = _CHECK_S
        self._came_since_check = True
        self._reading: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None

    # the link

    async def open(self) -> None:
        """Find or make the groups, and find where reading starts.

        Raises one of `REPLIES`, FatalError or ConnectionError where that fails.
        """
        for name in self._plan.names:
            with _as_denied():
                await self._asks.call("XLEN", name)  # reports a key that is no stream at once
            if self._group is not None:
                await self._find_group(name, self._group)
                self._history[name] = "0-0"
            else:
                await self._find_start(name)
        if self._group is not None:
            with contextlib.suppress(*REPLIES):
                self._client_id = int(await self._asks.call("CLIENT ID"))

    def start(self) -> None:
        """Begin to read: the link is open."""
        self._reading = asyncio.ensure_future(self._guarded(self._read()))
        if self._group is not None:
            self._keeping = asyncio.ensure_future(self._guarded(self._keep_up(self._group)))

    async def close(self) -> None:
        """Wait for the last acknowledgements, and give back unread entries to the group."""
        self._closing = True
        self._room.set()
        if self._keeping is not None:
            self._keeping.cancel()
        if (
            self._group is not None
            and self._tells.line.over is None
            and self._asks.line.over is None
        ):
            with contextlib.suppress(*REPLIES, OSError):
                await self._end_question()
                await self._tells.settled(_ACKNOWLEDGE_S)
                await asyncio.wait_for(self._give_back(self._group), _GIVE_BACK_S)
        if self._reading is not None:
            self._reading.cancel()
        await self._asks.close()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._room.set()

    def lag(self) -> int | None:
        """Return how many entries are unread, as the server last said.

        None where it does not tell.
        """
        lags = [self._lags.get(name) for name in self._plan.names]
        known = [lag for lag in lags if lag is not None]
        return sum(known) + len(self._held) if len(known) == len(lags) else None

    def settle(self, tokens: Sequence[tuple[str, str]]) -> None:
        """Note entries as read, and acknowledge them in a group."""
        read: dict[str, list[str]] = {}
        for stream, number in tokens:
            self._held.pop((stream, number), None)
            read.setdefault(stream, []).append(number)
        if self._group is not None:
            self._remember(tokens)
            self._acknowledge(self._group, read)
        self._room.set()

    def _remember(self, tokens: Sequence[tuple[str, str]]) -> None:
        """Keep acknowledged entries, and forget the oldest ones beyond the limit."""
        known = self._place.acknowledged
        known.update(dict.fromkeys(tokens))
        for oldest in list(known)[: max(0, len(known) - _REMEMBERED)]:
            del known[oldest]

    def _acknowledge(self, group: GroupPlan, read: dict[str, list[str]]) -> None:
        """Send XACK for the entries, without waiting for the answers."""
        with contextlib.suppress(OSError):  # the link is gone: the entries come again
            for stream, ids in read.items():
                for at in range(0, len(ids), _IDS):
                    self._tells.call("XACK", stream, group.name, *ids[at : at + _IDS])

    async def _guarded(self, work: Any) -> None:
        """Run a task of the reader; report its failure, because reading would stop silently
        otherwise.
        """
        try:
            await work
        except FatalError as error:
            self._ended(error)
        except REPLIES as error:
            self._ended(refused_link(error, self._asks.line.peer, self._address, self._what))
        except OSError:
            pass  # the line has reported its end
        except Exception as error:
            self._ended(ConnectionError(f"reading {self._what} failed: {error!r:.200}"))

    @property
    def _what(self) -> str:
        return f"read stream {', '.join(self._plan.names)}"

    # the beginning of reading

    async def _find_start(self, name: str) -> None:
        """Find where reading begins without a group, or whether the stream was made anew."""
        place = self._place.streams[name]
        if place.read is None:
            place.read = await self._last_id(name) if self._plan.start == "$" else self._plan.start
            return
        state = await self._state(name)
        if state is not None and state.last < id_key(place.read):
            self._start_anew(name)

    def _start_anew(self, name: str) -> None:
        """Begin a stream anew that was deleted and made again: every entry in it is new."""
        place = self._place.streams[name]
        place.read, place.gaps = "0-0", Gaps()
        self._place.acknowledged.clear()
        self._sink.warn(
            f"stream {name} was made anew since it was last read: it is read from its beginning"
        )

    async def _last_id(self, name: str) -> str:
        last = entries_of(name, await self._asks.call("XREVRANGE", name, "+", "-", "COUNT", 1))
        return last[0].id if last else "0-0"

    async def _find_group(self, name: str, group: GroupPlan) -> None:
        """Make the group at the first link.

        Later the group must exist, unless the stream's data are gone with it.
        """
        if not self._had_link:
            await self._make_group(name, group, self._plan.start)
        elif (info := await self._group_info(name, group)) is None:
            state, read = await self._state(name), self._place.streams[name].read
            is_gone = state is not None and (not state.exists or state.last < id_key(read or "0-0"))
            if not is_gone:
                raise FatalError(
                    f"group {group.name} of stream {name} was deleted; dial again to begin with a new one"
                )
            await self._make_group(name, group, "0-0")
            self._start_anew(name)
        elif info:
            self._know_place(name, info)

    async def _make_group(self, name: str, group: GroupPlan, start: str) -> None:
        """Make the group, and the stream where it is missing. An existing group is used as it
        is.
        """
        denied: Exception | None = None
        try:
            await self._asks.call("XGROUP CREATE", name, group.name, start, "MKSTREAM")
        except REPLIES as error:
            # The user may lack the right to make a group that exists already.
            if code_of(error) not in ("BUSYGROUP", "NOPERM"):
                raise
            denied = error if code_of(error) == "NOPERM" else None
        info = await self._group_info(name, group)
        if info is None and denied is not None:
            raise denied
        if info:
            self._know_place(name, info)

    def _know_place(self, name: str, info: dict[str, Any]) -> None:
        """Note which entry the group has delivered last."""
        place, last = self._place.streams[name], info["last-delivered-id"].decode()
        if place.read != last:
            place.read = last
            place.gaps.forget()

    async def _group_info(self, name: str, group: GroupPlan) -> dict[str, Any] | None:
        """Return the answer of XINFO GROUPS for the group.

        None where the group does not exist, {} where the user may not ask.
        """
        try:
            groups = [named(reply) for reply in await self._asks.call("XINFO GROUPS", name)]
        except REPLIES as error:
            if is_unknown_command(error):
                return {}
            if code_of(error) == "ERR":  # no such key
                return None
            raise
        return next((found for found in groups if found["name"] == group.name.encode()), None)

    async def _state(self, name: str) -> StreamState | None:
        """Return the answer of XINFO STREAM; None where the user may not ask."""
        try:
            reply = await self._asks.call("XINFO STREAM", name)
        except REPLIES as error:
            if is_unknown_command(error):
                return None
            if code_of(error) == "ERR":  # no such key
                return StreamState(None)
            raise
        self._check_every = _HEAVY_S if _size(reply) > _HEAVY_BYTES else _CHECK_S
        return StreamState(reply)

    # reading

    async def _read(self) -> None:
        """Ask for entries while there is room. Runs as a task until the reader closes.

        A new question waits until a quarter of the window is free, so questions stay few. It also
        waits while the worker's buffer is full.
        """
        while not self._closing:
            if self._check_is_due():
                await self._check()
            room = self._plan.window - len(self._held)
            if self._paused or room <= 0 or (self._held and room * 4 < self._plan.window):
                await self._wait_for_room()
                continue
            try:
                await self._ask(min(room, _BATCH))
            except REPLIES as error:
                if self._group is None or not is_missing_group(error):
                    raise
                self._had_link = True
                for name in self._plan.names:
                    await self._find_group(name, self._group)

    async def _wait_for_room(self) -> None:
        """Wait until a reader has taken something, at most `block_s` seconds.

        A ping then asks for a sign of life.
        """
        self._room.clear()
        try:
            await asyncio.wait_for(self._room.wait(), self._plan.block_s)
        except TimeoutError:
            await self._asks.call("PING")

    async def _ask(self, count: int) -> None:
        """Ask once for entries of the streams: own old entries first, then new entries.

        Without entries the server keeps the question for `block_s` seconds.
        """
        names = self._plan.names
        history = dict(self._history)
        words: list[Any] = ["XREAD"]
        if self._group is not None:
            words = ["XREADGROUP", "GROUP", self._group.name, self._consumer]
            after = [history.get(name, ">") for name in names]
        else:
            after = [self._place.streams[name].read or "$" for name in names]
        block_ms = int(self._plan.block_s * 1000)
        words += ["COUNT", count, "BLOCK", block_ms, "STREAMS", *names, *after]
        self._blocked = not history
        try:
            reply = await self._asks.call(*words)
        finally:
            self._blocked = False
        answers = {part[0].decode(): part[1] for part in reply or ()}
        for name in names:
            entries = entries_of(name, answers.get(name))
            if name in history:
                self._take_history(name, entries)
            elif entries:
                self._take_new(name, entries)

    def _take_new(self, name: str, entries: Sequence[Entry]) -> None:
        """Hand over new entries, and move the place of reading behind them."""
        place = self._place.streams[name]
        place.read = entries[-1].id
        place.gaps.delivered(len(entries))
        self._came_since_check = True
        self._hand_over(entries, again=False)

    def _take_history(self, name: str, entries: Sequence[Entry]) -> None:
        """Hand over entries that this consumer was given earlier and has not acknowledged."""
        if not entries:
            del self._history[name]
            return
        self._history[name] = entries[-1].id
        self._hand_over(entries, again=True)

    def _hand_over(self, entries: Sequence[Entry], *, again: bool) -> None:
        """Give entries to the sink, except entries held, acknowledged, deleted or too big."""
        now, batch = time.monotonic(), list[Delivery]()
        group = self._group.name if self._group is not None else None
        for entry in entries:
            token = (entry.stream, entry.id)
            if token in self._held:
                continue
            if again and token in self._place.acknowledged:
                self.settle([token])  # the acknowledgement was lost with a link
                continue
            if entry.fields is None:  # deleted before it was acknowledged
                self._discard(token)
                continue
            size = sum(map(len, entry.fields))
            if size > self._largest:
                self._discard(token)
                self._sink.warn(
                    f"an entry of {size} bytes was discarded: it is over the option max_size"
                )
                continue
            self._held[token] = now
            batch.append(delivery_of(entry, self._data_field, group=group, again=again))
        if batch:
            self._sink.deliver(batch)

    def _discard(self, token: tuple[str, str]) -> None:
        self._sink.dropped(1)
        self.settle([token])

    # the state of the streams

    def _check_is_due(self) -> bool:
        every = self._check_every if self._came_since_check else max(_REST_S, self._check_every)
        return time.monotonic() - self._checked_at >= every

    async def _check(self) -> None:
        """Count the entries that were lost unread, and those still to come."""
        self._came_since_check = False
        for name in self._plan.names:
            state, place = await self._state(name), self._place.streams[name]
            info = await self._group_info(name, self._group) if self._group is not None else {}
            if state is None or place.read is None or info is None:
                self._lags[name] = 0 if state is not None and not state.exists else None
                continue
            read = id_key(place.read)
            if self._group is None:
                self._lags[name] = state.behind(read)
            else:
                self._lags[name] = info.get("lag")
                alone = (
                    info.get("consumers", 2) <= 1
                    and info["last-delivered-id"].decode() == place.read
                )
                if not alone:
                    place.gaps.forget()
                    continue
            lost = place.gaps.look(state, read)
            if lost:
                self._sink.dropped(lost)
                self._sink.warn(
                    f"stream {name} lost {lost} entries before they were read (trimmed or deleted)"
                )
        self._checked_at = time.monotonic()

    # other entries of the group

    async def _keep_up(self, group: GroupPlan) -> None:
        """Tell the server that held entries are in use, and take over entries of silent
        consumers.
        """
        every = max(_SHORTEST_LOOK_S, min(group.claim_idle_s / 3, _LOOK_S))
        while True:
            await self._renew(group)
            if self._takes_over:
                for name in self._plan.names:
                    await self._take_over(name, group)
            await asyncio.sleep(every)

    async def _renew(self, group: GroupPlan) -> None:
        """Reset the idle time of held entries, which prevents a takeover by other consumers."""
        now = time.monotonic()
        old: dict[str, list[str]] = {}
        for (stream, number), told in self._held.items():
            if now - told >= group.claim_idle_s / 4:
                old.setdefault(stream, []).append(number)
        for stream, ids in old.items():
            for at in range(0, len(ids), _IDS):
                some = ids[at : at + _IDS]
                try:
                    await self._claim(stream, group, some, 0)
                except REPLIES as error:
                    if not (is_unknown_command(error) or is_missing_group(error)):
                        raise
                for number in some:
                    if (stream, number) in self._held:
                        self._held[stream, number] = now

    async def _claim(self, stream: str, group: GroupPlan, ids: Sequence[str], idle_ms: int) -> None:
        """Set the idle time of held entries, without changing the count of deliveries."""
        await self._tells.call(
            "XCLAIM", stream, group.name, self._consumer, 0, *ids, "IDLE", idle_ms, "JUSTID"
        )

    async def _take_over(self, name: str, group: GroupPlan) -> None:
        """Take over entries whose consumers have been silent for `claim_idle`, as far as there is
        room.

        A cursor per stream goes on where the last call ended. The server returns 0-0 at the end of
        the list.
        """
        room = min(self._plan.window - len(self._held), _BATCH)
        while room > 0 and not self._paused and not self._closing:
            idle_ms = int(group.claim_idle_s * 1000)
            try:
                reply = await self._tells.call(
                    "XAUTOCLAIM",
                    name,
                    group.name,
                    self._consumer,
                    idle_ms,
                    self._cursors[name],
                    "COUNT",
                    room,
                )
            except REPLIES as error:
                if is_missing_group(error):
                    return
                if not is_unknown_command(error):
                    raise
                self._takes_over = False
                self._sink.warn(
                    "what other consumers of the group leave cannot be taken over: the server is older than "
                    "Redis 6.2, or does not allow XAUTOCLAIM"
                )
                return
            self._cursors[name] = reply[0].decode()
            self._hand_over(entries_of(name, reply[1]), again=True)
            for number in reply[2] if len(reply) > 2 else ():
                # The server has removed the entry from the list by itself.
                if self._held.pop((name, number.decode()), None) is None:
                    self._sink.dropped(1)
            if self._cursors[name] == "0-0":
                return
            room = min(self._plan.window - len(self._held), _BATCH)

    # the end

    async def _end_question(self) -> None:
        """End the question waiting at the server.

        Entries delivered during the closing would belong to this consumer and stay unread.
        """
        if self._reading is None or self._reading.done():
            return
        if self._blocked and self._client_id is not None:
            self._tells.call("CLIENT UNBLOCK", self._client_id)
        await asyncio.wait((self._reading,), timeout=_UNBLOCK_S)

    async def _give_back(self, group: GroupPlan) -> None:
        """Make held entries look idle for an immediate takeover; delete an own consumer."""
        held: dict[str, list[str]] = {}
        for stream, number in self._held:
            held.setdefault(stream, []).append(number)
        for stream, ids in held.items():
            for at in range(0, len(ids), _IDS):
                await self._claim(stream, group, ids[at : at + _IDS], _GIVEN_BACK_MS)
        if group.consumer is not None:
            return
        for name in self._plan.names:
            # A generated name serves no other connection. With pending entries the consumer must
            # stay.
            pending = await self._tells.call(
                "XPENDING", name, group.name, "-", "+", 1, self._consumer
            )
            if not pending:
                await self._tells.call("XGROUP DELCONSUMER", name, group.name, self._consumer)


@contextlib.contextmanager
def _as_denied() -> Any:
    """Ignore the refusal of a question that the user may not ask, or that the server does not
    know.
    """
    try:
        yield
    except REPLIES as error:
        if not is_unknown_command(error):
            raise


def _size(reply: Any) -> int:
    """Return the approximate number of bytes in an answer."""
    if isinstance(reply, bytes):
        return len(reply)
    return sum(map(_size, reply)) if isinstance(reply, list) else 8
