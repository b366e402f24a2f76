"""The buffer and the pockets together, as a model: any order of arrivals, reads, outages, holders that come,
go and die, and workers that crash, over a transport that keeps the order of the stream but delays it, and
that carries recalls on a second way with no order between the two.

`World` is that transport and what the Connection does with a pocket; its rules are what can happen. Messages
are numbers, so that order, loss and duplicates can be seen.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trunkline.actors.driver import Delivery, Overflow
from trunkline.actors.stream.actions import Notify, Push, Recall, Throttle, Welcome
from trunkline.actors.stream.buffer import Buffer
from trunkline.proxy.next_step import Do, Form, Moment, Phase, ReadCall, acknowledgement, ask
from trunkline.proxy.pocket import LOST, Pocket, Stamped
from trunkline.wire.envelope import Mark

LOSS = "lost"
FORMS = {Form.WAIT: "wait", Form.NOW: "now", Form.NEWEST: "newest"}
PICK = st.integers(min_value=0, max_value=7)


class Reader:
    """One Connection: its pocket, the ways to and from the worker, and what it has read. `ReadCall.next_step`
    decides, as for a real one; here its steps are carried out over the ways of the `World`."""

    def __init__(self, name: bytes) -> None:
        self.id = name
        self.pocket = Pocket()
        self.down: deque[Any] = deque()
        self.up: deque[Any] = deque()
        self.control_down: deque[Any] = deque()
        self.control_up: deque[Any] = deque()
        self.call: ReadCall | None = None
        self.got: list[int | str] = []
        self.results: list[object] = []
        self.crashed = False
        self.orphan = False
        """Its worker has crashed, and it has not heard the next one yet."""
        self.kept: dict[int, int] = {}
        """Tickets and numbers of the messages it has to settle."""

    @property
    def doing(self) -> str | None:
        """How it reads, or "cancel" while it gives that up; None where it does not read."""
        if self.call is None:
            return None
        return "cancel" if self.call.phase is Phase.GIVING_UP else FORMS[self.call.form]

    # what the Connection does

    def read(self, how: str, *, keep: bool = False) -> None:
        if keep:
            self.pocket.want_envelopes()
        self.call = ReadCall(next(form for form, name in FORMS.items() if name == how), keep=keep)
        self.go_on()

    def go_on(self, *, silent: bool = False, **facts: bool) -> bool:
        """Carry out what comes next, until there is something to wait for, or the read is over. False where
        the connection has to be joined anew first."""
        call = self.call
        assert call is not None
        while True:
            step = call.next_step(self.pocket, Moment(orphan=self.orphan, silent=silent, **facts))
            if step.do is Do.HEAR:  # what arrives here has a time of its own
                continue
            if step.do is Do.ASK:
                self.ask(call.form)
            elif step.do is Do.WAIT:
                self.ack(waiting=True)
            elif step.do is Do.GIVE_UP:
                self.up.append(("cancel", self.id, self.pocket.answered))
            elif step.do in (Do.TAKE, Do.TAKE_SLOWLY, Do.LOOK):
                self.done(step.taken)
                self.ack()
            elif step.do is Do.FIND:
                self.done(step.taken)
            else:
                assert step.do in (Do.CONFIRM, Do.REJOIN)
            return step.do is not Do.REJOIN

    def ask(self, form: Form) -> None:
        said, kept = ask(self.pocket, self.id, form)
        self.say_kept(kept)
        self.up.append(("read", *said))

    def say_kept(self, kept: list[tuple[int, int]]) -> None:
        for consumed, ticket in kept:
            self.up.append(("keep", self.id, consumed, ticket))

    def ack(self, *, waiting: bool = False) -> None:
        owed = acknowledgement(self.pocket, self.id, waiting=waiting)
        if owed is not None:
            said, kept = owed
            self.say_kept(kept)
            self.up.append(("ack", *said))

    def again(self) -> None:
        """A slice of waiting has passed, or the answer was void."""
        if self.doing and self.doing != "cancel":
            self.wait_brings(silent=True)

    def wait_brings(self, **facts: bool) -> None:
        """A wait has ended. Where the read has to leave its turn, it begins again at once."""
        while self.call is not None and not self.go_on(**facts):
            pass

    def cancel(self) -> None:
        """The time of the read is over."""
        self.wait_brings(silent=True, expired=True)

    def done(self, taken: object) -> None:
        self.call = None
        self.results.append(taken)
        if isinstance(taken, Stamped):
            if taken.stamp is not None:  # each message has the time that it was given on arrival
                assert taken.stamp[1] == int(taken.data)
                assert taken.stamp[2] in (None, taken.data)
            else:
                assert self.crashed
            if taken.ticket is not None:
                self.kept[taken.ticket] = int(taken.data)
            taken = taken.data
        if isinstance(taken, (str, bytes)):
            self.got.append(int(taken))
        elif taken is LOST:
            self.got.append(LOSS)

    def deliver(self) -> None:
        """The next thing on the stream arrives."""
        what = self.down.popleft()
        if isinstance(what, Welcome):
            self.orphan = False
            self.again()
            return
        if isinstance(what, Notify):
            if self.doing == "cancel":
                self.wait_brings(confirmed=what.ask >= self.pocket.answered)
            return
        stamps = [(size, at, each and each.topic) for size, at, each in what.stamps or ()]
        pocket = self.pocket
        self.orphan = False
        fed = pocket.feed(
            what.epoch, what.stream, what.more, what.entries, what.first, stamps, what.answer
        )
        if self.doing == "cancel":
            self.wait_brings()
        elif self.doing:
            self.wait_brings(silent=not fed)

    def deliver_recall(self) -> None:
        name, epoch, elsewhere = self.control_down.popleft()
        if name == self.id:
            consumed = self.pocket.recall(epoch, elsewhere=elsewhere)
            kept = self.pocket.all_kept()
            waiting = self.pocket.ask() if self.doing == "wait" else 0
            said = (consumed, waiting, kept, self.pocket.envelopes)
            self.control_up.append(("recalled", name, epoch, *said))


class World(RuleBasedStateMachine):
    """See the module."""

    overflow = Overflow.DROP_OLDEST
    limit = 4

    def __init__(self) -> None:
        super().__init__()
        self.buffer = Buffer(self.limit, self.overflow)
        self.readers: list[Reader] = []
        self.gone: list[Reader] = []
        self.names = 0
        self.sent = 0
        self.outages: list[int] = []
        self.throttled = False
        self.crashes = 0
        self.uncertain: set[int] = set()
        """Read by a holder that died before it said so: read twice, perhaps."""
        self.lost_by_crash = 0
        self.read_before = self.dropped_before = self.skipped_before = self.received_before = 0
        self.tokens: set[int] = set()
        """Given to the buffer, and not given back yet."""
        self.newest_used = self.given_back = self.shared = False
        self.void: set[int] = set()
        """Nobody is to read these any more."""
        self.start()

    # the transport

    def act(self) -> None:
        self.buffer.flush()
        for _, tokens in self.buffer.settled:
            for token in tokens:
                self.tokens.remove(token)  # once, and only once
        self.buffer.settled.clear()
        actions, self.buffer.actions = self.buffer.actions, []
        by_id = {reader.id: reader for reader in self.readers}
        for action in actions:
            if isinstance(action, Throttle):
                self.throttled = action.on
            elif action.holder in by_id:
                reader = by_id[action.holder]
                if isinstance(action, Recall):
                    reader.control_down.append(tuple(action))
                else:
                    assert isinstance(action, (Push, Notify, Welcome))
                    reader.down.append(action)

    def tell(self, kind: str, name: bytes, *fields: Any) -> None:
        buffer = self.buffer
        if kind == "start":
            if name not in buffer.holders:
                buffer.attach(name, down=fields[0], envelopes=fields[1])
        elif kind == "read":
            number, epoch, consumed, skipped, wait, newest, _, envelopes = fields
            buffer.ack(name, consumed, skipped)
            buffer.ask(name, number, epoch, consumed, wait=wait, newest=newest, envelopes=envelopes)
        elif kind == "ack":
            buffer.ack(name, *fields)
        elif kind == "keep":
            buffer.keep(name, *fields)
        elif kind == "cancel":
            buffer.cancel(name, *fields)
        elif kind == "recalled":
            buffer.recalled(name, *fields)
        else:
            assert kind == "replace"
            buffer.replace(name, *fields)
        self.act()

    def reader(self, pick: int) -> Reader:
        return self.readers[pick % len(self.readers)]

    # what can happen

    @rule(count=st.integers(1, 6))
    def messages_arrive(self, count: int) -> None:
        if self.buffer.news.mark is Mark.UP and not self.throttled:
            numbers = range(self.sent + 1, self.sent + 1 + (1 if self.backs_up() else count))
            self.sent = numbers[-1]
            for number in numbers:  # in runs of one, so that each can have a time of its own
                self.buffer.extend([str(number)], number)
            self.act()

    @rule(count=st.integers(1, 3))
    def messages_are_delivered(self, count: int) -> None:
        """With envelopes, and tokens where none may be dropped."""
        if self.buffer.news.mark is Mark.UP and not self.throttled:
            numbers = range(self.sent + 1, self.sent + 1 + (1 if self.backs_up() else count))
            self.sent = numbers[-1]
            tokens = [number if self.backs_up() else None for number in numbers]
            batch = [
                Delivery(str(n), topic=str(n), token=t, identity=n)
                for n, t in zip(numbers, tokens, strict=True)
            ]
            if self.backs_up():
                self.buffer.deliver([each.data for each in batch], batch, numbers[0])
            else:
                for each in batch:
                    self.buffer.deliver([each.data], [each], int(each.data))
            if self.backs_up():
                self.tokens |= set(numbers)
            self.act()

    @rule()
    def the_link_asks_what_is_owed(self) -> None:
        """As it does when it is lost; here each is told anew, under another token."""
        owed = self.buffer.owed()
        for runs in owed.values():
            for run in runs:
                run.take_over("link", run.owing()[0])

    @precondition(lambda self: self.backs_up())
    @rule(keep=st.integers(0, 3))
    def reading_goes_on_elsewhere(self, keep: int) -> None:
        """Messages that nobody had are given to nobody any more, but for some, as of another partition."""
        void = {number for number in self.tokens if not keep or number % 4 != keep}
        self.buffer.discard(lambda token: token in void)
        self.act()
        while self.buffer.recalling:  # as long as `seek` waits
            for reader in self.readers:
                while reader.control_down:
                    reader.deliver_recall()
                while reader.control_up:
                    self.tell(*reader.control_up.popleft())
        kept = {number for reader in self.readers + self.gone for number in reader.kept.values()}
        had = {each for reader in self.readers + self.gone for each in reader.got}
        self.void |= void - kept - had

    @invariant()
    def nothing_void_is_read(self) -> None:
        assert not any(self.void & set(reader.got) for reader in self.readers + self.gone)

    @rule(pick=PICK)
    def someone_wants_envelopes(self, pick: int) -> None:
        reader = self.reader(pick)
        if reader.doing is None:
            reader.pocket.want_envelopes()

    @rule()
    def link_changes(self) -> None:
        if self.buffer.news.mark is Mark.UP:
            self.buffer.mark(Mark.DOWN)
            self.outages.append(self.sent)
        else:
            self.buffer.mark(Mark.UP)
        self.act()

    @rule(pick=PICK, how=st.sampled_from(["wait", "wait", "now", "newest"]))
    def someone_reads(self, pick: int, how: str) -> None:
        reader = self.reader(pick)
        if reader.doing is None:
            self.newest_used |= how == "newest"
            reader.read(how)

    @precondition(lambda self: self.backs_up())
    @rule(pick=PICK, how=st.sampled_from(["wait", "wait", "now", "newest"]))
    def someone_reads_to_acknowledge_later(self, pick: int, how: str) -> None:
        reader = self.reader(pick)
        if reader.doing is None:
            self.newest_used |= how == "newest"
            reader.read(how, keep=True)

    @rule(pick=PICK, again=st.booleans())
    def someone_settles_a_message(self, pick: int, again: bool) -> None:
        """Where the verdict is faster than the word that the message is kept, it waits."""
        reader = self.reader(pick)
        ticket = next((ticket for ticket in reader.kept if self.buffer.kept(ticket)), None)
        if ticket is None:
            return
        number = reader.kept.pop(ticket)
        del reader.pocket.unsettled[ticket]
        if again:
            self.given_back = True
            self.uncertain.add(number)
            self.buffer.give_back(ticket)
            self.act()
            return
        message = self.buffer.let_go(ticket)
        assert message is not None
        assert int(message.data) == number
        self.tokens -= set(message.run.owing())

    @rule(pick=PICK, steps=st.integers(1, 4))
    def stream_moves(self, pick: int, steps: int) -> None:
        reader = self.reader(pick)
        for _ in range(steps):
            if reader.down:
                reader.deliver()

    @rule(pick=PICK, steps=st.integers(1, 4))
    def requests_move(self, pick: int, steps: int) -> None:
        reader = self.reader(pick)
        for _ in range(steps):
            if reader.up:
                self.tell(*reader.up.popleft())

    @rule(pick=PICK)
    def recall_moves(self, pick: int) -> None:
        if self.reader(pick).control_down:
            self.reader(pick).deliver_recall()

    @rule(pick=PICK)
    def answer_to_recall_moves(self, pick: int) -> None:
        if self.reader(pick).control_up:
            self.tell(*self.reader(pick).control_up.popleft())

    @rule(pick=PICK)
    def a_wait_goes_on(self, pick: int) -> None:
        self.reader(pick).again()

    @rule(pick=PICK)
    def a_wait_ends(self, pick: int) -> None:
        if self.reader(pick).doing == "wait":
            self.reader(pick).cancel()

    def start(self) -> None:
        self.names += 1
        reader = Reader(b"%d" % self.names)
        self.readers.append(reader)
        reader.up.append(("start", reader.id, False, False))

    @precondition(lambda self: len(self.readers) < 3)
    @rule()
    def another_attaches(self) -> None:
        self.shared = True
        self.start()

    @precondition(lambda self: len(self.readers) > 1)
    @rule(pick=PICK)
    def one_closes(self, pick: int) -> None:
        reader = self.reader(pick)
        if reader.doing is None:
            self.given_back = True
            if reader.kept:  # from the first of these on, all may be read again
                self.uncertain |= {entry for entry in reader.got if isinstance(entry, int)}
            self.remove(reader, reader.pocket.consumed_at_end())

    @precondition(lambda self: len(self.readers) > 1)
    @rule(pick=PICK)
    def one_dies(self, pick: int) -> None:
        reader = self.reader(pick)
        holder = self.buffer.holders.get(reader.id)
        self.given_back = True
        self.uncertain |= {entry for entry in reader.got if isinstance(entry, int)}
        self.remove(reader, None)
        assert holder is None or holder.id not in self.buffer.holders

    def remove(self, reader: Reader, consumed: int | None) -> None:
        self.readers.remove(reader)
        self.gone.append(reader)
        if reader.id not in self.buffer.holders and ("start", reader.id) in [
            m[:2] for m in reader.up
        ]:
            return
        self.buffer.detach(reader.id, consumed)
        self.act()

    @rule(pick=PICK)
    def one_joins_another_broker(self, pick: int) -> None:
        reader = self.reader(pick)
        if reader.id in self.buffer.holders:
            pocket = reader.pocket
            if reader.doing:  # it leaves the turn to the control thread, or comes to its end
                reader.go_on(stale=True, silent=True, expired=reader.doing == "newest")
                assert reader.call is None or reader.call.phase is Phase.START
            self.names += 1
            new = b"%d" % self.names
            consumed = pocket.recall(pocket.epoch + 1)
            message = ("replace", reader.id, new, pocket.epoch, max(0, consumed), pocket.all_kept())
            pocket.give_up_asks()
            reader.id = new
            self.given_back = True
            self.tell(*message)
            if reader.call is not None:
                reader.wait_brings()

    @precondition(lambda self: self.crashes < 2)
    @rule()
    def the_worker_crashes(self) -> None:
        self.crashes += 1
        for reader in self.readers:
            while reader.down:
                reader.deliver()
            reader.up.clear()
            reader.control_up.clear()
            reader.pocket.lose(Mark.DOWN)
            reader.kept.clear()
            reader.orphan = reader.crashed = True
            if reader.doing:
                reader.wait_brings(silent=reader.doing == "cancel")
            assert reader.call is None  # there is a loss to read at least
            reader.up.clear()
            reader.up.append(
                ("start", reader.id, reader.pocket.will_be_down(), reader.pocket.envelopes)
            )
        if self.buffer.news.mark is Mark.UP:
            self.outages.append(self.sent)
        self.throttled = False
        self.buffer = Buffer(self.limit, self.overflow)
        self.buffer.news.mark = Mark.DOWN
        self.tokens.clear()

    # what must hold

    def backs_up(self) -> bool:
        return self.overflow is Overflow.BACK_PRESSURE

    @invariant()
    def sums_are_right(self) -> None:
        buffer = self.buffer
        assert buffer.received == buffer.read + buffer.unread + buffer.dropped + buffer.skipped
        held = [e for h in buffer.holders.values() for e in h.sent] + list(buffer.queue)
        messages = [e for e in held if not isinstance(e, int)]
        assert buffer.unread == len(messages)
        lanes = [buffer.queue, *(holder.sent for holder in buffer.holders.values())]
        assert all(sum(run.count for run in lane.runs) == len(lane) for lane in lanes)
        owed = [token for lane in lanes for run in lane.runs for token in run.owing()]
        for holder in buffer.holders.values():
            owed += [token for message in holder.kept.values() for token in message.run.owing()]
        assert sorted(owed) == sorted(self.tokens)
        for lane in lanes:
            numbers = [each.topic for run in lane.runs for each in run.deliveries()]
            assert set(numbers) <= set(lane)
        assert buffer.unread_bytes == sum(map(len, messages))

    @invariant()
    def the_limit_holds(self) -> None:
        if not self.given_back:  # what comes back from a reader finds its place taken
            assert self.buffer.unread <= self.limit
        assert self.buffer.peak <= self.limit
        if self.backs_up():
            assert self.buffer.dropped == 0
            assert self.throttled or self.buffer.unread < self.limit

    @invariant()
    def nothing_is_read_twice(self) -> None:
        everything = [
            e for reader in self.readers + self.gone for e in reader.got if isinstance(e, int)
        ]
        certain = [number for number in everything if number not in self.uncertain]
        assert len(certain) == len(set(certain))

    @invariant()
    def order_is_kept(self) -> None:
        if not self.given_back:
            for reader in self.readers:
                numbers = [e for e in reader.got if isinstance(e, int)]
                assert numbers == sorted(numbers)

    @invariant()
    def only_the_oldest_are_dropped(self) -> None:
        if not self.shared and not self.given_back and not self.void:  # a seek discards others, too
            # What was sent to one who asked is being read at this moment, and not dropped any more.
            sent = [e for h in self.buffer.holders.values() if h.mode != "ask" for e in h.sent]
            left = [int(e) for e in [*sent, *self.buffer.queue] if not isinstance(e, int)]
            assert left == list(range(self.sent - len(left) + 1, self.sent + 1))

    @invariant()
    def each_outage_shows_in_its_place(self) -> None:
        if self.newest_used or self.given_back or self.shared:
            return
        got = self.readers[0].got
        for place in self.outages:
            later = next((i for i, e in enumerate(got) if isinstance(e, int) and e > place), None)
            if later is not None:
                earlier = [i for i, e in enumerate(got) if isinstance(e, int) and e <= place]
                assert LOSS in got[(earlier[-1] + 1 if earlier else 0) : later]

    def settle(self) -> None:
        """Let everything arrive, until nothing moves any more."""
        for _ in range(300):
            moved = False
            for reader in self.readers:
                while reader.up or reader.control_up or reader.control_down or reader.down:
                    moved = True
                    for way in (reader.up, reader.control_up):
                        if way:
                            self.tell(*way.popleft())
                    if reader.control_down:
                        reader.deliver_recall()
                    if reader.down:
                        reader.deliver()
            if not moved:
                return
        raise AssertionError("it never comes to rest")

    def teardown(self) -> None:
        """At rest everybody who waits has been served, and all that was received can be read."""
        self.settle()
        for reader in self.readers:
            reader.again()
        self.settle()
        waiting = [reader for reader in self.readers if reader.doing]
        assert not waiting or not [e for e in self.buffer.queue if not isinstance(e, int)]
        assert all(reader.doing == "wait" for reader in waiting), [
            reader.doing for reader in waiting
        ]
        if len(self.readers) > 1:
            idle = [r for r in self.readers if r.doing is None and r.pocket.consumed >= 0]
            assert not [e for r in idle for e in r.pocket.items if isinstance(e, str)]
        self.read_the_rest()
        for reader in self.readers:
            assert [m for m in reader.pocket.items if isinstance(m, str)] == []
            reader.ack()
        self.settle()
        for _ in range(len(self.readers) * 50):
            for number in range(len(self.readers)):
                self.someone_settles_a_message(number, False)
        assert not any(reader.kept for reader in self.readers)
        self.sums_are_right()
        assert self.buffer.unread == 0
        assert not self.tokens
        self.nothing_is_read_twice()
        self.order_is_kept()
        self.each_outage_shows_in_its_place()
        if not self.crashes and not self.uncertain:
            count = sum(isinstance(e, int) for r in self.readers + self.gone for e in r.got)
            assert count == self.buffer.read

    def read_the_rest(self) -> None:
        for _ in range(60):
            for reader in self.readers:
                if reader.doing is None:
                    reader.read("wait")
                self.settle()
            if not self.buffer.unread and all(not r.pocket.items for r in self.readers):
                return
            for reader in self.readers:
                if reader.doing == "wait" and not self.buffer.unread:
                    reader.cancel()
            self.settle()


class Pressing(World):
    overflow = Overflow.BACK_PRESSURE


class Tiny(World):
    limit = 1


class Roomy(World):
    limit = 50


class Asking(World):
    """Two holders that live, so that each read asks: what is sent to one that does not read stays with it."""

    def __init__(self) -> None:
        super().__init__()
        self.crashes = 2
        self.another_attaches()
        self.settle()

    @precondition(lambda self: False)
    @rule()
    def one_closes(self) -> None:  # type: ignore[override]
        """Never."""

    @precondition(lambda self: False)
    @rule()
    def one_dies(self) -> None:  # type: ignore[override]
        """Never."""

    @invariant()
    def who_does_not_read_is_not_waited_for(self) -> None:
        """Once all that it has said was heard."""
        for reader in self.readers:
            if reader.doing is None and not reader.up and not reader.control_up:
                assert reader.id not in self.buffer.asks.parked


@pytest.mark.parametrize("kind", [World, Pressing, Tiny, Roomy, Asking])
def test_any_order_of_events(kind: type[World]) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    options = settings(max_examples=150, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(kind, settings=options)  # type: ignore[no-untyped-call]


def test_a_lasting_loss_that_was_read_is_acknowledged_and_makes_room() -> None:
    world = Tiny()
    for _ in range(4):
        world.link_changes()
    world.messages_are_delivered(1)
    world.teardown()


def test_a_holder_the_worker_has_never_heard_of_goes_on_where_it_was() -> None:
    buffer = Buffer()
    buffer.extend(["a", "b"])
    buffer.replace(b"old", b"new", 3, 500)
    buffer.ask(b"new", 1, 3, 500, wait=True)
    buffer.flush()
    pushes = [action for action in buffer.actions if isinstance(action, Push) and action.entries]
    assert [(push.epoch, push.entries) for push in pushes] == [(3, ["a", "b"])]
    buffer.ack(b"new", 501)
    assert (buffer.read, buffer.unread) == (1, 1)


def test_a_holder_that_takes_the_link_to_be_down_hears_that_it_is_up() -> None:
    buffer = Buffer()
    buffer.replace(b"old", b"new", 1, 0, down=True)
    buffer.ask(b"new", 1, 1, 0, wait=False)
    buffer.flush()
    entries = [entry for each in buffer.actions if isinstance(each, Push) for entry in each.entries]
    assert entries == [Mark.UP]


def test_what_was_discarded_counts_once_however_often_it_is_told() -> None:
    """A signal handler's exception breaks off what a holder says: it says it again when it has come back."""
    buffer = Buffer()
    buffer.attach(b"h")
    buffer.extend(["a", "b", "c", "d"])
    buffer.flush()
    buffer.ack(b"h", 3, 2)
    buffer.replace(b"h", b"again", 1, 3)
    buffer.ack(b"again", 3, 2)
    assert (buffer.read, buffer.skipped) == (1, 2)


def test_an_unread_link_that_flaps_for_days_does_not_fill_the_memory() -> None:
    buffer = Buffer(limit=5)
    buffer.extend(["a"])
    for _ in range(1000):
        buffer.mark(Mark.DOWN)
        buffer.mark(Mark.UP)
    assert len(buffer.queue) < 30
    assert (buffer.news.outages, buffer.unread, buffer.queue[0]) == (1000, 1, "a")
