"""The buffer of one connection: received entries, the holders, and the rules of overflow.

The file is long because the rules below depend on each other and are tested together.

`Buffer` is pure: no socket, no clock. The caller reports events: a message, a read, an
acknowledgement, a holder that came or went. The buffer collects orders to the worker in `actions`.
The worker's event loop makes all calls, so the buffer needs no lock.

* An *entry* is a message (str or bytes) or a `Mark` (int). A mark stands between messages, at the
  place where the link changed.
* **Streaming.** A single holder is sent entries ahead, before the holder asks, as far as the window
  allows. Sent entries stay in `Holder.sent` until the holder acknowledges them. Until then the
  entries count against the limit, and the worker can take them back.
* **Recall.** When a dropping buffer overflows and the oldest messages were sent ahead already, the
  worker recalls the messages. The holder answers with the number of consumed entries. So a message
  is either read or counted as dropped, never both.
* **Asking.** With two or more holders, and after a recall, every read asks the worker. A message is
  sent only to a holder that waits for a message, so no message lies unread in an idle program.
* **Deferring.** While a recall is unanswered, no holder is served, because the recalled entries are
  older than the queued entries. Asks are deferred until the answer.
* **Numbers of asks.** Asks are numbered, and each number is answered once. A holder may repeat an
  open ask. When a recall voids the answer, the holder asks anew with the next number. A holder
  also reports up to which number its asks are over (answered or given up). So a late report, by
  the pipe or through the router, never sends a message to a holder that no longer reads.
* **Tokens.** A message broker's message has a *token*. The token goes to `settled` when a reader
  has read or discarded the message. A message with a token can be taken back and given to another
  holder like any message. A driver whose buffer drops messages must not give tokens.
* **Seek.** A seek (`discard`) takes all entries back from all holders. Messages from before the
  seek are discarded instead of queued again.
* **Kept messages.** A message that its reader *keeps* goes to `Holder.kept` when the message is
  consumed, and counts as read. The token is settled at the reader's verdict. When the holder leaves
  before the verdict, the message is queued again.
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
"""Entries in one PUSH at most."""
BATCH_BYTES: Final = 1 << 18
"""A PUSH takes no further entry once its entries have this size."""
WINDOW_BYTES: Final = 8 << 20
"""No further batch is sent ahead to a holder with as many unacknowledged bytes."""
LIMIT_BYTES: Final = 64 << 20
"""Default of `limit_bytes`."""
MOST_LEFT = 64
"""How many former holders are remembered, for late reports."""


def _size(entries: Iterable[Entry]) -> tuple[int, int]:
    """The number of messages among `entries`, and the total length of the messages."""
    messages = [e for e in entries if not isinstance(e, int)]
    return len(messages), sum(map(len, messages))


class Buffer:
    """Holds at most `limit` messages and `limit_bytes` bytes, or a single larger message.

    `overflow`: drop the oldest messages beyond the limits, or stop the peer. The module's docstring
    has the other rules."""

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
        """Links and tokens of messages that were read or discarded. The worker takes the list
        out."""
        self.unread = 0
        """Messages without a reader yet: queued, or sent ahead and not acknowledged."""
        self.unread_bytes = 0
        self.peak = 0
        """The highest value of `unread`."""
        self.received = 0
        self.read = 0
        self.dropped = 0
        self.too_large = 0
        """Dropped messages that exceeded the limit of bytes and not the limit of messages."""
        self.skipped = 0
        """Messages that were discarded by `read(-2)` or by a seek."""
        self._left: dict[bytes, Holder] = {}
        """Former holders, whose last reports of discarded messages may come late."""
        self.throttled = False
        """The driver was told to take nothing from the peer."""
        self.news = LinkNews()

    # events of the link

    def extend(self, batch: Sequence[str | bytes], at: int = 0) -> None:
        """Take messages without envelopes. `at`: time of arrival, wall clock nanoseconds."""
        self.queue.extend(batch, Run(len(batch), at))
        self._arrived(batch)

    def deliver(
        self,
        entries: Sequence[str | bytes],
        batch: Sequence[Delivery],
        at: int = 0,
        link: Any = None,
    ) -> None:
        """Take messages with envelopes, which came over `link` at the time `at` (wall clock ns).

        `entries` holds the data of each delivery in the form in which programs read it."""
        run = Run(len(batch), at)
        tokens = [delivery.token for delivery in batch]
        if tokens.count(None) < len(tokens):
            run.tokens, run.link = tokens, link
        run.batch = batch
        self.queue.extend(entries, run)
        self._arrived(entries)

    def _arrived(self, batch: Sequence[str | bytes]) -> None:
        """Count messages that were queued, and apply the limits."""
        self.received += len(batch)
        self.unread += len(batch)
        self.unread_bytes += sum(map(len, batch))
        if self.unread >= self.limit or self.unread_bytes > self.limit_bytes:
            self._overflow()
        if self.unread > self.peak:
            self.peak = self.unread

    def mark(self, mark: Mark, cause: Loss | None = None) -> None:
        """Queue a mark: the link was lost (`DOWN`), lost for good (`END`) or is up again (`UP`).

        `cause` says why the link was lost."""
        if self.news.change(mark, cause):
            self.queue.append(self.news.entry())
            self._bound_marks()

    def _bound_marks(self) -> None:
        """Remove one old outage when the queue holds too many marks."""
        # Overflow never drops marks. But the queue of an unread connection must not grow for ever
        # while the link flaps for days. Four marks in a row are two outages without a message
        # between: the older outage is removed.
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
        """Discard messages from before a seek: `void(token)` says whether a message is from before.

        A holder may still read such a message while its recall is on the way."""
        for holder in self.holders.values():
            # Sent messages are marked as void for now. When the holder's answer to the recall shows
            # which messages were not consumed, void messages are thrown away.
            for run in holder.sent.singles():
                run.void = run.void or void(run.owing()[0])
            if holder.mode != "recall":
                self._recall(holder, elsewhere=True)
        self._throw_away(self.queue, lambda run: void(run.owing()[0]))
        self._relax()

    def _throw_away(self, lane: Lane, void: Callable[[Run], bool]) -> None:
        """Discard void messages of a lane, and settle the tokens."""
        entries, runs = lane.throw_away(void)
        count, size = _size(entries)
        self.skipped += count
        self.unread -= count
        self.unread_bytes -= size
        self._settles(runs)

    @property
    def recalling(self) -> bool:
        """Whether a recall is unanswered. Until the answer no holder is served."""
        return any(h.mode == "recall" for h in self.holders.values())

    # events of the holders

    def attach(self, holder_id: bytes, *, down: bool = False, envelopes: bool = False) -> None:
        """Add a holder. `down`: the holder takes the link to be down. `envelopes`: send envelopes.

        A single holder is streamed to. With a second holder, all holders have to ask."""
        # A mark in the queue or in another holder's pocket will reach the holder as well, unless
        # the other holder has consumed the mark.
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
        # Entries in the pockets of other holders come back, for any holder to read.
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
        """Rename a holder that came back after its broker or worker was lost.

        Entries without acknowledgement are queued again. The holder reads on by asking.
        `epoch`, `consumed`: the holder's own counts. `kept`: arguments of `keep` whose messages may
        have been lost. `down`, `envelopes`: as in `attach`, for a holder unknown to this worker."""
        holder = self.holders.get(old)
        if holder is None:
            self.attach(new, down=down, envelopes=envelopes)
            # This worker has no counts of the holder, so the holder's own counts hold. With counts
            # of 0, the holder would take new entries for entries of an older epoch, and `consumed`
            # would claim new entries that the holder had of another worker.
            self.holders[new].epoch, self.holders[new].consumed = epoch, consumed
            self.holders[new].discarded = -1 if consumed else 0
            return
        for number, ticket in kept:
            self.keep(old, number, ticket)
        self._settle(holder, consumed)
        self.asks.drop(old)
        del self.holders[old]
        holder.id = new
        # No higher than both: the holder begins its next epoch by adding 1 to its own epoch.
        # Entries that are still on their way must belong to an older epoch than the holder's
        # next.
        holder.epoch = max(holder.epoch, epoch)
        holder.mode, holder.asking = "ask", 0
        self.holders[new] = holder
        self._resume()

    def detach(self, holder_id: bytes, consumed: int | None = None) -> None:
        """Remove a holder. `consumed`: entries consumed in total; None where the holder died.

        Unconsumed entries and kept messages are queued again for other holders."""
        holder = self.holders.pop(holder_id, None)
        if holder is None:
            return
        self.asks.drop(holder_id)
        self._settle(holder, holder.consumed if consumed is None else consumed)
        holder.consumed = max(holder.consumed, consumed or 0)
        # The holder's last acknowledgement may come after the report of its end.
        self._left[holder_id] = holder
        if len(self._left) > MOST_LEFT:
            del self._left[next(iter(self._left))]
        for message in reversed(holder.kept.values()):
            self._queue_again(message)
        self._resume()

    def keep(self, holder_id: bytes, number: int, ticket: int) -> None:
        """Note that the holder will keep a message: a reader's verdict on `ticket` follows later.

        `number`: the value of `consumed` that includes the message."""
        holder = self.holders.get(holder_id)
        if holder is not None and number > holder.consumed and len(holder.announced) <= self.limit:
            holder.announced[number] = ticket

    def kept(self, ticket: int) -> Kept | None:
        """The message of this ticket; None where no holder keeps the message."""
        return next((h.kept[ticket] for h in self.holders.values() if ticket in h.kept), None)

    def let_go(self, ticket: int) -> Kept | None:
        """Remove the message of this ticket from its holder and return it, as `kept` does."""
        for holder in self.holders.values():
            if ticket in holder.kept:
                return holder.kept.pop(ticket)
        return None

    def give_back(self, ticket: int) -> None:
        """Queue the kept message of this ticket again, for any reader, after its work failed."""
        message = self.let_go(ticket)
        if message is not None:
            self._queue_again(message)

    def _queue_again(self, message: Kept) -> None:
        """Put a kept message at the front of the queue, unread again."""
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
        """Take a holder's acknowledgement.

        `consumed`: entries consumed in total. `skipped`: the discarded messages among the consumed,
        in total; None where the holder did not say. `over`: asks up to this number are answered or
        given up."""
        holder = self.holders.get(holder_id)
        if holder is None:
            # Acknowledgements and the report of the end come by different sockets, in any order.
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
        # The holder keeps up: offer twice as much ahead.
        if holder.mode == "stream" and not holder.doubt:
            holder.window = min(self.limit, holder.window * 2)
        self._relax()

    def _discard(self, holder: Holder, total: int | None) -> None:
        """Count messages as discarded instead of read. An impossible `total` is ignored."""
        if total is None:
            return
        # A holder of a former worker: the first report includes messages of that worker.
        if holder.discarded < 0:
            holder.discarded = total
        news = total - holder.discarded
        if 0 < news <= holder.consumed - holder.discarded:
            holder.discarded = total
            self.read -= news
            self.skipped += news

    def _end_asks(self, holder: Holder, over: int) -> None:
        """End the holder's asks up to the number `over`: the holder waits for no answer."""
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
        """Answer a read of a holder that has no unread entry.

        `wait`: park the holder until an entry comes. Without `wait` an empty answer goes out now.
        `newest`: the read is `read(-2)`, so all older messages are discarded. Before such an ask
        the holder has thrown away its unread entries and has begun a new `epoch`.
        An ask is ignored when an ask of this `number`, or of a later number, is over.
        """
        holder = self.holders.get(holder_id)
        if holder is None:
            return
        holder.envelopes = holder.envelopes or envelopes
        self.ack(holder_id, consumed)
        # An ask of a new epoch says: the holder has no entry of former epochs. So the ask answers
        # an open recall as well.
        if epoch > holder.epoch or (epoch == holder.epoch and holder.mode == "recall"):
            holder.epoch = epoch
            self._given_back(holder, consumed)
        if number <= holder.over:
            return
        holder.asking = number
        if self.recalling:
            self.asks.deferred[holder_id] = Asked(number, epoch, consumed, wait, newest)
        elif holder.mode == "ask" and holder.sent:
            # An entry was on its way when the holder asked. The holder takes the entry or asks
            # again.
            pass
        elif newest:
            self._newest(holder)
        elif holder.mode == "stream":
            if not self._fill(holder):
                self._push(holder, [])
        elif not self._serve(holder):
            self._unserved(holder, wait)

    def _unserved(self, holder: Holder, wait: bool) -> None:
        """Park an ask for which no entry is queued, or answer without an entry."""
        if len(self.holders) > 1 and wait:
            self.asks.park(holder.id)
            return
        self.asks.drop(holder.id)
        if len(self.holders) == 1:
            self._stream(holder)
        self._push(holder, [])

    @property
    def queued(self) -> int:
        """Messages that were sent to no holder."""
        return self.unread - sum(holder.out for holder in self.holders.values())

    def cancel(self, holder_id: bytes, number: int) -> None:
        """End an ask that the holder has given up, and confirm the end.

        The confirmation follows all entries sent before, so the holder misses no entry."""
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
        """Take a holder's answer to a `Recall`. An answer with another `epoch` is ignored.

        `consumed`: entries that the holder has consumed. `waiting`: the number of the holder's open
        ask, or 0. `kept`: arguments of `keep`. `envelopes`: as in `ask`. Both are repeated in this
        answer because KEEP and READ come by another socket and may arrive later."""
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
        """End the recall of a holder: its unconsumed entries are queued again."""
        self._settle(holder, consumed)
        holder.mode = "ask"
        self._resume()

    def _resume(self) -> None:
        """Answer the deferred asks in their order, once all recalls are answered."""
        if self.asks.deferred and not self.recalling:
            for holder_id, asked in self.asks.take_deferred().items():
                self.ask(holder_id, *asked[:3], wait=asked.wait, newest=asked.newest)

    # sending

    def flush(self) -> None:
        """Send entries to holders that may be served. Called after each change of the buffer."""
        if len(self.holders) == 1:
            holder = next(iter(self.holders.values()))
            if holder.mode == "stream":
                self._fill(holder)
                return
        while self.asks.parked and not self.recalling:
            if not self._serve(self.holders[self.asks.parked[0]]):
                break

    def _fill(self, holder: Holder) -> bool:
        """Stream entries as far as the window allows. True where any entry was sent."""
        queue = self.queue
        sent = False
        while queue and holder.window > len(holder.sent) and holder.sent_bytes < WINDOW_BYTES:
            room = min(holder.window - len(holder.sent), BATCH_ENTRIES)
            # The usual small batch needs no look at each entry.
            if len(queue) > room or self.unread_bytes > BATCH_BYTES:
                room = self._fitting(room)
            self._send(holder, *queue.take(room))
            sent = True
        return sent

    def _fitting(self, room: int) -> int:
        """The number of entries, `room` at most, that make up the next batch."""
        size = 0
        for count, entry in enumerate(self.queue):
            if count == room or size >= BATCH_BYTES:
                return count
            size += 0 if isinstance(entry, int) else len(entry)
        return room

    def _send(self, holder: Holder, entries: list[Entry], runs: list[Run]) -> None:
        """Send entries. Until the acknowledgement the entries stay in `holder.sent`."""
        count, size = _size(entries)
        holder.sent.join(entries, runs)
        holder.sent_bytes += size
        holder.out += count
        self._push(holder, entries, runs)

    def _push(self, holder: Holder, entries: list[Entry], runs: Sequence[Run] = ()) -> None:
        """Add the `Push` of entries that `holder.sent` has already. A push answers an open ask."""
        stream = holder.mode == "stream"
        # The holder compares `first` with its own count, to see whether an earlier push was lost.
        first = holder.consumed + len(holder.doubt) + len(holder.sent) - len(entries)
        stamps = [stamp for run in runs for stamp in stamps_of(run)] if holder.envelopes else None
        more, answer = bool(self.queue), holder.asking
        if answer:
            holder.asking, holder.over = 0, answer
        self.actions.append(
            Push(holder.id, holder.epoch, stream, more, entries, first, stamps, answer)
        )

    def _serve(self, holder: Holder) -> bool:
        """Send the next entry to an asking holder. False without an entry."""
        # Every holder sees a mark, but a message goes to a single holder.
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
        """Send the newest message and discard all older messages (`read(-2)`)."""
        self.asks.drop(holder.id)
        holder.mode = "ask"
        # Marks behind the newest message stay queued: the link changed after the message came.
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
        """Discard all queued entries. Other holders still get to see the marks."""
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
        """Begin to stream to the only holder."""
        holder.mode = "stream"
        if not holder.window:
            holder.window = self.limit
        # Pending marks are older than the queued entries.
        while holder.pending:
            self.queue.appendleft(holder.pending.pop())

    def _recall(self, holder: Holder, *, elsewhere: bool = False) -> None:
        """Take back all unacknowledged entries of a holder."""
        holder.mode = "recall"
        # After its answer the holder throws away any late push of a former epoch.
        holder.epoch += 1
        self.actions.append(Recall(holder.id, holder.epoch, elsewhere))

    def _consume(self, holder: Holder, consumed: int) -> None:
        """Count the entries that the holder has consumed since its last report."""
        # A holder cannot consume more entries than were sent.
        count = min(consumed - holder.consumed, len(holder.doubt) + len(holder.sent))
        holder.consumed += count
        while count > 0 and holder.doubt:
            count -= 1
            # A message that counted as dropped was read before the recall reached the holder.
            if holder.doubt.popleft() is None:
                self.dropped -= 1
                self.read += 1
                holder.read += 1
        if count > 0 and holder.announced:
            self._consume_one_by_one(holder, count)
        elif count > 0:
            self._was_read(holder, *holder.sent.take(count))

    def _consume_one_by_one(self, holder: Holder, count: int) -> None:
        """Count the next `count` entries as consumed. The holder keeps some of them."""
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
        """Count consumed entries, and settle the tokens."""
        self._settles(runs)
        self._count_read(holder, entries)

    def _count_read(self, holder: Holder, entries: list[Entry]) -> None:
        """Count consumed entries. Tokens of kept messages are settled later, by the verdict."""
        count, size = _size(entries)
        self.read += count
        self.unread -= count
        self.unread_bytes -= size
        holder.sent_bytes -= size
        holder.out -= count
        holder.read += count

    def _settles(self, runs: Iterable[Run]) -> None:
        """Note the tokens of messages that were read or discarded, for the driver."""
        for run in runs:
            if run.tokens is not None:
                run.done = True
                self.settled.append((run.link, run.owing()))

    def owed(self) -> dict[Hashable, list[Run]]:
        """Runs of a message broker's messages without acknowledgement, by identity.

        From now on each message with a token has a run of its own."""
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
        """Queue the holder's unconsumed entries again: in front, in order."""
        if consumed > holder.consumed:
            self._consume(holder, consumed)
        if any(run.void for run in holder.sent.runs):
            self._throw_away(holder.sent, lambda run: run.void)
        self.queue.put_back(*holder.sent.drain())
        # Messages in doubt were not read and stay dropped. Marks in doubt are still to be seen.
        for mark in reversed(holder.doubt):
            if mark is not None:
                self.queue.appendleft(mark)
        holder.doubt.clear()
        holder.sent_bytes = holder.out = 0
        self._relax()

    def _all(self) -> Iterable[Entry]:
        """Queued entries and sent entries."""
        yield from self.queue
        for holder in self.holders.values():
            yield from holder.sent

    # the limit

    def _overflow(self) -> None:
        """Stop the peer, or drop the oldest messages, as `overflow` says."""
        if self.overflow is Overflow.BACK_PRESSURE:
            if not self.throttled:
                self.throttled = True
                self.actions.append(Throttle(True))
            return
        # Sent entries are older than queued entries, so sent messages are dropped first.
        streaming = next((h for h in self.holders.values() if h.mode != "ask" and h.sent), None)
        if streaming is not None:
            self._drop_sent(streaming)
        while self._is_over() and self._drop_queued():
            pass

    def _is_over(self) -> bool:
        """Whether the limits are exceeded. A single message may be larger than `limit_bytes`."""
        return self.unread > self.limit or (
            self.unread_bytes > self.limit_bytes and self.unread > 1
        )

    def _drop_sent(self, holder: Holder) -> None:
        """Drop the oldest messages, which were sent ahead to this holder, and recall the rest."""
        while self._is_over() and holder.sent:
            entry = holder.sent.popleft()
            if isinstance(entry, int):
                holder.doubt.append(entry)
                continue
            # The holder may have read the message already. The answer to the recall will tell.
            holder.doubt.append(None)
            holder.sent_bytes -= len(entry)
            holder.out -= 1
            self._dropped(entry)
        if holder.mode == "stream":
            # The holder does not keep up. With a smaller window the next recall is smaller.
            holder.window = max(1, holder.window // 8)
            self._recall(holder)

    def _drop_queued(self) -> bool:
        """Drop the oldest queued message; False without a message. Marks in front stay."""
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
        """Count a message as dropped."""
        self.dropped += 1
        self.too_large += self.unread <= self.limit
        self.unread -= 1
        self.unread_bytes -= len(entry)

    def _relax(self) -> None:
        """Let the driver take from the peer again, once the buffer is half empty."""
        # Not as soon as the buffer has room: every message would resume and pause the driver again.
        if (
            self.throttled
            and self.unread <= self.limit // 2
            and self.unread_bytes <= self.limit_bytes // 2
        ):
            self.throttled = False
            self.actions.append(Throttle(False))
