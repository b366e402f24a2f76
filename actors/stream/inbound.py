"""Messages from the peer: counted, decompressed, decoded, put into the buffer and served.

All methods run on the worker's event loop, once for each batch that the driver hands over.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Hashable, Sequence

from trunkline.actors.driver import Delivery
from trunkline.actors.stream.buffer import Buffer
from trunkline.actors.stream.compression import Codec, CompressionError
from trunkline.actors.stream.current import CurrentLink, Link
from trunkline.actors.stream.figures import Counters
from trunkline.actors.stream.host import Host
from trunkline.actors.stream.lane import Run
from trunkline.actors.stream.serving import Serving
from trunkline.actors.stream.user_log import UserLog

__all__ = ["Inbound"]

TORN_CHARACTER_S = 0.5
"""Seconds that the first bytes of a character wait for the rest. Then they are read as bytes."""


class Inbound:
    """Puts the messages of the present link into the buffer."""

    def __init__(
        self,
        host: Host,
        buffer: Buffer,
        current: CurrentLink,
        counters: Counters,
        serving: Serving,
        log: UserLog,
        codec: Codec | None,
    ) -> None:
        """`codec`: the codec by option `compress`; None without the option."""
        self._loop = host.loop
        self._peer = host.address.display
        self._decode = str(host.address.option("decode"))
        self._buffer = buffer
        self._current = current
        self._counters = counters
        self._serving = serving
        self._log = log
        self._codec = codec
        self._torn: asyncio.TimerHandle | None = None
        """The timer that gives up waiting for the rest of a character."""
        self._owed: dict[Hashable, list[Run]] = {}
        """Unacknowledged messages of lost links by identity. The peer sends them again."""

    def receive(self, link: Link, batch: Sequence[str | bytes]) -> None:
        """Take messages without envelopes, which came over the present link."""
        at = self._note(batch)
        if self._codec is not None and self._codec.receives:
            batch = self._unpack_all(batch)
        if link.splitter is not None:
            batch = self._split(link, batch)
        elif link.decoder is not None:
            batch = _decoded(link, batch)
        else:
            batch = self.in_form(batch)
        if batch:
            self._buffer.extend(batch, at)
            self._serving.flush()

    def deliver(self, link: Link, batch: Sequence[Delivery]) -> None:
        """Take messages with envelopes, which came over the present link."""
        if self._owed:
            batch = self._without_known(link, batch)
        entries: Sequence[str | bytes] = [each.data for each in batch]
        at = self._note(entries)
        self._counters.redelivered += [each.redelivered for each in batch].count(True)
        if self._codec is not None and self._codec.receives:
            both = [(self.unpack(each.data), each) for each in batch]
            # A message that cannot be decompressed is acknowledged. Otherwise the peer would send
            # the message again and again.
            link.driver.settle(
                [each.token for data, each in both if data is None and each.token is not None]
            )
            batch = [each for data, each in both if data is not None]
            entries = [data for data, _ in both if data is not None]
        if batch:
            self._buffer.deliver(self.in_form(entries), batch, at, link)
            self._serving.flush()

    def _note(self, batch: Sequence[str | bytes]) -> int:
        """Count the messages that arrived now. Returns the wall clock in nanoseconds."""
        at = time.time_ns()
        counters = self._counters
        counters.data_at = time.monotonic()
        counters.last_message_at = at / 1e9
        counters.bytes_in += sum(map(len, batch))
        return at

    def _without_known(self, link: Link, batch: Sequence[Delivery]) -> list[Delivery]:
        """The messages of `batch` that did not come over a lost link before.

        A message that came before is acknowledged now if a reader has had the message meanwhile.
        Otherwise the copy in the buffer takes over the new token.
        """
        fresh, read = [], []
        for each in batch:
            runs = (
                self._owed.get(each.identity)
                if each.redelivered and each.identity is not None
                else None
            )
            if not runs:
                fresh.append(each)
                continue
            run = runs.pop(0)
            if not runs:
                del self._owed[each.identity]
            if run.done:
                read.append(each.token)
            else:
                run.take_over(link, each.token)
        if read:
            link.driver.settle(read)
        return fresh

    def remember_owed(self) -> None:
        """Remember the unacknowledged messages of a lost link: the peer sends them again."""
        # Unread messages of former links are in `Buffer.owed` again. Messages that were read are
        # known here alone.
        former = {name: [run for run in runs if run.done] for name, runs in self._owed.items()}
        self._owed = self._buffer.owed()
        # Read messages of an earlier outage may still come again. When there are more of them than
        # the buffer holds, the peer has probably given them to another reader: forget them.
        if len(former) <= self._buffer.limit:
            for name, runs in former.items():
                if runs:
                    self._owed.setdefault(name, []).extend(runs)

    def forget_owed(self) -> None:
        """After a seek: take every message as new, also a message that comes again."""
        self._owed.clear()

    def in_form(self, batch: Sequence[str | bytes]) -> Sequence[str | bytes]:
        """Convert whole messages to str or bytes, as option `decode` says."""
        if self._decode == "auto":
            kinds = set(map(type, batch))
            if bytes not in kinds:
                return batch
            if len(kinds) == 1:
                # Nearly always the whole batch is text. Only otherwise each message is tried alone.
                with contextlib.suppress(UnicodeDecodeError):
                    return [m.decode() for m in batch]  # type: ignore[union-attr]
            return [_as_text(m) if isinstance(m, bytes) else m for m in batch]
        if self._decode == "bytes":
            return [m.encode() if isinstance(m, str) else m for m in batch]
        return [m.decode(errors="replace") if isinstance(m, bytes) else m for m in batch]

    def unpack(self, message: str | bytes) -> str | bytes | None:
        """Decompress a message. None, and a warning in the log, where that fails."""
        assert self._codec is not None
        try:
            return self._codec.incoming(message)
        except CompressionError as error:
            self._counters.errors += 1
            self._log.warn(
                f"a message of {len(message)} bytes from {self._peer} was discarded: {error}"
            )
            return None

    def _unpack_all(self, batch: Sequence[str | bytes]) -> list[str | bytes]:
        return [plain for plain in map(self.unpack, batch) if plain is not None]

    def _split(self, link: Link, batch: Sequence[str | bytes]) -> list[str | bytes]:
        """Decode the pieces of a byte stream, as long as the stream is text."""
        splitter = link.splitter
        assert splitter is not None
        whole: list[str | bytes] = []
        for chunk in batch:
            whole += splitter.feed(chunk if isinstance(chunk, bytes) else chunk.encode())
        if self._torn is not None:
            self._torn.cancel()
            self._torn = None
        if splitter.pending():
            self._torn = self._loop.call_later(TORN_CHARACTER_S, self.flush_character, link)
        return whole

    def flush_character(self, link: Link) -> None:
        """Put the first bytes of a character into the buffer when the rest did not come."""
        if rest := link.flush_character():
            self._buffer.extend(rest, time.time_ns())
            self._serving.flush_soon()


def _decoded(link: Link, batch: Sequence[str | bytes]) -> list[str | bytes]:
    """Decode the pieces of a byte stream of text. A character may be split between two pieces."""
    assert link.decoder is not None
    texts = [m if isinstance(m, str) else link.decoder.decode(m) for m in batch]
    return [text for text in texts if text]


def _as_text(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data
