"""The reader: the thread that owns the consumer, and the requests of the driver to that thread.

librdkafka reconnects by itself, and a consumer that leaves its group and joins it again costs every
member a rebalance. So a reader outlives the link. When all brokers are gone, the reader reports the
loss to its driver object and then keeps still. The next driver object takes the reader over as soon
as a broker answers. The reader then goes back to the first message that was not consumed. Messages
that readers of the connection still hold, or have had meanwhile, are recognised by partition and
offset.

Messages are taken from librdkafka in batches, as many as the connection's buffer has room for. The
number of messages given out and not consumed never exceeds the buffer. While the buffer is full the
thread first just takes no more. After a second it pauses the partitions, so the group's member
stays alive while a strategy thinks.

The thread does one thing at a time, in this order: open a link, seek, read, wait. The parts have
modules of their own: `session` (the consumer and the parts that work on it), `link_state` (whether
the link is open), `fetching`, `upkeep`, `room`, and `loop_side` (the way back to the event loop).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from confluent_kafka import KafkaException

from trunkline.actors.drivers.kafka.errors import cause
from trunkline.actors.drivers.kafka.fetching import POLL_S
from trunkline.actors.drivers.kafka.link_state import LinkState
from trunkline.actors.drivers.kafka.loop_side import LoopSide, Owner
from trunkline.actors.drivers.kafka.offsets import Positions, Token, settle
from trunkline.actors.drivers.kafka.plan import Plan
from trunkline.actors.drivers.kafka.room import Room
from trunkline.actors.drivers.kafka.seek import Void
from trunkline.actors.drivers.kafka.session import Session
from trunkline.actors.drivers.kafka.upkeep import Upkeep
from trunkline.deadline import Deadline
from trunkline.errors import DialError, TrunklineError
from trunkline.wire.place import Place

__all__ = ["Reader"]

_BATCH = 1000
"""The most messages that a call takes from librdkafka."""
_HOLD_S = 1.0
"""Seconds for which a full buffer only stops the taking. Then the partitions are paused."""


class _Stopped(Exception):
    """Raised on the thread when the reader must end."""


class _Opening(NamedTuple):
    """A driver's request for a link."""

    deadline: Deadline
    future: asyncio.Future[None]


class _Seek(NamedTuple):
    """A driver's request to read on at another place."""

    place: Place
    deadline: Deadline
    future: asyncio.Future[Void]


