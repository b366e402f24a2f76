"""The buffer of one connection: what was received, who has it, what must be thrown away. Long because its
rules bear on each other, and are proved together.

Pure: no socket, no clock. It is told what happened (a message, a read, an acknowledgement, a
holder that came or went) and collects in `actions` what the worker is to send. The rules are SPEC 3;
the shape is DESIGN "Data plane":

* An *entry* is a message (str or bytes) or a `Mark` (int): what happened to the link, in its place.
* One holder: entries are **streamed** to it as far as its window allows, before it asks. They stay in
  `Holder.sent` until they are acknowledged, so they count against the limit and can be given back.
* Overflow of a dropping buffer that reaches streamed entries **recalls** them: the holder answers with
  what it has really consumed, so each message is either read or counted as dropped, never both.
* Two holders or more, or one after a recall: each read **asks**, and a message is sent only to one
  who waits for it, so none sits in an idle holder's pocket.
* While a recall is unanswered nobody is served: what comes back is older than what is queued. Who asks
  meanwhile is **deferred** until then.
* Asks are **numbered**, and each number is answered once: a holder may repeat an ask that is out. One whose
  answer was void (by a recall) asks anew, with the next number. A holder says up to which number its asks
  are over (answered or given up), so no word that comes late, by whatever way, has a message sent to a
  holder that no longer reads.
* A message that somebody waits for (a *token*: a message broker's) goes to `settled` when a reader has it, or
  has discarded it. It is taken back, given to another holder and so on like any other; whoever drops messages
  must not give tokens.
* A connection that goes on reading *elsewhere* (`discard`) takes everything back from all holders, and
  discards what is not to be read any more instead of queueing it again.
* A message that its reader *keeps* goes to `Holder.kept` when it is consumed. It counts as read, and its
  token is settled when the reader says so. When the holder goes first, the message is queued again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Final

from trunkline.actors.driver import Delivery, Overflow
from trunkline.actors.stream.actions import (
    Action,
    Notify,
    Push,
    Recall,
    Throttle,
    Welcome,
    stamps_of,
)
from trunkline.actors.stream.asks import Asked, Asks
from trunkline.actors.stream.holder import Holder, Kept
from trunkline.actors.stream.lane import Entry, Lane, Run
from trunkline.actors.stream.link_news import LinkNews
from trunkline.wire.envelope import Mark
from trunkline.wire.loss import Loss

__all__ = ["Buffer"]

BATCH_ENTRIES: Final = 1000
BATCH_BYTES: Final = 1 << 18
WINDOW_BYTES: Final = 8 << 20
LIMIT_BYTES: Final = 64 << 20
MOST_LEFT = 64


def _size(entries: Iterable[Entry]) -> tuple[int, int]:
    """How many of them are messages, and their bytes."""
    messages = [e for e in entries if not isinstance(e, int)]
    return len(messages), sum(map(len, messages))


class Buffer:
    """See the module. `limit` messages at most, and `limit_bytes` in all, or one message that is larger;
    `overflow` says what happens beyond."""

    def __init__(
        self,
        limit: int = 2000,
        overflow: Overflow = Overflow.DROP_OLDEST,
        limit_bytes: int = LIMIT_BYTES,
    ) -> None:
        self.limit = limit
        self.limit_bytes = limit_bytes
        self.overflow = overflow
        self.queue = Lane()
        self.holders: dict[bytes, Holder] = {}
        self.asks = Asks()
        self.actions: list[Action] = []
        self.settled: list[tuple[Any, list[Any]]] = []
        """Links and tokens of the messages that were read or discarded, since the worker took this list."""
        self.unread = 0
        self.unread_bytes = 0
        self.peak = 0
        self.received = 0
        self.read = 0
        self.dropped = 0
        self.too_large = 0
        """Of those dropped, the ones that were too much by their bytes and not by their number."""
        self.skipped = 0
        self._left: dict[bytes, Holder] = {}
        """Holders that have left: they may still say what they discarded."""
        self.throttled = False
        self.news = LinkNews()

    # what the link does

    def extend(self, batch: Sequence[str | bytes], at: int = 0) -> None:
        """Messages arrived, in this order, at this time (wall clock, nanoseconds)."""
        self.queue.extend(batch, Run(len(batch), at))
        self._arrived(batch)

    def deliver(
        self,
        entries: Sequence[str | bytes],
        batch: Sequence[Delivery],
        at: int = 0,
        link: Any = None,
    ) -> None:
        """Messages arrived with their envelopes, over this link; `entries` is what shall be read of each."""
        run = Run(len(batch), at)
        tokens = [delivery.token for delivery in batch]
        if tokens.count(None) < len(tokens):
            run.tokens, run.link = tokens, link
        run.batch = batch
        self.queue.extend(entries, run)
        self._arrived(entries)

    def _arrived(self, batch: Sequence[str | bytes]) -> None:
        self.received += len(batch)
        self.unread += len(batch)
        self.unread_bytes += sum(map(len, batch))
        if self.unread >= self.limit or self.unread_bytes > self.limit_bytes:
            self._overflow()
        if self.unread > self.peak:
            self.peak = self.unread

    def mark(self, mark: Mark, cause: Loss | None = None) -> None:
        """The link was lost, re-established or lost for good; `cause` says why it was lost."""
        if self.news.change(mark, cause):
            self.queue.append(self.news.entry())
            self._bound_marks()

    def _bound_marks(self) -> None:
        # Marks are no messages and are never dropped; but an unread link that flaps for days must not
        # grow the queue for ever. Beyond the limit the oldest outage that is not alone in its place goes.
        queue = self.queue
        if len(queue) - self.unread <= 2 * self.limit + 4:
            return
        run = 0
        for index, entry in enumerate(queue):
            run = run + 1 if isinstance(entry, int) else 0
            if run == 4:
                queue.remove(index - 3)
                queue.remove(index - 3)
                return

    def discard(self, void: Callable[[Any], bool]) -> None:
        """Reading goes on somewhere else: messages whose tokens are `void` are given to nobody any more, but
        for what a holder still reads while it is recalled."""
        for holder in self.holders.values():
            for run in holder.sent.singles():
                run.void = run.void or void(run.owing()[0])
            if holder.mode != "recall":
                self._recall(holder, elsewhere=True)
        self._throw_away(self.queue, lambda run: void(run.owing()[0]))
        self._relax()

    def _throw_away(self, lane: Lane, void: Callable[[Run], bool]) -> None:
        entries, runs = lane.throw_away(void)
        count, size = _size(entries)
        self.skipped += count
        self.unread -= count
        self.unread_bytes -= size
        self._settles(runs)

    @property
    def recalling(self) -> bool:
        """A holder has not answered its recall yet, so nobody is served."""
        return any(h.mode == "recall" for h in self.holders.values())

    # what the holders do

    def attach(self, holder_id: bytes, *, down: bool = False, envelopes: bool = False) -> None:
        """A holder came, which takes the link to be `down` or not. The only one is streamed to; with
        a second one, everyone has to ask."""
        # The holder sees a mark that is queued, unless another holder has consumed it.
        is_queued = self.news.mark is not Mark.UP and any(
            isinstance(entry, int) for entry in self._all()
        )
        mark = self.news.for_newcomer(down=down, is_queued=is_queued)
        holder = self.holders[holder_id] = Holder(holder_id, envelopes=envelopes)
        if mark is not None:
            holder.pending.append(mark)
        self.actions.append(Welcome(holder_id))
        if len(self.holders) == 1:
            self._stream(holder)
            self._push(holder, [])
            return
        for other in self.holders.values():
            if other is not holder and (
                other.mode == "stream" or (other.mode == "ask" and other.sent)
            ):
                self._recall(other)

    def replace(
        self,
        old: bytes,
        new: bytes,
        epoch: int,
        consumed: int,
        kept: Sequence[tuple[int, int]] = (),
        *,
        down: bool = False,
        envelopes: bool = False,
    ) -> None:
        """A holder came back on another socket (its broker was lost): what it has not consumed is ours
        again, and it reads on by asking. `kept`: arguments of `keep` that may have been lost on the way. Of
        one that was not here, `down` and `envelopes` are those of `attach`."""
        holder = self.holders.get(old)
        if holder is None:
            self.attach(new, down=down, envelopes=envelopes)
            # What it says of itself is all there is: else what it is sent would be taken for something
            # older, and what it consumed before for what it gets now.
            self.holders[new].epoch, self.holders[new].consumed = epoch, consumed
            self.holders[new].discarded = -1 if consumed else 0
            return
        for number, ticket in kept:
            self.keep(old, number, ticket)
        self._settle(holder, consumed)
        self.asks.drop(old)
        del self.holders[old]
        holder.id = new
        holder.epoch = max(
            holder.epoch, epoch
        )  # no higher: its next own step must void what is on its way
        holder.mode, holder.asking = "ask", 0
        self.holders[new] = holder
        self._resume()

    def detach(self, holder_id: bytes, consumed: int | None = None) -> None:
        """A holder went (or died: consumed unknown); its unread entries are for the others."""
        holder = self.holders.pop(holder_id, None)
        if holder is None:
            return
        self.asks.drop(holder_id)
        self._settle(holder, holder.consumed if consumed is None else consumed)
        holder.consumed = max(holder.consumed, consumed or 0)
        self._left[holder_id] = holder
        if len(self._left) > MOST_LEFT:
            del self._left[next(iter(self._left))]
        for message in reversed(holder.kept.values()):
            self._queue_again(message)
        self._resume()

    def keep(self, holder_id: bytes, number: int, ticket: int) -> None:
        """The holder will settle the message itself whose consumption makes `consumed` this number."""
        holder = self.holders.get(holder_id)
        if holder is not None and number > holder.consumed and len(holder.announced) <= self.limit:
            holder.announced[number] = ticket

    def kept(self, ticket: int) -> Kept | None:
        """The message of this ticket, while a holder keeps it."""
        return next((h.kept[ticket] for h in self.holders.values() if ticket in h.kept), None)

    def let_go(self, ticket: int) -> Kept | None:
        """The same; the holder keeps the message no longer."""
        for holder in self.holders.values():
            if ticket in holder.kept:
                return holder.kept.pop(ticket)
        return None

    def give_back(self, ticket: int) -> None:
        """The holder that keeps this message did not do its work: any reader gets it again."""
        message = self.let_go(ticket)
        if message is not None:
            self._queue_again(message)

    def _queue_again(self, message: Kept) -> None:
        """A message that a reader had is unread again, and the oldest of all."""
        run = message.run
        run.show_redelivered()
        self.queue.put_back([message.data], [run])
        self.read -= 1
        self.unread += 1
        self.unread_bytes += len(message.data)
        full = self.unread >= self.limit or self.unread_bytes > self.limit_bytes
        if self.overflow is Overflow.BACK_PRESSURE and full:
            self._overflow()

    def ack(
        self, holder_id: bytes, consumed: int, skipped: int | None = None, over: int = 0
    ) -> None:
        """A holder has consumed so many entries in total; so many of them, in total, it discarded (None: it
        did not say). Its asks up to number `over` are over."""
        holder = self.holders.get(holder_id)
        if holder is None:  # its last word may come behind that of its end
            if holder_id in self._left:
                self._discard(self._left[holder_id], skipped)
            return
        self._end_asks(holder, over)
        news = consumed > holder.consumed
        if news:
            self._consume(holder, consumed)
        self._discard(holder, skipped)
        if not news:
            return
        if holder.mode == "stream" and not holder.doubt:
            holder.window = min(self.limit, holder.window * 2)
        self._relax()

    def _discard(self, holder: Holder, total: int | None) -> None:
        """So many of the messages that the holder has read it discarded; what cannot be is not believed."""
        if total is None:
            return
        if holder.discarded < 0:
            holder.discarded = total
        news = total - holder.discarded
        if 0 < news <= holder.consumed - holder.discarded:
            holder.discarded = total
            self.read -= news
            self.skipped += news

    def _end_asks(self, holder: Holder, over: int) -> None:
        """The holder waits no longer for the answers to its asks up to this number."""
        if over > holder.over:
            holder.over = over
            if 0 < holder.asking <= over:
                self.asks.drop(holder.id)
                holder.asking = 0

    def ask(
        self,
        holder_id: bytes,
        number: int,
        epoch: int,
        consumed: int,
        *,
        wait: bool,
        newest: bool = False,
        envelopes: bool = False,
    ) -> None:
        """A holder that has nothing reads. Without `wait` it is answered at once, else parked. An ask of this
        `number` or a later one that was answered or given up is no news.

        `newest` is `read(-2)`: everything older is discarded, what the holder had (and has thrown away
        before it asked) included; its `epoch` is one that it has begun itself then.
        """
        holder = self.holders.get(holder_id)
        if holder is None:
            return
        holder.envelopes = holder.envelopes or envelopes
        self.ack(holder_id, consumed)
        if epoch > holder.epoch or (epoch == holder.epoch and holder.mode == "recall"):
            holder.epoch = (
                epoch  # it has nothing of former epochs any more: as good as answering a recall
            )
            self._given_back(holder, consumed)
        if number <= holder.over:
            return
        holder.asking = number
        if self.recalling:
            self.asks.deferred[holder_id] = Asked(number, epoch, consumed, wait, newest)
        elif holder.mode == "ask" and holder.sent:
            pass  # something that it had not seen when it asked; then it asks again
        elif newest:
            self._newest(holder)
        elif holder.mode == "stream":
            if not self._fill(holder):
                self._push(holder, [])
        elif not self._serve(holder):
            self._unserved(holder, wait)

    def _unserved(self, holder: Holder, wait: bool) -> None:
        if len(self.holders) > 1 and wait:
            self.asks.park(holder.id)
            return
        self.asks.drop(holder.id)
        if len(self.holders) == 1:
            self._stream(holder)
        self._push(holder, [])

    @property
    def queued(self) -> int:
        """Messages that no holder has been sent."""
        return self.unread - sum(holder.out for holder in self.holders.values())

    def cancel(self, holder_id: bytes, number: int) -> None:
        """A holder no longer waits for the answer to this ask. Always confirmed, after any entry that was
        sent before."""
        holder = self.holders.get(holder_id)
        if holder is not None:
            self._end_asks(holder, number)
            self.actions.append(Notify(holder_id, number))

    def recalled(
        self,
        holder_id: bytes,
        epoch: int,
        consumed: int,
        waiting: int,
        kept: Sequence[tuple[int, int]] = (),
        envelopes: bool = False,
    ) -> None:
        """The answer to a Recall; `waiting`: the number of the ask for a message that the holder waits for,
        0 when it does not wait; `kept`: arguments of `keep` that may not have arrived yet; `envelopes`: as in
        `ask`, which may not have arrived yet either."""
        for number, ticket in kept:
            self.keep(holder_id, number, ticket)
        holder = self.holders.get(holder_id)
        if holder is None or holder.mode != "recall" or epoch != holder.epoch:
            return
        holder.envelopes = holder.envelopes or envelopes
        if waiting > holder.over:
            holder.asking = waiting
            self.asks.park(holder_id)
        self._given_back(holder, consumed)

    def _given_back(self, holder: Holder, consumed: int) -> None:
        self._settle(holder, consumed)
        holder.mode = "ask"
        self._resume()

    def _resume(self) -> None:
        """When nothing is being recalled any more: those who asked meanwhile, in their order."""
        if self.asks.deferred and not self.recalling:
            for holder_id, asked in self.asks.take_deferred().items():
                self.ask(holder_id, *asked[:3], wait=asked.wait, newest=asked.newest)

    # sending

    def flush(self) -> None:
        """Send what may be sent. Call once per turn of the loop."""
        if len(self.holders) == 1:
            holder = next(iter(self.holders.values()))
            if holder.mode == "stream":
                self._fill(holder)
                return
        while self.asks.parked and not self.recalling:
            if not self._serve(self.holders[self.asks.parked[0]]):
                break

    def _fill(self, holder: Holder) -> bool:
        """Stream as far as the window allows; whether that was anything."""
        queue = self.queue
        sent = False
        while queue and holder.window > len(holder.sent) and holder.sent_bytes < WINDOW_BYTES:
            room = min(holder.window - len(holder.sent), BATCH_ENTRIES)
            if len(queue) > room or self.unread_bytes > BATCH_BYTES:
                room = self._fitting(room)
            self._send(holder, *queue.take(room))
            sent = True
        return sent

    def _fitting(self, room: int) -> int:
        """How many of the first `room` entries make up one batch."""
        size = 0
        for count, entry in enumerate(self.queue):
            if count == room or size >= BATCH_BYTES:
                return count
            size += 0 if isinstance(entry, int) else len(entry)
        return room

    def _send(self, holder: Holder, entries: list[Entry], runs: list[Run]) -> None:
        count, size = _size(entries)
        holder.sent.join(entries, runs)
        holder.sent_bytes += size
        holder.out += count
        self._push(holder, entries, runs)

    def _push(self, holder: Holder, entries: list[Entry], runs: Sequence[Run] = ()) -> None:
        stream = holder.mode == "stream"
        first = holder.consumed + len(holder.doubt) + len(holder.sent) - len(entries)
        stamps = [stamp for run in runs for stamp in stamps_of(run)] if holder.envelopes else None
        more, answer = bool(self.queue), holder.asking
        if answer:
            holder.asking, holder.over = 0, answer
        self.actions.append(
            Push(holder.id, holder.epoch, stream, more, entries, first, stamps, answer)
        )

    def _serve(self, holder: Holder) -> bool:
        """Give an asking holder what it asks for; False when there is nothing."""
        while self.queue and isinstance(self.queue[0], int) and len(self.holders) > 1:
            mark = self.queue.popleft()
            for each in self.holders.values():
                each.show_mark(mark)
        if len(self.holders) == 1 and self.queue and not holder.pending:
            self.asks.drop(holder.id)
            self._stream(holder)
            self._fill(holder)
            return True
        if holder.pending:
            entries, runs = [holder.pending.popleft()], [Run()]
        elif self.queue:
            entries, runs = self.queue.take(1)
        elif self.news.mark is not Mark.UP:
            entries, runs = [self.news.entry()], [Run()]
        else:
            return False
        self.asks.drop(holder.id)
        self._send(holder, entries, runs)
        return True

    def _newest(self, holder: Holder) -> None:
        self.asks.drop(holder.id)
        holder.mode = "ask"
        after: list[Entry] = []
        while self.queue and isinstance(self.queue[-1], int):
            after.append(self.queue.pop()[0])
        newest = self.queue.pop() if self.queue else None
        if newest is not None:
            self._skip_queue(holder)
        for mark in reversed(after):
            self.queue.append(mark)
        if newest is None:
            if not self._serve(holder):
                self._push(holder, [])
            return
        self._send(holder, [newest[0]], [newest[1]])
        self._relax()

    def _skip_queue(self, holder: Holder) -> None:
        """Discard all that is queued; the marks still are news to the other holders."""
        count, size = _size(self.queue)
        self.skipped += count
        self.unread -= count
        self.unread_bytes -= size
        for mark in (e for e in self.queue if isinstance(e, int)):
            for other in self.holders.values():
                if other is not holder:
                    other.show_mark(mark)
        self._settles(self.queue.runs)
        self.queue.clear()
        holder.pending.clear()

    # bookkeeping

    def _stream(self, holder: Holder) -> None:
        holder.mode = "stream"
        if not holder.window:
            holder.window = self.limit
        while holder.pending:  # they were shown to the others too; this one has yet to see them
            self.queue.appendleft(holder.pending.pop())

    def _recall(self, holder: Holder, *, elsewhere: bool = False) -> None:
        holder.mode = "recall"
        holder.epoch += 1
        self.actions.append(Recall(holder.id, holder.epoch, elsewhere))

    def _consume(self, holder: Holder, consumed: int) -> None:
        """Account for what the holder says it has consumed."""
        count = min(consumed - holder.consumed, len(holder.doubt) + len(holder.sent))
        holder.consumed += count
        while count > 0 and holder.doubt:
            count -= 1
            if holder.doubt.popleft() is None:  # it was read after all
                self.dropped -= 1
                self.read += 1
                holder.read += 1
        if count > 0 and holder.announced:
            self._consume_one_by_one(holder, count)
        elif count > 0:
            self._was_read(holder, *holder.sent.take(count))

    def _consume_one_by_one(self, holder: Holder, count: int) -> None:
        """Some of the next `count` entries are kept by the holder."""
        for number in range(holder.consumed - count + 1, holder.consumed + 1):
            entries, runs = holder.sent.take(1)
            ticket = holder.announced.pop(number, None)
            entry = entries[0]
            if ticket is None or isinstance(entry, int):
                self._was_read(holder, entries, runs)
                continue
            holder.kept[ticket] = Kept(entry, runs[0])
            self._count_read(holder, entries)

    def _was_read(self, holder: Holder, entries: list[Entry], runs: list[Run]) -> None:
        self._settles(runs)
        self._count_read(holder, entries)

    def _count_read(self, holder: Holder, entries: list[Entry]) -> None:
        count, size = _size(entries)
        self.read += count
        self.unread -= count
        self.unread_bytes -= size
        holder.sent_bytes -= size
        holder.out -= count
        holder.read += count

    def _settles(self, runs: Iterable[Run]) -> None:
        """A reader has these messages, or has discarded them."""
        for run in runs:
            if run.tokens is not None:
                run.done = True
                self.settled.append((run.link, run.owing()))

    def owed(self) -> dict[Hashable, list[Run]]:
        """Messages that no reader has and somebody waits for, by how they are known when they come again.
        Each has a run of its own from now on."""
        found: dict[Hashable, list[Run]] = {}
        runs = [message.run for holder in self.holders.values() for message in holder.kept.values()]
        for lane in (*(holder.sent for holder in self.holders.values()), self.queue):
            runs += lane.singles()
        for run in runs:
            deliveries = run.deliveries()
            identity = deliveries[0].identity if deliveries else None
            if identity is not None and run.owing() != [None] and not run.void:
                found.setdefault(identity, []).append(run)
        return found

    def _settle(self, holder: Holder, consumed: int) -> None:
        """Take back everything sent that the holder has not consumed, to the front, in order."""
        if consumed > holder.consumed:
            self._consume(holder, consumed)
        if any(run.void for run in holder.sent.runs):
            self._throw_away(holder.sent, lambda run: run.void)
        self.queue.put_back(*holder.sent.drain())
        for mark in reversed(holder.doubt):
            if mark is not None:
                self.queue.appendleft(mark)
        holder.doubt.clear()
        holder.sent_bytes = holder.out = 0
        self._relax()

    def _all(self) -> Iterable[Entry]:
        yield from self.queue
        for holder in self.holders.values():
            yield from holder.sent

    # the limit

    def _overflow(self) -> None:
        if self.overflow is Overflow.BACK_PRESSURE:
            if not self.throttled:
                self.throttled = True
                self.actions.append(Throttle(True))
            return
        streaming = next((h for h in self.holders.values() if h.mode != "ask" and h.sent), None)
        if streaming is not None:
            self._drop_sent(streaming)
        while self._is_over() and self._drop_queued():
            pass

    def _is_over(self) -> bool:
        """There is more than the limits allow: a single message is never too much."""
        return self.unread > self.limit or (
            self.unread_bytes > self.limit_bytes and self.unread > 1
        )

    def _drop_sent(self, holder: Holder) -> None:
        """The oldest messages are in the holder's pocket: drop them there."""
        while self._is_over() and holder.sent:
            entry = holder.sent.popleft()
            if isinstance(entry, int):
                holder.doubt.append(entry)
                continue
            holder.doubt.append(None)
            holder.sent_bytes -= len(entry)
            holder.out -= 1
            self._dropped(entry)
        if holder.mode == "stream":
            # It does not keep up: offer less ahead, or most of it would be taken back again.
            holder.window = max(1, holder.window // 8)
            self._recall(holder)

    def _drop_queued(self) -> bool:
        """Drop the oldest queued message, leaving the marks before it in their place."""
        marks: list[Entry] = []
        while self.queue and isinstance(self.queue[0], int):
            marks.append(self.queue.popleft())
        entry = self.queue.popleft() if self.queue else None
        for mark in reversed(marks):
            self.queue.appendleft(mark)
        if entry is None or isinstance(entry, int):
            return False
        self._dropped(entry)
        return True

    def _dropped(self, entry: str | bytes) -> None:
        self.dropped += 1
        self.too_large += self.unread <= self.limit
        self.unread -= 1
        self.unread_bytes -= len(entry)

    def _relax(self) -> None:
        if (
            self.throttled
            and self.unread <= self.limit // 2
            and self.unread_bytes <= self.limit_bytes // 2
        ):
            self.throttled = False
            self.actions.append(Throttle(False))
