"""The contract of drivers whose connections are read and written. A driver's author subclasses
`StreamContract`.

    class TestTcp(StreamContract):
        lost = None
        drops_oldest = False
        byte_stream = True

        @pytest.fixture
        def peer(self) -> Iterator[ScriptedPeer]:
            yield from closing(SocketPeer())

The messages are numbers with a `;`. A byte stream may join and cut such messages, and passes the
same tests.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

import trunkline
from trunkline import Dial, Message, connect
from trunkline.deadline import Deadline
from trunkline.errors import BrokenError, ClosedError, Unsupported
from trunkline.proxy.connection import Connection
from trunkline.testing.contracts.peers import ScriptedPeer
from trunkline.testing.waiting import Background, until

FORMS = (None, 0, -1, -2, -7, 500)
"""Arguments of `read`: wait without limit, look once, take the newest, wait for milliseconds."""


def closing(peer: ScriptedPeer) -> Iterator[ScriptedPeer]:
    """For the fixture `peer`: give the peer to the test and close the peer at the end."""
    with contextlib.closing(peer):
        yield peer


class StreamContract:
    """The tests of a stream driver.

    A subclass has the fixture `peer`, which gives a `ScriptedPeer`. The subclass sets the
    attributes below to the values that the driver declares.
    """

    no_data: ClassVar[tuple[Any, ...]] = (5, None, ["a"], 1.5)
    """Values that `write` refuses by a TypeError."""
    lost: ClassVar[str | None] = ""
    """The value of `read` after the loss of the link; None for a driver with `lost_is_none =
    True`."""
    drops_oldest: ClassVar[bool] = True
    """Whether a full buffer drops its oldest message.

    False: the driver stops taking messages from the peer (`Overflow.BACK_PRESSURE`).
    """
    byte_stream: ClassVar[bool] = False
    """Whether messages are pieces of a single byte stream, as the driver's `byte_stream` says."""
    links: ClassVar[bool] = True
    """Whether the connection has a link that can be lost; False for datagrams."""

    # helpers

    def dial(self, peer: ScriptedPeer, **options: object) -> Connection:
        """Dial the peer and wait until both ends have the link."""
        conn = Dial(peer.address, {**peer.options, **options})
        assert conn is not None, trunkline.last_error()
        peer.wait_links(1)
        return conn

    def give(self, conn: Connection, peer: ScriptedPeer, *messages: str | bytes) -> None:
        """Send messages, and wait for each message to arrive in the buffer, so that no two are
        joined."""
        for message in messages:
            wanted = conn.stats().messages_in + 1
            peer.send(message)
            self.wait_arrived(conn, wanted)

    def wait_arrived(self, conn: Connection, count: int, seconds: float = 10.0) -> None:
        """Wait until `count` messages have arrived since the dial, for at most `seconds`."""
        until(
            lambda: conn.stats().messages_in >= count, f"the arrival of {count} messages", seconds
        )

    def wait_reconnects(self, conn: Connection, count: int) -> None:
        """Wait until the link was established anew exactly `count` times."""
        until(lambda: conn.stats().reconnects == count, f"new link number {count}")

    def tokens(self, conn: Connection, last: int, seconds: float = 20.0) -> list[int]:
        """Read until the number `last` has come; returns all numbers read."""
        text = ""
        deadline = Deadline(seconds)
        while not text.endswith(f"{last};"):
            assert not deadline.expired(), text[-100:]
            message = conn.read(1000)
            if message:
                text += message if isinstance(message, str) else message.decode()
        return [int(token) for token in text.split(";") if token]

    def lose(self, conn: Connection, peer: ScriptedPeer) -> None:
        """Lose the link. Both ends know of the loss when the call returns."""
        outages = conn.stats().outages
        peer.drop()
        until(lambda: conn.stats().outages > outages, "the loss")

    # The forms of read.

    @pytest.mark.parametrize("form", [None, 0, -1, 2000])
    def test_what_is_there_is_read_oldest_first(self, peer: ScriptedPeer, form: int | None) -> None:
        with self.dial(peer) as conn:
            self.give(conn, peer, "a", "b", "c")
            assert [conn.read(form) for _ in range(3)] == ["a", "b", "c"]
            assert conn.read(-1) is None

    @pytest.mark.parametrize("form", [-2, -2.5, -100])
    def test_the_newest_is_read_and_the_rest_discarded(
        self, peer: ScriptedPeer, form: float
    ) -> None:
        with self.dial(peer) as conn:
            self.give(conn, peer, "a", "b", "c")
            assert conn.read(form) == "c"
            assert conn.read(-1) is None
            self.give(conn, peer, "d", "e")
            assert conn.read() == "d"
            assert conn.read(form) == "e"
            assert conn.read(form) is None
            until(lambda: conn.stats().skipped == 2 and conn.stats().read == 3, "the sum")

    def test_nothing_there(self, peer: ScriptedPeer) -> None:
        with self.dial(peer) as conn:
            assert conn.read(-1) is None
            assert conn.read(-2) is None
            assert conn.read(30) is None
            waiting = Background(conn.read)
            timed = conn.read(50)
            assert timed is None
            assert waiting.running()
            peer.send("a")
            assert waiting.result() == "a"

    def test_receive_gives_what_read_would_with_its_envelope(self, peer: ScriptedPeer) -> None:
        with self.dial(peer) as conn:
            assert conn.receive(-1) is None
            assert conn.receive(20) is None
            before = time.time_ns()
            self.give(conn, peer, "a", "b", "c", "d", "e")
            message = conn.receive()
            assert isinstance(message, Message)
            assert message.data == "a"
            assert before <= message.received_ns <= time.time_ns()
            # Both calls can be mixed.
            assert conn.read() == "b"
            first, second = conn.receive(2000), conn.receive(-2)
            assert isinstance(first, Message)
            assert isinstance(second, Message)
            assert (first.data, second.data) == ("c", "e")
            # Messages that arrive together share a time.
            assert message.received_ns <= first.received_ns <= second.received_ns <= time.time_ns()
            assert conn.receive(-2) is None
            until(lambda: conn.stats().read == 4, "the sum")
            assert conn.stats().skipped == 1

    def test_receive_takes_up_what_was_sent_ahead_of_it(self, peer: ScriptedPeer) -> None:
        with self.dial(peer) as conn:
            self.give(conn, peer, "a", "b", "c")
            # The other messages are on their way already, without envelopes.
            assert conn.read() == "a"
            received = [conn.receive(), conn.receive()]
            assert [m.data for m in received if isinstance(m, Message)] == ["b", "c"]
            assert all(isinstance(m, Message) and m.received_ns for m in received)
            if self.links:
                self.lose(conn, peer)
                assert [conn.receive(form) for form in (None, -1, -2, 50)] == [self.lost] * 4

    def test_a_waiting_read_gets_what_comes_in_time(self, peer: ScriptedPeer) -> None:
        with self.dial(peer) as conn:
            waiting = Background(lambda: conn.read(20_000))
            peer.send("a")
            assert waiting.result() == "a"

    def test_a_lost_link_reads_as_lost_for_ever_after_what_came_before(
        self, peer: ScriptedPeer
    ) -> None:
        if not self.links:
            return
        with self.dial(peer) as conn:
            self.give(conn, peer, "a", "b")
            self.lose(conn, peer)
            assert [conn.read(), conn.read(-1)] == ["a", "b"]
            for form in FORMS * 2:
                assert conn.read(form) == self.lost
            assert conn.write("x") == 0
            assert conn.stats().state == "lost"

    def test_a_read_that_waits_sees_the_loss(self, peer: ScriptedPeer) -> None:
        if not self.links:
            return
        with self.dial(peer) as conn:
            waiting = Background(conn.read)
            assert conn.read(30) is None
            peer.drop()
            assert waiting.result() == self.lost

    # order and bound

    def test_order_and_bound(self, peer: ScriptedPeer) -> None:
        limit, count = 50, 200
        with self.dial(peer, buffer=limit) as conn:
            before = conn.stats().messages_in
            for number in range(count):
                peer.send(f"{number};")
                if not self.byte_stream:
                    continue
                # A pause, so that chunks are not joined until the buffer is full.
                with contextlib.suppress(AssertionError):
                    self.wait_arrived(conn, before + min(number, limit - 1) + 1, seconds=0.05)
            if self.drops_oldest:
                until(lambda: conn.stats().messages_in == count, "the last arrival")
            assert conn.stats().buffered <= limit
            numbers = self.tokens(conn, count - 1)
            until(lambda: conn.stats().buffered == 0, "the last acknowledgement")
            stats = conn.stats()
            assert stats.peak <= limit
            assert stats.messages_in == stats.read + stats.buffered + stats.dropped + stats.skipped
            if self.drops_oldest:
                # A message that was sent ahead may be read before its recall: such a message was
                # not dropped.
                assert numbers[-limit:] == list(range(count - limit, count))
                assert numbers == sorted(set(numbers))
                assert stats.dropped == count - len(numbers)
            else:
                assert numbers == list(range(count))
                assert stats.dropped == 0

    # text and bytes

    def test_text_is_str_and_the_rest_is_bytes(self, peer: ScriptedPeer) -> None:
        with self.dial(peer) as conn:
            self.give(conn, peer, "hé €", b"\xff\xfe")
            assert conn.read() == "hé €"
            assert conn.read() == b"\xff\xfe"

    @pytest.mark.parametrize(
        ("decode", "first", "second"),
        [("bytes", "hé".encode(), b"a\xff"), ("text", "hé", "a\ufffd")],
    )
    def test_decode_overrides(
        self, peer: ScriptedPeer, decode: str, first: object, second: object
    ) -> None:
        with self.dial(peer, decode=decode) as conn:
            self.give(conn, peer, "hé".encode(), b"a\xff")
            assert conn.read() == first
            assert conn.read() == second

    @pytest.mark.parametrize("decode", ["auto", "text"])
    def test_a_character_in_two_chunks_is_not_torn(self, peer: ScriptedPeer, decode: str) -> None:
        if not self.byte_stream:
            return
        with self.dial(peer, decode=decode) as conn:
            euro = "€".encode()
            self.give(conn, peer, b"a" + euro[:1])
            peer.send(euro[1:] + b"b")
            assert conn.read() == "a"
            assert conn.read() == "€b"

    # writing

    def test_write_says_how_many_bytes_were_taken(self, peer: ScriptedPeer) -> None:
        with self.dial(peer) as conn:
            for data, count in (
                ("hé", 3),
                (b"\xff\x00", 2),
                (bytearray(b"abc"), 3),
                (memoryview(b"d"), 1),
            ):
                assert conn.write(data) == count
            assert conn.write("é", 2000) == 2
            until(lambda: len(peer.received()) >= 11, "the writes")
            assert peer.received() == b"h\xc3\xa9\xff\x00abcd\xc3\xa9"
            until(lambda: conn.stats().bytes_out >= 11)

    def test_what_is_no_data_is_misuse(self, peer: ScriptedPeer) -> None:
        with self.dial(peer) as conn:
            for wrong in self.no_data:
                with pytest.raises(TypeError):
                    conn.write(wrong)
            for wrong in ("1", True, [1]):
                with pytest.raises(TypeError):
                    conn.read(wrong)  # type: ignore[arg-type]
            assert conn.write("ok") == 2

    def test_write_gives_up_in_time_on_a_peer_that_does_not_read(self, peer: ScriptedPeer) -> None:
        if not self.links:
            return
        with self.dial(peer) as conn:
            peer.stop_reading()
            deadline = Deadline(30)
            while conn.write(b"x" * (1 << 20), 100):
                assert not deadline.expired(), "it takes everything"

    def test_nothing_written_in_an_outage_arrives_later(self, peer: ScriptedPeer) -> None:
        if not self.links:
            return
        with self.dial(peer, reconnect=True, interval=20) as conn:
            assert conn.write("before;") == 7
            until(lambda: peer.received() == b"before;", "the write")
            peer.refuse()
            self.lose(conn, peer)
            assert [conn.write("old;") for _ in range(3)] == [0, 0, 0]
            peer.heal()
            until(lambda: conn.write("new;"), "the link")
            until(lambda: peer.received().endswith(b"new;"), "the write")
            assert peer.received() == b"before;new;"

    # reconnecting

    def test_each_outage_shows_and_payloads_are_sent_on_each_link(self, peer: ScriptedPeer) -> None:
        if not self.links:
            return
        payload = ["one=1&two;", '{"op":"sub"};']
        with self.dial(peer, reconnect=True, interval=20, payload=payload) as conn:
            for outage in range(1, 4):
                self.give(conn, peer, f"{outage};")
                peer.refuse()
                self.lose(conn, peer)
                # In the first outage the test does not read.
                if outage > 1:
                    assert conn.read(2000) == f"{outage};"
                    assert [conn.read(form) for form in FORMS] == [self.lost] * len(FORMS)
                peer.heal()
                self.wait_reconnects(conn, outage)
                peer.wait_links(1)
                if outage == 1:
                    self.give(conn, peer, "again;")
                    assert [conn.read(2000) for _ in range(3)] == ["1;", self.lost, "again;"]
            whole = "".join(payload).encode() * 4
            until(lambda: len(peer.received()) >= len(whole), "the payloads")
            assert peer.received() == whole
            assert conn.stats().outages == 3

    def test_ignoring_the_loss_does_not_spin(self, peer: ScriptedPeer) -> None:
        if not self.links:
            return
        with self.dial(peer) as conn:
            self.lose(conn, peer)
            deadline, calls = Deadline(0.3), 0
            while not deadline.expired():
                conn.read()
                calls += 1
            # Without a pause in `read`, the loop makes tens of thousands of calls.
            assert calls < 300

    # several readers, iteration, the end

    def test_threads_compete_and_each_message_goes_to_one(self, peer: ScriptedPeer) -> None:
        count, lock = 60, threading.Lock()
        seen: list[str] = []

        def work() -> None:
            while sum(text.count(";") for text in seen) < count:
                message = conn.read(100)
                if message:
                    with lock:
                        seen.append(str(message))

        with self.dial(peer) as conn:
            workers = [Background(work) for _ in range(4)]
            for number in range(count):
                peer.send(f"{number};")
            for worker in workers:
                worker.result()
            numbers = (
                sorted(int(n) for n in "".join(seen).split(";") if n)
                if not self.byte_stream
                else None
            )
            assert numbers in (None, list(range(count)))
            assert sum(text.count(";") for text in seen) == count

    def test_iteration_gives_messages_until_the_end(self, peer: ScriptedPeer) -> None:
        if not self.links:
            return
        with self.dial(peer) as conn:
            self.give(conn, peer, "a", "b")
            self.lose(conn, peer)
            assert list(conn) == ["a", "b"]

    def test_close_wakes_who_waits_and_is_idempotent(self, peer: ScriptedPeer) -> None:
        conn = self.dial(peer)
        waiting = Background(conn.read)
        assert conn.read(30) is None
        conn.close()
        conn.close()
        assert waiting.result(5) == self.lost
        if self.links:
            peer.wait_links(0)

    def test_use_after_close(self, peer: ScriptedPeer, caplog: pytest.LogCaptureFixture) -> None:
        conn = self.dial(peer)
        self.give(conn, peer, "unread")
        conn.close()
        caplog.clear()
        for form in FORMS:
            assert conn.read(form) == self.lost
        assert conn.write("x") == 0
        assert list(conn) == []
        assert conn.fd() is None
        assert conn.stats().state == "closed"
        assert "closed" in repr(conn)
        assert bool(conn)
        texts = [record.getMessage() for record in caplog.records if record.name == "trunkline"]
        assert sum("read on a connection that you have closed" in text for text in texts) == 1
        assert sum("write on a connection that you have closed" in text for text in texts) == 1

    def test_the_raising_form(self, peer: ScriptedPeer) -> None:
        conn = connect(peer.address, peer.options)
        peer.wait_links(1)
        assert conn.read(-1) is None
        with pytest.raises(Unsupported):
            conn.exec("SELECT 1")
        if self.links:
            self.lose(conn, peer)
            for form in FORMS:
                with pytest.raises(BrokenError):
                    conn.read(form)
            with pytest.raises(BrokenError):
                conn.write("x")
        conn.close()
        with pytest.raises(ClosedError):
            conn.read()
        with pytest.raises(ClosedError):
            conn.write("x")

    def test_figures_and_repr(self, peer: ScriptedPeer) -> None:
        with self.dial(peer) as conn:
            self.give(conn, peer, "a", "b", "c")
            conn.read()
            conn.read(-2)
            conn.write("xy")
            until(lambda: conn.stats().buffered == 0, "the acknowledgement")
            stats = conn.stats()
            assert (stats.messages_in, stats.read, stats.skipped, stats.dropped) == (3, 2, 1, 0)
            assert stats.messages_in == stats.read + stats.buffered + stats.dropped + stats.skipped
            assert (stats.bytes_in, stats.state, stats.holders) == (3, "open", 1)
            assert stats.pid
            assert peer.address.split("?")[0] in repr(conn)
            assert "open" in repr(conn)

    def test_exec_is_no_operation_of_a_stream(
        self, peer: ScriptedPeer, caplog: pytest.LogCaptureFixture
    ) -> None:
        with self.dial(peer) as conn:
            assert conn.exec("SELECT 1") is None
            assert any("has no exec" in record.getMessage() for record in caplog.records)
            self.give(conn, peer, "on")
            assert conn.read() == "on"
