"""nats and tls+nats through Dial: what a strategy sees, with real servers, faults and wrong input."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.nats import NKEY_SEED, Nats
from tests.support.certs import Certs
from tests.support.nats_accounts import make_accounts
from tests.support.nats_side import NatsSide
from tests.support.sockets import SocketServer, deaf, say, unused_port
from tests.support.stopping import stop
from tests.support.waiting import Background, until
from trunkline import Connection, Dial, Message, connect, last_error
from trunkline.deadline import Deadline
from trunkline.errors import OperationTimeout, RefusedError, TrunklineError, Unconfirmed
from trunkline.testing.faultproxy import FaultProxy

Start = Callable[..., Nats]


def dial(address: str, **options: object) -> Connection:
    conn = Dial(address, options)
    assert conn is not None, last_error()
    return conn


@pytest.fixture
def side(nats_server: Nats) -> Iterator[NatsSide]:
    with NatsSide(f"nats://{nats_server.address}") as made:
        yield made


class Stream:
    """A stream of a test's own on the shared server."""

    def __init__(self, server: Nats) -> None:
        self.server, self.name = server, server.unique("S")
        self.side = NatsSide(f"nats://{server.address}")
        self.side.stream(self.name, f"{self.name}.>")
        self.topic = f"{self.name}.a"
        self.address = f"nats://{server.address}?topic={self.topic}&stream={self.name}"

    def fill(self, count: int, start: int = 0) -> None:
        self.side.store(self.topic, *(str(n) for n in range(start, start + count)))

    def pending(self) -> int:
        return self.side.consumer(self.name, "d").num_ack_pending or 0


@pytest.fixture
def stream(jetstream: Nats) -> Iterator[Stream]:
    made = Stream(jetstream)
    with made.side:
        yield made
        made.side.delete_stream(made.name)


def read_numbers(conn: Connection, count: int, seconds: float = 30.0) -> list[int]:
    got: list[int] = []
    deadline = Deadline(seconds)
    while len(got) < count:
        assert not deadline.expired(), f"{len(got)} of {count}: {got[-5:]}"
        if message := conn.read(500):
            got.append(int(message))
    return got


# the seed's shape


def test_the_seeds_address_writes_and_reads_its_topic(start_nats: Start) -> None:
    server = start_nats(token="admin")
    with dial(f"nats://admin@{server.address}?topic=test_topic") as conn:
        assert conn.write("hello") == 5
        assert conn.read(5000) == "hello"
        assert conn.read(-1) is None