class Reader:
    """Reads for one driver object after the other.

    Public methods are called on the event loop, all others on the reader's thread. Requests go to
    the thread through two deques and `_wake`; their answers come back through futures, by
    `LoopSide.answer`.
    """

    def __init__(
        self, plan: Plan, former: Reader | None = None, *, makes_topics: bool = True
    ) -> None:
        """Make a reader without starting its thread; the first `open` starts it.

        `former`: a reader of the same address that has become useless, for example by a refused
        login. Without a group only the former reader knows the place of reading, and the new reader
        goes on at the same place. `makes_topics`: whether the broker may make missing topics.
        """
        known_positions = former.positions_to_resume() if former is not None else None
        self.plan = plan
        self._known_topics = former.known_topics() if former is not None else {}
        self._makes_topics = makes_topics
        self._ended = asyncio.Event()
        """Set when the thread has ended."""
        self._openings: deque[_Opening] = deque()
        self._seeks: deque[_Seek] = deque()
        """Requests of the event loop, which appends. The thread takes requests from the left."""
        self._wake = threading.Event()
        """Set by the event loop after a request, so that the thread does not sleep on."""
        self._must_stop = False
        """Set by `close`; read by the thread between two steps."""
        self._room = Room(plan.limit)
        self._loop_side = LoopSide(asyncio.get_running_loop())
        self._positions: Positions = known_positions or Positions()
        self._link = LinkState(plan, self._loop_side, knows_positions=known_positions is not None)
        # The thread makes both at the first link, because connecting blocks.
        self._session: Session | None = None
        self._upkeep: Upkeep | None = None
        self._thread = threading.Thread(target=self._run, name="trunkline-kafka-read", daemon=True)

    # called on the event loop

    @property
    def is_useless(self) -> bool:
        """Whether no driver can read with this reader any more."""
        group = self._session.group if self._session is not None else None
        is_broken = group is not None and group.broken
        is_dead = self._link.fatal is not None and not self._link.is_fenced
        return is_broken or is_dead or not self._thread.is_alive()

    @property
    def is_held(self) -> bool:
        """Whether the partitions are paused."""
        return self._session is not None and self._session.fetcher.is_held

    def positions_to_resume(self) -> Positions | None:
        """Return the place of reading for the next reader.

        None where the group keeps the place, or before any reading.
        """
        return self._positions if self._link.knows_positions and not self.plan.group else None

    def known_topics(self) -> dict[str, int]:
        """Return how many partitions the topics had at the first link."""
        return dict(self._session.finder.known if self._session is not None else self._known_topics)

    def lag(self) -> int | None:
        """Return how many messages of the topics are unread.

        None while an end is not known.
        """
        positions = list(self._positions)
        if not self.plan.topics or any(each.end < 0 for each in positions):
            return None
        return sum(each.unread for each in positions)

    async def open(self, owner: Owner, deadline: Deadline) -> None:
        """Find the topics and go to the place where reading begins, or resume for a new owner.

        Raises DialError.
        """
        future: asyncio.Future[None] = self._loop_side.loop.create_future()
        self._loop_side.owner = owner
        self._openings.append(_Opening(deadline, future))
        self._wake.set()
        if not self._thread.is_alive():
            self._thread.start()
        await future

    async def seek(self, place: Place, deadline: Deadline) -> Void:
        """Go on reading at `place`; see `StreamDriver.seek`."""
        future: asyncio.Future[Void] = self._loop_side.loop.create_future()
        self._seeks.append(_Seek(place, deadline, future))
        self._wake.set()
        if not self._thread.is_alive():
            raise ConnectionError("the link is gone")
        return await future

    def leave(self, owner: Owner) -> None:
        """Take note of the end of the owner's link.

        The owner gets no more messages, and the next owner may take over.
        """
        if self._loop_side.owner is owner:
            self._loop_side.owner = None
            self._wake.set()

    async def close(self, seconds: float) -> None:
        """Commit the consumed offsets, leave the group and end the thread.

        Waits at most `seconds`. The daemon thread finishes a longer farewell alone.
        """
        self._loop_side.owner = None
        self._must_stop = True
        self._wake.set()
        if self._thread.is_alive():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._ended.wait()

    def pause(self) -> None:
        """Give out nothing: the worker's buffer is full."""
        self._room.is_paused = True

    def resume(self) -> None:
        """Go on: the worker's buffer has room again."""
        self._room.is_paused = False
        self._wake.set()

    def settle(self, tokens: Sequence[Token]) -> None:
        """Note messages as read."""
        settle(tokens)
        self._room.note_consumed(len(tokens))
        if self._room.is_full:
            self._wake.set()

    # run on the reader's thread

    def _run(self) -> None:
        """Work until the reader must stop. Then end the waiting requests, and the session."""
        try:
            while not self._must_stop:
                self._do_next()
        except _Stopped:
            pass
        except Exception as error:
            self._link.lose(DialError(f"the Kafka reader failed: {type(error).__name__}: {error}"))
        finally:
            for opening in self._openings:
                self._loop_side.answer(opening.future, DialError("closed"))
            for seek in self._seeks:
                self._loop_side.answer(seek.future, ConnectionError("the connection was closed"))
            if self._session is not None:
                self._session.close()
            self._loop_side.call(self._ended.set)

    def _do_next(self) -> None:
        """Do the most urgent thing. An owner that has left closes the link."""
        if self._openings:
            self._answer_opening(self._openings.popleft())
        elif self._seeks:
            self._answer_seek(self._seeks.popleft())
        elif self._link.is_open and self._loop_side.owner is None:
            self._link.is_open = False  # the driver has closed its link
        elif self._link.is_open and self._session is not None and self._upkeep is not None:
            self._read(self._session, self._upkeep)
        else:
            self._idle()

    # requests of the driver

    def _answer_opening(self, opening: _Opening) -> None:
        """Open a link, and give the outcome to the waiting driver."""
        try:
            self._open(opening.deadline)
        except _Stopped:
            self._loop_side.answer(opening.future, DialError("closed"))
            raise
        except DialError as error:
            self._hold()
            self._loop_side.answer(opening.future, error)
        except KafkaException as error:
            self._hold()
            self._loop_side.answer(opening.future, cause(error.args[0], self.plan.peer))
        except Exception as error:
            failure = DialError(f"the Kafka reader failed: {type(error).__name__}: {error}")
            self._loop_side.answer(opening.future, failure)
            raise
        else:
            self._loop_side.answer(opening.future, None)

    def _open(self, deadline: Deadline) -> None:
        """Find the topics, go to the place of reading, and mark the link as open. Raises
        DialError.
        """
        self._link.begin_opening()
        is_first = not self._link.knows_positions
        session, upkeep = self._session_and_upkeep()
        session.fetcher.hold()  # the former link may have been lost a moment ago
        session.finder.find_topics(deadline)
        session.stand(deadline)
        self._room.begin_link()
        upkeep.begin_link(time.monotonic(), is_first=is_first)
        self._link.finish_opening()

    def _session_and_upkeep(self) -> tuple[Session, Upkeep]:
        """Return the session and its upkeep, made at the first link."""
        if self._session is None or self._upkeep is None:
            self._session = Session(
                self.plan,
                self._positions,
                self._link,
                self._loop_side,
                known=self._known_topics,
                makes_topics=self._makes_topics,
                check_opening=self._check_opening,
                check_seek=self._check_seek,
            )
            self._upkeep = Upkeep(self.plan, self._session, self._link)
        return self._session, self._upkeep

    def _check_opening(self, deadline: Deadline, waiting_for: str) -> None:
        """Raise where opening must not go on.

        Parts that ask the broker while reading call this, too.
        """
        if self._session is not None:
            self._session.serve(0)
        if self._must_stop:
            raise _Stopped
        self._link.check_opening(deadline, waiting_for)

    def _answer_seek(self, seek: _Seek) -> None:
        """Carry out a seek, and give the outcome to the waiting driver."""
        try:
            self._check_seek(seek.deadline, "")
            assert self._session is not None  # an open link has a session
            is_held = self._session.fetcher.is_held
            void = self._session.seeker.seek(seek.place, seek.deadline, held=is_held)
        except _Stopped:
            self._loop_side.answer(seek.future, ConnectionError("the connection was closed"))
            raise
        except (OSError, TrunklineError) as error:
            self._loop_side.answer(seek.future, error)
        except Exception as error:
            failure = ConnectionError(f"librdkafka failed: {type(error).__name__}: {error}")
            self._loop_side.answer(seek.future, failure)
            raise
        else:
            self._loop_side.answer(seek.future, None, void)

    def _check_seek(self, deadline: Deadline, waiting_for: str) -> None:
        """Raise where a seek must not go on."""
        if self._must_stop:
            raise _Stopped
        if not self._link.is_open:
            raise ConnectionError("the link is gone")
        if deadline.expired():
            raise TimeoutError(waiting_for)

    # reading

    def _idle(self) -> None:
        """Without a link: poll librdkafka, and leave its messages where they are."""
        self._hold()
        if self._session is None or self._link.fatal is not None:
            self._sleep()
        else:
            self._session.serve(POLL_S)

    def _read(self, session: Session, upkeep: Upkeep) -> None:
        """Mend places, then fetch a batch, or wait for room; then do the recurring tasks."""
        session.fetcher.mend_places()
        if not self._link.is_open:
            return
        left = self._room.left
        if left == 0:
            self._wait_for_room(session)
        else:
            self._room.note_free()
            session.fetcher.release()
            self._room.note_given(session.fetcher.fetch(min(left, _BATCH)))
        upkeep.run(time.monotonic())

    def _wait_for_room(self, session: Session) -> None:
        """Wait for room. A buffer that stays full for `_HOLD_S` seconds pauses the partitions."""
        if self._room.seconds_full(time.monotonic()) >= _HOLD_S:
            session.fetcher.hold()
            session.serve(POLL_S)
        else:
            self._sleep()

    def _hold(self) -> None:
        if self._session is not None:
            self._session.fetcher.hold()

    def _sleep(self) -> None:
        """Wait until the event loop has a request, at most 0.1 s."""
        self._wake.wait(POLL_S)
        self._wake.clear()
