"""The NATS driver on real servers: logins, TLS, what is read and written, every kind of refusal and end."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import nats.aio.client
import pytest

from tests.servers.nats import NKEY_SEED, Nats
from tests.support.certs import Certs
from tests.support.http_proxy import HttpProxy
from tests.support.loops import Run, on_both_loops
from tests.support.nats_accounts import make_accounts
from tests.support.nats_side import NatsSide
from tests.support.recorder import Recorder, opened
from tests.support.servers import Microsocks
from tests.support.sockets import SocketServer, deaf, say, unused_port
from tests.support.waiting import Background
from tests.support.watching import watched
from trunkline.actors.driver import Delivery, FatalError, Overflow
from trunkline.actors.drivers.nats.driver import NatsDriver
from trunkline.actors.drivers.nats.plan import is_subject, matches, plan_of
from trunkline.actors.drivers.nats.transport import LinkTransport
from trunkline.address import parse_address
from trunkline.deadline import Deadline
from trunkline.errors import DialError, DialTimeout, RefusedError
from trunkline.testing.faultproxy import FaultProxy

pytestmark = on_both_loops
Start = Callable[..., Nats]
PERMISSIONS = """authorization { users: [ { user: "u", password: "p", permissions: {
    publish: { deny: ["closed", "$JS.API.>"] }, subscribe: { deny: ["secret.>"] } } } ] }"""


class Sink(Recorder):
    """With envelopes."""

    def __init__(self) -> None:
        super().__init__()
        self.deliveries: list[Delivery] = []

    def deliver(self, batch: Sequence[Delivery]) -> None:
        self.deliveries.extend(batch)
        self.messages([each.data for each in batch])


async def dial(
    server: Nats, target: str, sink: Sink | None = None, seconds: float = 10.0, **options: object
) -> NatsDriver:
    url = target if "://" in target else f"nats://{server.address}?{target}"
    driver = await opened(NatsDriver, url, sink or Sink(), seconds, **options)
    assert isinstance(driver, NatsDriver)
    return driver


async def refusal(url: str, seconds: float = 5.0, **options: object) -> DialError:
    """What `open` raised; it leaves nothing behind."""
    driver = NatsDriver(parse_address(url, options), Sink())
    started = time.monotonic()
    with pytest.raises(DialError) as caught:
        await driver.open(Deadline(seconds))
    assert time.monotonic() - started < seconds + 1
    await driver.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    return caught.value


async def eventually(happened: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not happened():  # noqa: ASYNC110  (things of other threads)
            await asyncio.sleep(0.005)


# reading and writing


def test_what_is_written_is_read_with_its_envelope(run: Run, nats_server: Nats) -> None:
    subject = nats_server.unique()

    async def body() -> None:
        sink = Sink()
        driver = await dial(
            nats_server, f"topic={subject}", sink, headers={"kind": "test", "n": "1"}
        )
        assert await driver.send("grüße", Deadline(5)) == 7
        assert await driver.send(b"\xff\x00\r\n", Deadline(5)) == 4
        await sink.wait_received(2)
        first, second = sink.deliveries
        assert (first.data, first.topic, first.headers) == (
            "grüße".encode(),
            subject,
            {"kind": "test", "n": "1"},
        )
        assert second.data == b"\xff\x00\r\n"
        assert (first.token, first.identity, first.reply_to) == (None, None, None)
        await driver.close()
        await driver.close()
        assert sink.losses == []
        with pytest.raises(ConnectionError, match="gone"):
            await driver.send("late", Deadline(1))

    run(body())


def test_open_returns_when_the_subscription_is_in_force(run: Run, nats_server: Nats) -> None:
    async def body() -> None:
        with NatsSide(f"nats://{nats_server.address}") as side:
            for _ in range(20):
                subject, sink = nats_server.unique(), Sink()
                driver = await dial(nats_server, f"topic={subject}", sink)
                await asyncio.to_thread(side.publish, subject, "now")
                assert await sink.wait_received(1) == [b"now"]
                await driver.close()

    run(body())


def test_several_topics_wildcards_and_where_is_written(run: Run, nats_server: Nats) -> None:
    name = nats_server.unique()

    async def body() -> None:
        sink = Sink()
        driver = await dial(nats_server, f"topic={name}.a.*&topic={name}.b.>,{name}.c", sink)
        with NatsSide(f"nats://{nats_server.address}") as side:
            for at in ("a.1", "a.1.2", "b.1.2", "c", "d"):
                await asyncio.to_thread(side.publish, f"{name}.{at}", at, reply="back.to.me")
        assert await driver.send("own", Deadline(5)) == 3  # the first topic without a wildcard
        await sink.wait_received(4)
        assert sorted((d.topic or "")[len(name) + 1 :] for d in sink.deliveries) == [
            "a.1",
            "b.1.2",
            "c",
            "c",
        ]
        assert {d.reply_to for d in sink.deliveries} == {"back.to.me", None}
        await driver.close()
        pattern = await dial(nats_server, f"topic={name}.*")
        with pytest.raises(RefusedError, match="write_topic"):
            await pattern.send("where", Deadline(1))
        await pattern.close()

    run(body())


def test_a_queue_group_shares_the_messages(run: Run, nats_server: Nats) -> None:
    subject = nats_server.unique()

    async def body() -> None:
        sinks = [Sink(), Sink(), Sink()]
        members = [await dial(nats_server, f"topic={subject}&queue=g", sink) for sink in sinks]
        for number in range(60):
            await members[0].send(str(number), Deadline(5))
        await eventually(lambda: sum(len(sink.received) for sink in sinks) >= 60)
        got = sorted(int(m) for sink in sinks for m in sink.received)
        assert got == list(range(60))
        for member in members:
            await member.close()

    run(body())


def test_many_messages_none_lost_none_twice_in_batches(run: Run, nats_server: Nats) -> None:
    subject, count = nats_server.unique(), 20_000

    async def body() -> None:
        sink = Sink()
        driver = await dial(nats_server, f"topic={subject}", sink)
        for number in range(count):
            assert await driver.send(b"%d" % number, Deadline(5))
        await sink.wait_received(count)
        assert sink.received == [b"%d" % number for number in range(count)]
        assert max(sink.batches) > 10
        await driver.close()

    run(body())


def test_a_write_that_need_not_wait_says_so(run: Run, nats_server: Nats) -> None:
    async def body() -> None:
        driver = await dial(nats_server, f"topic={nats_server.unique()}")
        assert driver.would_wait(1)  # the first one asks whether it may
        assert await driver.send("a", Deadline(5)) == 1
        assert not driver.would_wait(1)
        assert driver.would_wait(2 << 20)
        await driver.close()
        assert driver.would_wait(1)

    run(body())


def test_a_message_over_the_servers_limit_is_refused(run: Run, start_nats: Start) -> None:
    server = start_nats(config="max_payload: 1000")

    async def body() -> None:
        sink = Sink()
        driver = await dial(server, "topic=a", sink, headers={"k": "v"})
        with pytest.raises(RefusedError, match="at most 1000"):
            await driver.send(b"x" * 1000, Deadline(1))  # the headers count too
        assert await driver.send(b"x" * 960, Deadline(1)) == 960
        await sink.wait_received(1)
        await driver.close()

    run(body())


def test_a_peer_that_takes_nothing_ends_the_write_in_time(run: Run, nats_server: Nats) -> None:
    async def body() -> None:
        with FaultProxy(nats_server.port) as proxy:
            driver = await dial(nats_server, f"nats://{proxy.address}?topic={nats_server.unique()}")
            assert await driver.send("first", Deadline(5))
            proxy.stall("up")
            deadline = Deadline(20)
            while await driver.send(b"x" * (1 << 20), Deadline(0.1)):
                assert not deadline.expired()
            started = time.monotonic()
            assert await driver.send(b"more", Deadline(0.2)) == 0
            assert 0.15 < time.monotonic() - started < 0.5
            started = time.monotonic()
            await driver.close()
            assert time.monotonic() - started < 1.5

    run(body())


# questions


def test_questions(run: Run, nats_server: Nats) -> None:
    name = nats_server.unique()

    async def body() -> None:
        with NatsSide(f"nats://{nats_server.address}") as side:
            await asyncio.to_thread(side.answer, f"{name}.service")
            await asyncio.to_thread(side.watch, f"{name}.mute")
            driver = await dial(nats_server, f"write_topic={name}.service")
            answers = await asyncio.gather(
                *(driver.request(f"{n}", Deadline(5)) for n in range(50))
            )
            assert [a.data for a in answers] == [b"answer to %d" % n for n in range(50)]
            assert answers[0].headers == {"kind": "answer"}
            await driver.close()
            mute = await dial(nats_server, f"write_topic={name}.mute")
            with pytest.raises(TimeoutError, match=f"no answer from {name}.mute"):
                await mute.request("?", Deadline(0.1))
            await mute.close()
        nobody = await dial(nats_server, f"write_topic={name}.nobody")
        with pytest.raises(RefusedError, match="nobody answers") as caught:
            await nobody.request("?", Deadline(5))
        assert caught.value.code == 503
        await nobody.close()

    run(body())


def test_a_question_ends_with_the_link(run: Run, nats_server: Nats) -> None:
    async def body() -> None:
        with (
            FaultProxy(nats_server.port) as proxy,
            NatsSide(f"nats://{nats_server.address}") as side,
        ):
            subject = nats_server.unique()
            await asyncio.to_thread(side.watch, subject)
            driver = await dial(nats_server, f"nats://{proxy.address}?write_topic={subject}")
            asking = asyncio.create_task(driver.request("?", Deadline(20)))
            await eventually(lambda: side.seen[subject])
            proxy.reset()
            with pytest.raises(ConnectionError, match="may have arrived"):
                async with asyncio.timeout(5):
                    await asking
            await driver.close()

    run(body())


# logins


def test_every_login(run: Run, start_nats: Start, tmp_path: Path) -> None:
    seed = tmp_path / "user.nk"
    seed.write_text(f"{NKEY_SEED}\n")
    accounts = make_accounts()
    creds = tmp_path / "user.creds"
    creds.write_text(accounts.creds)
    by_token, by_name = start_nats(token="admin"), start_nats(users={"u": "p@:/", "empty": ""})
    by_key, by_creds = start_nats(nkey=True), start_nats(config=accounts.config)
    good = [
        f"nats://admin@{by_token.address}?topic=a",
        f"nats://{by_token.address}?topic=a&token=admin",
        f"nats://u:p%40%3A%2F@{by_name.address}?topic=a",
        f"nats://empty:@{by_name.address}?topic=a",
        f"nats://{by_key.address}?topic=a&nkey={seed}",
        f"nats://{by_key.address}?topic=a&nkey={NKEY_SEED}",
        f"nats://{by_creds.address}?topic=a&creds={creds}",
    ]
    bad = [
        f"nats://s3cret@{by_token.address}?topic=a",
        f"nats://{by_token.address}?topic=a",
        f"nats://u:s3cret@{by_name.address}?topic=a",
        f"nats://{by_key.address}?topic=a&token=s3cret",
        f"nats://{by_creds.address}?topic=a",
    ]

    async def body() -> None:
        for url in good:
            sink = Sink()
            driver = await dial(by_token, url, sink)
            await driver.send("in", Deadline(5))
            assert await sink.wait_received(1) == [b"in"], url
            await driver.close()
        for url in bad:
            error = await refusal(url)
            assert isinstance(error, FatalError), url
            assert "refused the login" in str(error)
            assert "s3cret" not in str(error)

    run(body())


@pytest.mark.parametrize("name", ["creds", "nkey"])
def test_files_that_are_no_logins(run: Run, name: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text(
        "-----BEGIN NATS USER JWT-----\nx\n-----BEGIN USER NKEY SEED-----\nSUSECRETBROKEN\n"
    )

    async def body() -> None:
        for file, word in (
            (tmp_path / "none", "cannot be read"),
            (tmp_path, "cannot be read"),
            (broken, "seed"),
        ):
            error = await refusal(f"nats://127.0.0.1:1?topic=a&{name}={file}")
            assert isinstance(error, FatalError)
            assert word in str(error)
            assert "SUSECRETBROKEN" not in str(error)

    run(body())


def test_a_login_that_is_taken_away(run: Run, start_nats: Start) -> None:
    server = start_nats(users={"u": "p", "other": "q"})

    async def body() -> None:
        sink = Sink()
        driver = await dial(server, f"nats://u:p@{server.address}?topic=a", sink)
        server.set_users({"other": "q"})
        await sink.wait_lost()  # this server says nothing of why; the next attempt is told
        await driver.close()
        assert isinstance(await refusal(f"nats://u:p@{server.address}?topic=a"), FatalError)

    run(body())


def test_what_may_not_be_read_or_written(run: Run, start_nats: Start) -> None:
    server = start_nats(jetstream=True, config=PERMISSIONS)
    base = f"nats://u:p@{server.address}"

    async def body() -> None:
        error = await refusal(f"{base}?topic=open,secret.a")
        assert isinstance(error, FatalError)
        assert "does not allow to subscribe to secret.a" in str(error)
        sink = Sink()
        driver = await dial(server, f"{base}?topic=open&write_topic=closed", sink)
        for _ in range(2):
            with pytest.raises(RefusedError, match="does not allow to publish to closed"):
                await driver.send("x", Deadline(5))
            with pytest.raises(RefusedError, match="does not allow to publish to closed"):
                await driver.request("x", Deadline(5))
        assert sink.losses == []
        assert "closed" in sink.warnings[0]
        await driver.close()
        error = await refusal(f"{base}?topic=open&stream=S")
        assert isinstance(error, FatalError)
        assert "does not allow to publish to $js.api" in str(error)

    run(body())


# TLS, proxies, several servers


def test_tls(run: Run, start_nats: Start, certs: Certs) -> None:
    server, strict, plain = start_nats(tls=True), start_nats(verify=True), start_nats()

    async def body() -> None:
        for scheme in (
            "nats",
            "tls+nats",
        ):  # nats:// too: the server asks for TLS in its first word
            sink = Sink()
            driver = await dial(
                server, f"{scheme}://{server.address}?topic=a", sink, cafile=str(certs.ca)
            )
            await driver.send("safe", Deadline(5))
            assert await sink.wait_received(1) == [b"safe"]
            await driver.close()
            error = await refusal(f"{scheme}://{server.address}?topic=a")
            assert isinstance(error, FatalError)
            assert "not trusted" in str(error)
        driver = await dial(server, f"tls+nats://{server.address}?topic=a", insecureSkipVerify=True)
        await driver.close()
        both = {
            "certfile": str(certs.client.cert),
            "keyfile": str(certs.client.key),
            "cafile": str(certs.ca),
        }
        driver = await dial(strict, f"tls+nats://{strict.address}?topic=a", **both)
        await driver.close()
        error = await refusal(f"tls+nats://{strict.address}?topic=a", cafile=str(certs.ca))
        assert "certfile" in str(error)
        error = await refusal(f"tls+nats://secret@{plain.address}?topic=a")
        assert isinstance(error, FatalError)
        assert "does not ask for TLS" in str(error)

    run(body())


def test_nothing_is_said_in_the_clear_with_tls_nats(run: Run) -> None:
    async def body() -> None:
        with SocketServer(
            say(b'INFO {"server_id":"x","version":"2.9.0","max_payload":1000}\r\n')
        ) as server:
            error = await refusal(f"tls+nats://secret:pass@127.0.0.1:{server.port}?topic=a")
            assert "does not ask for TLS" in str(error)
            assert b"".join(peer.received for peer in server.peers) == b""

    run(body())


def test_through_proxies_and_from_an_address_of_ours(run: Run, nats_server: Nats) -> None:
    async def body() -> None:
        with Microsocks("u", "p") as socks, HttpProxy() as http:
            for proxy in (f"socks5://u:p@{socks.address}", f"http://127.0.0.1:{http.port}"):
                sink = Sink()
                driver = await dial(nats_server, f"topic={nats_server.unique()}", sink, proxy=proxy)
                await driver.send("through", Deadline(5))
                assert await sink.wait_received(1) == [b"through"]
                await driver.close()
            url = f"nats://{nats_server.address}?topic=a"
            assert "refused the user" in str(
                await refusal(url, proxy=f"socks5://u:no@{socks.address}")
            )
        driver = await dial(nats_server, "topic=a", local_ip="127.0.0.1")
        await driver.close()
        assert "local_ip" in str(await refusal(url, local_ip="192.0.2.1"))

    run(body())


def test_the_first_of_several_servers_that_can_be_had(run: Run, start_nats: Start) -> None:
    closed, open_one = start_nats(users={"u": "p"}), start_nats(users={"v": "q"})

    async def body() -> None:
        with unused_port() as port, SocketServer(deaf) as silent:
            hosts = f"127.0.0.1:{port},u:wrong@{closed.address},127.0.0.1:{silent.port},v:q@{open_one.address}"
            driver = await dial(open_one, f"nats://{hosts}?topic=a", seconds=2)
            assert driver.peer == open_one.address
            await driver.close()
            error = await refusal(f"nats://u:p@127.0.0.1:{port},u:wrong@{closed.address}?topic=a")
            assert not isinstance(error, FatalError)  # the first one may come back
            assert "refused the connection" in str(error)
            assert "refused the login" in str(error)

    run(body())


# what is no NATS server, and ends of every kind


def test_what_is_no_nats_server(run: Run) -> None:
    async def body() -> None:
        with unused_port() as port:
            assert "refused the connection" in str(
                await refusal(f"nats://127.0.0.1:{port}?topic=a")
            )
        with SocketServer(deaf) as server:
            error = await refusal(f"nats://127.0.0.1:{server.port}?topic=a", 0.3)
            assert isinstance(error, DialTimeout)
            assert "did not answer as a NATS server" in str(error)
        for words in (b"SSH-2.0-OpenSSH_9.2\r\n", b"INFO {no json\r\n", b"\x00" * 100 + b"\n"):
            with SocketServer(say(words)) as server:
                error = await refusal(f"nats://127.0.0.1:{server.port}?topic=a")
                assert isinstance(error, FatalError)
                assert "does not speak NATS" in str(error)
        with SocketServer(lambda peer: None) as server:
            error = await refusal(f"nats://127.0.0.1:{server.port}?topic=a")
            assert not isinstance(error, FatalError)
            assert "closed the connection at once" in str(error)

    run(body())


def test_a_frozen_server(run: Run, start_nats: Start) -> None:
    server = start_nats()

    async def body() -> None:
        sink = Sink()
        driver = await dial(server, "topic=a", sink, pingInterval=300)
        server.freeze()
        try:
            async with watched(driver, sink):
                reason = await sink.wait_lost()
            assert isinstance(reason, TimeoutError)
            assert "nothing came from the peer" in str(reason)
            started = time.monotonic()
            await driver.close()
            assert time.monotonic() - started < 1.5
            assert isinstance(await refusal(f"nats://{server.address}?topic=a", 0.3), DialTimeout)
        finally:
            server.thaw()

    run(body())


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_server_that_ends(run: Run, start_nats: Start, how: str) -> None:
    server = start_nats()

    async def body() -> None:
        sink = Sink()
        driver = await dial(server, "topic=a", sink)
        await asyncio.to_thread(getattr(server, how))
        await sink.wait_lost()
        with pytest.raises(ConnectionError):
            await driver.send("late", Deadline(1))
        await driver.close()
        assert len(sink.losses) == 1

    run(body())


def test_a_reader_too_slow_for_the_server_loses_the_link(run: Run, start_nats: Start) -> None:
    server = start_nats(config="max_pending: 1MB, write_deadline: 2s")

    async def body() -> None:
        sink = Sink()
        driver = await dial(server, "topic=a", sink)

        def flood() -> None:
            with NatsSide(f"nats://{server.address}") as side:
                side.publish("a", *[b"x" * 100_000] * 400)

        Background(flood).result()  # this loop is busy with something else meanwhile
        await sink.wait_lost()
        await driver.close()

    run(body())


def test_a_server_that_says_goodbye_is_told_of(run: Run, start_nats: Start) -> None:
    server = start_nats(config='lame_duck_grace_period: "1s", lame_duck_duration: "30s"')

    async def body() -> None:
        sink = Sink()
        driver = await dial(server, "topic=a", sink)
        server._signal(signal.SIGUSR2)
        await sink.until(lambda: sink.warnings)
        assert "lame duck" in sink.warnings[0]
        await driver.close()

    run(body())


# the plan


@pytest.mark.parametrize(
    ("target", "word"),
    [
        ("topic=a..b", "no subject"),
        ("topic=>.a", "no subject"),
        ("topic=a&write_topic=a.*", "wildcards"),
        ("topic=a&durable=d", "stream="),
        ("topic=a&deliver=all", "stream="),
        ("topic=a&ack_wait=5", "stream="),
        ("topic=a&max_ack_pending=5", "stream="),
        ("topic=a,b&stream=S", "one topic"),
        ("stream=a.b", "no name"),
        ("stream=S&durable=a.b", "no name"),
        ("stream=S&queue=a*", "no name"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_connected(
    run: Run, target: str, word: str
) -> None:
    async def body() -> None:
        error = await refusal(f"nats://127.0.0.1:1?{target}")
        assert isinstance(error, FatalError)
        assert word in str(error)

    run(body())


def test_headers_that_nats_does_not_take(run: Run) -> None:
    async def body() -> None:
        for headers in ({"a b": "c"}, {"a": "b\r\nc"}):
            address = parse_address("nats://127.0.0.1:1?topic=a")
            address.options["headers"] = headers
            with pytest.raises(FatalError, match="headers"):
                await NatsDriver(address, Sink()).open(Deadline(1))

    run(body())


def test_the_plan_shows_no_secret_and_subjects_are_known(run: Run) -> None:
    plan = plan_of(parse_address("nats://u:s3cret@h?topic=a"))
    assert "s3cret" not in repr(plan)
    assert plan.logins == ({"name": "trunkline", "user": "u", "password": "s3cret"},)
    assert is_subject("a.b-c", pattern=False)
    assert is_subject("a.*.>", pattern=True)
    assert not is_subject("a.*", pattern=False)
    assert not is_subject("", pattern=True)
    for pattern, subject, expected in (
        ("a.b", "a.b", True),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        ("*.>", "a", False),
        ("b.>", "a.b", False),
    ):
        assert matches(pattern, subject) is expected, (pattern, subject)
    assert NatsDriver.overflow_for(parse_address("nats://h?topic=a")) is Overflow.DROP_OLDEST
    assert NatsDriver.overflow_for(parse_address("nats://h?stream=a")) is Overflow.BACK_PRESSURE
    assert NatsDriver.redelivers(parse_address("nats://h?stream=a&durable=d"))
    assert not NatsDriver.redelivers(parse_address("nats://h?stream=a"))


def test_nats_py_still_takes_a_transport_of_ours(run: Run, nats_server: Nats) -> None:
    """`Client._transport` and `_send_ping` are private: when an update breaks this, `_attempt` and `ping`
    need another way."""

    async def body() -> None:
        driver = await dial(nats_server, "topic=a")
        client = driver._client
        assert isinstance(client, nats.aio.client.Client)
        assert isinstance(client._transport, LinkTransport)
        assert client._transport.writable
        await driver.ping()
        assert len(client._pongs) == 1
        await driver.close()

    run(body())


def test_reading_goes_on_when_the_servers_word_about_the_first_write_is_late(
    run: Run, nats_server: Nats
) -> None:
    """nats-py ends its reading, without a word, at the answer to a PING that nobody waits for any more."""

    async def body() -> None:
        with FaultProxy(nats_server.port) as proxy:
            sink = Sink()
            driver = await dial(
                nats_server, f"nats://{proxy.address}?topic={nats_server.unique()}", sink
            )
            proxy.stall("down")
            assert await driver.send("early", Deadline(0.1)) == 5
            proxy.heal()
            await sink.wait_received(1)
            assert await driver.send("late", Deadline(5)) == 4
            assert await sink.wait_received(2) == [b"early", b"late"]
            await driver.close()

    run(body())