def test_every_login(
    start_nats: Start, certs: Certs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = make_accounts()
    (tmp_path / "user.creds").write_text(accounts.creds)
    (tmp_path / "user.nk").write_text(NKEY_SEED)
    monkeypatch.chdir(tmp_path)  # files are the caller's
    by_name, by_key = start_nats(users={"u": "p"}, tls=True), start_nats(nkey=True)
    by_creds = start_nats(config=accounts.config)
    for address in (
        f"tls+nats://u:p@{by_name.address}?topic=t|cafile={certs.ca}",
        f"nats://{by_key.address}?topic=t&nkey=user.nk",
        f"nats://{by_creds.address}?topic=t&creds=user.creds",
    ):
        with dial(address) as conn:
            assert conn.write("in") == 2
            assert conn.read(5000) == "in"


def test_envelopes(nats_server: Nats, side: NatsSide) -> None:
    name = nats_server.unique()
    with dial(f"nats://{nats_server.address}?topic={name}.>&topic={name}") as conn:
        side.publish(f"{name}.eur", "1", reply="answers.go.here", headers={"kind": "tick"})
        message = conn.receive(5000)
        assert isinstance(message, Message)
        assert (message.data, message.topic, message.headers) == (
            "1",
            f"{name}.eur",
            {"kind": "tick"},
        )
        assert message.reply_to == "answers.go.here"
        side.publish(name, b"\xff\xfe")
        assert conn.read(5000) == b"\xff\xfe"


def test_questions_and_answers(nats_server: Nats, side: NatsSide) -> None:
    name = nats_server.unique()
    side.answer(f"{name}.service")
    side.watch(f"{name}.mute")
    with connect(f"nats://{nats_server.address}?write_topic={name}.service") as conn:
        assert conn.request("what?", 5000) == "answer to what?"
        asked = [Background(lambda n=n: conn.request(str(n), 10_000)) for n in range(10)]
        assert [each.result() for each in asked] == [f"answer to {n}" for n in range(10)]
    mute = connect(f"nats://{nats_server.address}?write_topic={name}.mute")
    with mute, pytest.raises(OperationTimeout):
        mute.request("?", 200)
    nobody = connect(f"nats://{nats_server.address}?write_topic={name}.nobody")
    with nobody, pytest.raises(RefusedError, match="nobody answers"):
        nobody.request("?", 5000)


def test_a_strategy_can_answer_questions(nats_server: Nats, side: NatsSide) -> None:
    name = nats_server.unique()
    address = f"nats://{nats_server.address}"
    with (
        dial(f"{address}?topic={name}") as service,
        dial(f"{address}?write_topic={name}") as client,
    ):
        asking = Background(lambda: client.request("price?", 10_000))
        question = service.receive(5000)
        assert isinstance(question, Message)
        with dial(f"{address}?write_topic={question.reply_to}") as back:
            assert back.write("42") == 2
        assert asking.result() == "42"


def test_queue_groups_share(nats_server: Nats, side: NatsSide) -> None:
    name = nats_server.unique()
    address = f"nats://{nats_server.address}?topic={name}&queue=workers"
    with dial(address) as one, dial(address) as two:
        side.publish(name, *(str(n) for n in range(100)))
        until(lambda: one.stats().messages_in + two.stats().messages_in == 100)
        assert one.stats().messages_in > 0 < two.stats().messages_in


def test_a_hundred_thousand_numbers_none_lost_none_twice(nats_server: Nats, side: NatsSide) -> None:
    name, count = nats_server.unique(), 100_000
    with dial(
        f"nats://{nats_server.address}?topic={name}&write_topic={name}.x", buffer=count
    ) as conn:

        def flood() -> None:
            for start in range(0, count, 1000):
                side.publish(name, *(str(n) for n in range(start, start + 1000)))

        flooding = Background(flood)
        assert read_numbers(conn, count, 60) == list(range(count))
        flooding.result(60)
        assert conn.stats().dropped == 0


def test_what_does_not_fit_the_buffer_is_dropped_and_counted(
    nats_server: Nats, side: NatsSide
) -> None:
    name = nats_server.unique()
    with dial(f"nats://{nats_server.address}?topic={name}", buffer=100) as conn:
        side.publish(name, *(str(n) for n in range(1000)))
        until(lambda: conn.stats().messages_in == 1000)
        # What was sent ahead is read, or taken back and dropped: either is counted.
        numbers = [0, *read_numbers(conn, 100)]
        while numbers[-1] != 999:
            numbers += read_numbers(conn, 1)
        assert numbers[1:] == sorted(set(numbers[1:]))
        stats = conn.stats()
        assert stats.dropped == 1000 - len(numbers[1:])
        assert stats.messages_in == stats.read + stats.buffered + stats.dropped + stats.skipped


# JetStream


def test_a_message_is_acknowledged_when_it_was_read(stream: Stream) -> None:
    with dial(f"{stream.address}&durable=d") as conn:
        for number in range(5):
            assert conn.write(str(number)) == 1  # the stream has it
        until(lambda: conn.stats().messages_in == 5)
        assert stream.pending() == 5
        message = conn.receive(5000)
        assert isinstance(message, Message)
        assert (message.data, message.topic, message.offset) == ("0", stream.topic, 1)
        assert message.redelivered is False
        assert message.timestamp is not None
        until(lambda: stream.pending() == 4)
    with dial(f"{stream.address}&durable=d") as conn:
        again = [conn.receive(5000) for _ in range(4)]
        assert [m.data for m in again if isinstance(m, Message)] == ["1", "2", "3", "4"]
        assert all(isinstance(m, Message) and m.redelivered for m in again)


def test_what_a_killed_worker_had_comes_again(stream: Stream) -> None:
    with dial(f"{stream.address}&durable=d&ack_wait=3000", interval=20) as conn:
        stream.fill(10)
        until(lambda: conn.stats().messages_in == 10)
        assert read_numbers(conn, 3) == [0, 1, 2]
        until(lambda: stream.pending() == 7)
        pid = conn.stats().pid
        os.kill(pid, signal.SIGKILL)
        until(lambda: conn.stats().pid not in (0, pid) and conn.stats().state == "open", seconds=20)
        got = read_numbers(conn, 7)
        # What the reader had taken of the dead worker comes again, for nobody has acknowledged it.
        deadline = Deadline(20)
        while stream.pending():
            assert not deadline.expired()
            if message := conn.read(50):
                got.append(int(message))
        assert set(got) == set(range(3, 10))
        assert len(got) - 7 <= conn.stats().redelivered


def test_what_a_killed_reader_had_is_read_by_the_next(stream: Stream) -> None:
    with dial(f"{stream.address}&durable=d") as conn:
        handle = conn.fd()
        child = os.fork()
        if not child:  # reads one, and dies with whatever else was on its way to it
            try:
                mine = Dial(handle)
                assert mine is not None
                assert mine.read(10_000) == "0"
            finally:
                os.kill(os.getpid(), signal.SIGKILL)
        stream.fill(20)
        os.waitpid(child, 0)
        first = conn.stats().read
        got = read_numbers(conn, 20 - first)
        assert got[-1] == 19
        assert sorted(got) == list(range(first, 20))
        until(lambda: stream.pending() == 0)


@pytest.mark.parametrize("durable", [True, False])
def test_none_lost_over_a_clean_stream(stream: Stream, durable: bool) -> None:
    count = 10_000
    with dial(stream.address + ("&durable=d" if durable else "")) as conn:
        filling = Background(lambda: stream.fill(count))
        assert read_numbers(conn, count, 60) == list(range(count))
        filling.result(60)
        stats = conn.stats()
        assert (stats.dropped, stats.redelivered) == (0, 0)
        assert stats.peak <= 2000
        if durable:
            until(lambda: stream.pending() == 0)


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("fault", ["restart", "kill", "freeze", "cut", "reset", "blackhole"])
def test_none_lost_whatever_happens_to_the_server(
    start_nats: Start, fault: str, durable: bool
) -> None:
    server, name = start_nats(jetstream=True), "S"
    with NatsSide(f"nats://{server.address}") as side:
        side.stream(name, f"{name}.>")
    with FaultProxy(server.port) as proxy:
        address = (
            f"nats://{proxy.address}?topic=S.a&stream=S&ack_wait=1500"
            if durable
            else (f"nats://{proxy.address}?topic=S.a&stream=S")
        )
        options = {"durable": "d"} if durable else {}
        stop, written = threading.Event(), 0
        with (
            dial(address, interval=50, pingInterval=400, **options) as conn,
            dial(
                f"nats://{server.address}?write_topic=S.a&stream=S", interval=50, pingInterval=400
            ) as writer,
        ):
            confirmed: set[int] = set()

            def write() -> None:
                nonlocal written
                while not stop.is_set():
                    if writer.write(str(written), 2000):
                        confirmed.add(written)
                    written += 1
                    stop.wait(0.001)

            writing = Background(write)
            seen = read_numbers(conn, 50)
            if fault in ("restart", "kill"):
                server.kill() if fault == "kill" else server.stop()
                server.start()
            elif fault == "freeze":
                server.freeze()
                until(lambda: conn.stats().outages == 1, "noticing", 5)
                server.thaw()
            elif fault == "blackhole":
                proxy.blackhole()
                until(lambda: conn.stats().outages == 1, "noticing", 5)
                proxy.heal()
            else:
                getattr(proxy, fault)()
            until(lambda: conn.stats().reconnects == 1, "the new link", 20)
            more = len(confirmed) + 50
            until(lambda: len(confirmed) > more, "writing on", 20)
            stop.set()
            writing.result()
            deadline = Deadline(30)
            while not confirmed <= set(seen):
                assert not deadline.expired(), sorted(confirmed - set(seen))[:10]
                if message := conn.read(200):
                    seen.append(int(message))
            assert conn.stats().dropped == 0
            if not durable:  # it goes on where it ended: nothing twice, nothing out of order
                assert seen == sorted(set(seen))
            elif fault == "kill":  # the server has forgotten acknowledgements, and we have not
                assert len(seen) == len(set(seen))


def test_a_frozen_server_confirms_nothing(start_nats: Start) -> None:
    server = start_nats(jetstream=True)
    with NatsSide(f"nats://{server.address}") as side:
        side.stream("S", "S.>")
    with connect(f"nats://{server.address}?write_topic=S.a&stream=S") as conn:
        assert conn.write("x") == 1
        server.freeze()
        try:
            started = time.monotonic()
            with pytest.raises(Unconfirmed):
                conn.write("y", 300)
            assert time.monotonic() - started < 1.5
        finally:
            server.thaw()


# outages of core NATS


def test_the_subscription_is_in_force_before_the_link_counts_as_open(start_nats: Start) -> None:
    server = start_nats()
    with dial(f"nats://{server.address}?topic=a", interval=20) as conn:
        for round_ in range(3):
            server.restart()
            until(lambda n=round_: conn.stats().reconnects > n, "the new link", 20)
            assert conn.write(f"own {round_}") == 5
            got = [conn.read(5000) for _ in range(2)]
            assert got == ["", f"own {round_}"]


def test_a_frozen_server_is_noticed(start_nats: Start) -> None:
    server = start_nats()
    with dial(f"nats://{server.address}?topic=a", interval=20, pingInterval=300) as conn:
        server.freeze()
        try:
            assert conn.read(10_000) == ""
            assert conn.write("old") == 0
            assert "nothing came from the peer" in (conn.stats().last_error or "")
        finally:
            server.thaw()
        until(lambda: conn.stats().state == "open", seconds=20)
        assert conn.write("new") == 3
        until(lambda: conn.read(-1) == "new")
        assert conn.read(-1) is None


def test_a_login_that_is_taken_away_is_tried_until_it_is_right_again(start_nats: Start) -> None:
    server = start_nats(users={"u": "s3cret", "other": "x"})
    with dial(f"nats://u:s3cret@{server.address}?topic=a", interval=20, maxInterval=100) as conn:
        server.set_users({"other": "x"})
        until(lambda: "refused the login" in (conn.stats().last_error or ""), seconds=20)
        assert "s3cret" not in (conn.stats().last_error or "")
        assert (conn.read(), conn.stats().state) == ("", "down")
        server.set_users({"u": "s3cret", "other": "x"})
        until(lambda: conn.stats().state == "open", seconds=20)
        assert conn.write("on") == 2


def test_a_reader_too_slow_for_the_server_sees_an_outage(start_nats: Start) -> None:
    server = start_nats(config="max_pending: 1MB, write_deadline: 1s")
    with (
        dial(f"nats://{server.address}?topic=a", interval=20) as conn,
        NatsSide(f"nats://{server.address}") as side,
    ):
        pid = conn.stats().pid
        stop(pid)
        try:
            side.publish("a", *[b"x" * 100_000] * 300)
            until(lambda: "Slow Consumer" in server.log, seconds=20)
        finally:
            os.kill(pid, signal.SIGCONT)
        until(lambda: conn.stats().outages == 1 and conn.stats().state == "open", seconds=20)


def test_several_servers(start_nats: Start) -> None:
    one, two = start_nats(users={"u": "p"}), start_nats(users={"v": "q"})
    with dial(f"nats://u:p@{one.address},v:q@{two.address}?topic=a", interval=20) as conn:
        one.stop()
        until(lambda: conn.stats().reconnects == 1, seconds=20)
        assert conn.write("still") == 5
        until(lambda: conn.read(-1) == "still")


# bad input


def test_bad_input(start_nats: Start, caplog: pytest.LogCaptureFixture) -> None:
    server = start_nats(users={"u": "p"}, config="max_payload: 1000")
    strict = start_nats(
        config="""authorization { users: [ { user: "u", password: "p", permissions: {
            publish: { deny: ["closed"] }, subscribe: { deny: ["secret"] } } } ] }"""
    )
    base = f"nats://u:p@{server.address}"

    def refused(address: str, *words: str, **options: object) -> None:
        caplog.clear()
        deadline = Deadline(5)
        assert Dial(address, options) is None
        assert not deadline.expired()
        lines = [
            r.getMessage()
            for r in caplog.records
            if r.name == "trunkline" and r.levelno >= logging.WARNING
        ]
        assert len(lines) == 1, lines
        assert "\n" not in lines[0]
        for word in words:
            assert word in lines[0]
        assert "s3cret" not in lines[0]

    with unused_port() as port:
        refused(
            f"nats://127.0.0.1:{port}?topic=a", "refused the connection", "is the server running"
        )
    with SocketServer(deaf) as silent:
        refused(
            f"nats://127.0.0.1:{silent.port}?topic=a", "did not answer as a NATS server", timeout=3
        )
    with SocketServer(say(b"220 mail.example ESMTP\r\n")) as mail:
        refused(f"nats://127.0.0.1:{mail.port}?topic=a", "does not speak NATS", "check the port")
    refused(
        f"nats://u:s3cret@{server.address}?topic=a", "refused the login", "check user, password"
    )
    refused(f"nats://s3cret@{server.address}?topic=a", "refused the login")
    refused(f"nats://u:p@{strict.address}?topic=secret", "does not allow to subscribe to secret")
    refused(f"{base}", "topic")
    refused(f"{base}?topic=a..b", "topic=a..b is no subject")
    refused(f"{base}?topic=a&qos=1", "qos", "mqtt")
    refused(f"{base}?topic=a&durable=d", "stream=")
    refused(f"{base}?topic=a&stream=S", "no JetStream", "-js")
    refused(f"{base}?topic=a&creds=/nowhere/user.creds", "/nowhere/user.creds", "cannot be read")
    with connect(f"{base}?topic=a") as conn:
        with pytest.raises(RefusedError, match="at most 1000"):
            conn.write("x" * 1001)
        assert conn.write("x" * 1000) == 1000
    with connect(f"nats://u:p@{strict.address}?topic=open&write_topic=closed") as conn:
        with pytest.raises(RefusedError, match="does not allow to publish to closed"):
            conn.write("x")
        with pytest.raises(TrunklineError):
            conn.request("x", 2000)
    with dial(f"{base}?topic=a.*") as conn:
        assert conn.write("x") == 0
        assert "write_topic=" in (last_error() or "")


def test_a_stream_that_is_not_there_and_one_that_takes_no_more(stream: Stream) -> None:
    server = stream.server
    assert Dial(f"nats://{server.address}?topic=a&stream=NOPE") is None
    assert "there is no stream NOPE; create it: nats stream add NOPE" in (last_error() or "")
    tight = server.unique("tight")
    stream.side.stream(tight, f"{tight}.>", max_msgs=1, discard="new")
    with connect(f"nats://{server.address}?write_topic={tight}.a&stream={tight}") as conn:
        assert conn.write("x") == 1
        with pytest.raises(RefusedError, match="maximum messages"):
            conn.write("y")
    stream.side.delete_stream(tight)
