"""redis and rediss through Dial: what a strategy sees, with real servers, faults and wrong input."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator

import pytest
import redis

from tests.servers.redis import Redis
from tests.support.certs import Certs
from tests.support.programs import Program
from tests.support.redis_side import RedisSide
from tests.support.sockets import SocketServer, say, unused_port
from tests.support.waiting import until
from trunkline import Connection, Dial, Message, connect, last_error
from trunkline.errors import RefusedError
from trunkline.testing.faultproxy import FaultProxy

Start = Callable[..., Redis]


def dial(address: str, **options: object) -> Connection:
    conn = Dial(address, options)
    assert conn is not None, last_error()
    return conn


def message_of(conn: Connection, ms: int = 10_000, **how: bool) -> Message:
    message = conn.receive(ms, **how)
    assert isinstance(message, Message), (message, conn.stats())
    return message


@pytest.fixture
def side(redis_server: Redis) -> Iterator[RedisSide]:
    with RedisSide(redis_server.port) as made:
        yield made


@pytest.fixture
def name(redis_server: Redis) -> str:
    return redis_server.unique("r")


# channels


def test_several_channels_and_patterns_bring_each_message_once(
    redis_server: Redis, side: RedisSide, name: str
) -> None:
    address = f"redis://{redis_server.address}?channel={name}.a,{name}.b&pattern={name}.*&pattern={name}.[a-c]"
    with dial(address) as conn:
        for channel in "abc":
            side.publish(f"{name}.{channel}", f"to {channel}")
        found = [message_of(conn) for _ in range(3)]
        assert [(each.topic, each.data) for each in found] == [
            (f"{name}.{c}", f"to {c}") for c in "abc"
        ]
        assert conn.read(-1) is None
        side.publish(f"{name}.a", "last")
        assert conn.read(10_000) == "last"


def test_a_message_may_have_a_channel_of_its_own(
    redis_server: Redis, side: RedisSide, name: str
) -> None:
    side.watch(f"{name}.other")
    with connect(f"redis://{redis_server.address}?channel={name}") as conn:
        assert conn.write("to itself") == 9
        assert conn.read(10_000) == "to itself"
        conn.write("to the other", topic=f"{name}.other")
        until(lambda: side.seen[f"{name}.other"] == [b"to the other"], "the message")
        with pytest.raises(RefusedError, match="no headers"):
            conn.write("x", headers={"a": "b"})


def test_binary_payloads_and_a_large_one(redis_server: Redis, side: RedisSide, name: str) -> None:
    large = bytes(range(256)) * 40_960  # 10 MB
    with dial(f"redis://{redis_server.address}?channel={name}", decode="bytes") as conn:
        side.publish(name, b"\x00\r\n\xff")
        assert conn.read(10_000) == b"\x00\r\n\xff"
        assert conn.write(large) == len(large)
        assert conn.read(20_000) == large
    with dial(f"redis://{redis_server.address}?stream={name}.s&write_stream={name}.s") as conn:
        assert conn.write(large) == len(large)
        assert conn.read(20_000) == large


# streams


def test_headers_are_fields_and_the_rest_is_told(
    redis_server: Redis, side: RedisSide, name: str
) -> None:
    with dial(
        f"redis://{redis_server.address}?stream={name}&start=all", headers={"desk": "a"}
    ) as conn:
        conn.write("one")
        conn.write("two", headers={"side": "buy", "raw": b"\xff"})
        first, second = message_of(conn), message_of(conn)
        (number, fields), _ = side.entries(name)
        assert fields == {b"desk": b"a", b"data": b"one"}
        assert (first.data, first.topic, first.headers) == ("one", name, {"desk": "a"})
        assert first.properties == {"id": number}
        assert first.timestamp == int(number.split("-")[0]) / 1000
        assert second.headers == {"side": "buy", "raw": b"\xff"}
        side.client.xadd(name, {"price": "1.5"})
        side.client.xadd(name, {"bid": "1", "ask": "2"})
        assert conn.read(10_000) == "1.5"
        assert conn.read(10_000) == '{"bid": "1", "ask": "2"}'


def test_several_streams_start_and_maxlen(redis_server: Redis, side: RedisSide, name: str) -> None:
    a, b = f"{name}.a", f"{name}.b"
    first, *_ = side.add(a, "a0", "a1")
    side.add(b, "b0")
    with dial(f"redis://{redis_server.address}?stream={a},{b}") as conn:
        side.add(b, "b1")
        assert message_of(conn).data == "b1"
    with dial(f"redis://{redis_server.address}?stream={a}&start={first}&maxlen=100") as conn:
        assert conn.read(10_000) == "a1"
        for number in range(400):
            conn.write(str(number), topic=b)
        assert int(side.client.xlen(b)) < 400


def test_a_group_acknowledges_what_was_read(
    redis_server: Redis, side: RedisSide, name: str
) -> None:
    side.add(name, *map(str, range(10)))
    address = f"redis://{redis_server.address}?stream={name}&group=g"
    with dial(address) as conn:
        assert [conn.read(10_000) for _ in range(4)] == ["0", "1", "2", "3"]
        assert conn.read(-1) == "4"
        until(lambda: side.pending(name, "g") == 5, "the acknowledgements")
        until(lambda: conn.stats().lag == 5, "the lag")
    # closed: what nobody has read is there for the next consumer at once
    with dial(address) as other:
        found = [message_of(other) for _ in range(5)]
        assert [each.data for each in found] == list("56789")
        assert all(each.redelivered for each in found)
        until(lambda: side.pending(name, "g") == 0, "the acknowledgements")
        assert other.read(-1) is None
    assert side.client.xinfo_consumers(name, "g") == [] or side.pending(name, "g") == 0


def test_acknowledging_after_the_work(redis_server: Redis, side: RedisSide, name: str) -> None:
    side.add(name, "a", "b")
    with dial(f"redis://{redis_server.address}?stream={name}&group=g&claim_idle=300") as conn:
        first, second = message_of(conn, ack=False), message_of(conn, ack=False)
        with dial(f"redis://{redis_server.address}?stream={name}&group=g&claim_idle=300") as other:
            # it waits for its work to be done, and the server is told so
            assert other.read(1000) is None
        first.ack()
        until(lambda: side.pending(name, "g") == 1, "the acknowledgement")
        second.nak()
        assert message_of(conn).data == "b"
        until(lambda: side.pending(name, "g") == 0, "the acknowledgement")


def test_a_killed_program_gives_back_what_it_has_not_acknowledged(
    redis_server: Redis, side: RedisSide, name: str
) -> None:
    side.add(name, *map(str, range(20)))
    address = f"redis://{redis_server.address}?stream={name}&group=g&claim_idle=500"
    code = "c = connect(args[0]); c.read(); m = c.receive(ack=False); "
    code += "say('pid', c.stats().pid); threading.Event().wait()"
    with Program(code, address) as program:
        pid = int(program.wait_line("pid"))
        os.kill(program.pid, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
    with dial(address) as conn:
        found: dict[str, Message] = {}
        while not found.keys() >= set(
            map(str, range(1, 20))
        ):  # whether "0" was acknowledged is open
            message = message_of(conn, 20_000)
            found[str(message.data)] = message
        assert found["1"].redelivered
        while conn.read(1000):
            pass
        until(lambda: side.pending(name, "g") == 0, "the acknowledgements")


def test_a_killed_worker_loses_nothing_of_a_group(
    redis_server: Redis, side: RedisSide, name: str
) -> None:
    with dial(f"redis://{redis_server.address}?stream={name}&group=g", interval=20) as conn:
        side.add(name, *map(str, range(50)))
        got = [conn.read(10_000) for _ in range(10)]
        os.kill(conn.stats().pid, signal.SIGKILL)
        while len(set(got)) < 50:
            if message := conn.read(20_000):
                got.append(message)
        assert set(got) == set(map(str, range(50)))

        def acknowledged() -> bool:
            conn.read(100)  # what was read and not acknowledged comes again, behind the ""
            return side.pending(name, "g") == 0

        until(acknowledged, "the acknowledgements", 20)


@pytest.mark.parametrize("group", ["", "&group=g"])
def test_a_broken_link_neither_loses_nor_doubles(
    redis_server: Redis, side: RedisSide, name: str, group: str
) -> None:
    with (
        FaultProxy(redis_server.port) as proxy,
        dial(f"redis://{proxy.address}?stream={name}{group}", interval=20) as conn,
    ):
        proxy.wait_live(2)
        got: list[object] = []
        for turn in range(3):
            side.add(name, *(str(turn * 10 + n) for n in range(10)))
            until(lambda turn=turn: conn.stats().messages_in >= turn * 10 + 10, "the arrival")
            got += [conn.read(10_000) for _ in range(5)]
            proxy.cut()
            until(lambda turn=turn: conn.stats().reconnects == turn + 1, "the next link")
        while len(got) < 30 + got.count(""):
            got.append(conn.read(10_000))
        assert [each for each in got if each != ""] == list(map(str, range(30)))
        until(lambda: conn.read(-1) is None, "the end of the outages")
        if group:
            until(lambda: side.pending(name, "g") == 0, "the acknowledgements")


def test_entries_that_were_trimmed_unread_are_counted(
    redis_server: Redis, side: RedisSide, name: str
) -> None:
    with dial(f"redis://{redis_server.address}?stream={name}&start=all", buffer=10) as conn:
        side.add(name, *map(str, range(40)))
        # no more is asked for while there is room for few
        until(lambda: conn.stats().buffered >= 8, "a full buffer", 20)
        held = conn.stats().buffered
        side.client.xtrim(name, maxlen=5, approximate=False)
        got = [conn.read(10_000) for _ in range(held + 5)]
        assert got == list(map(str, [*range(held), *range(35, 40)]))
        until(lambda: conn.stats().dropped == 35 - held, "the figure", 20)


# servers that go, and their answers


def test_a_killed_server_is_dialled_again(start_redis: Start) -> None:
    server = start_redis(persistence=True)
    with (
        RedisSide(server.port) as side,
        dial(f"redis://{server.address}?stream=s&group=g", interval=20, maxInterval=200) as conn,
    ):
        conn.write("before")
        assert conn.read(10_000) == "before"
        server.kill()
        until(lambda: conn.stats().state == "down", "the loss")
        assert conn.read(10_000) == ""
        assert conn.write("lost") == 0
        server.start()
        until(lambda: conn.stats().state == "open", "the next link")
        side.add("s", "after")
        assert conn.read(10_000) == "after"


def test_a_server_that_forgot_its_data_is_read_from_its_beginning(
    start_redis: Start, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_redis()
    for where in ("stream=s&group=g", "stream=t"):
        with dial(f"redis://{server.address}?{where}", interval=20, maxInterval=200) as conn:
            conn.write("before")
            assert conn.read(10_000) == "before"
            server.restart()
            until(
                lambda conn=conn: conn.stats().state == "open" and conn.stats().reconnects == 1,
                "the link",
            )
            assert conn.write("after") == 5
            until(lambda conn=conn: conn.read(10_000) == "after", "the message")


def test_a_frozen_server_is_noticed(start_redis: Start) -> None:
    server = start_redis()
    for where in ("channel=c", "stream=s", "stream=s&group=g"):
        address = f"redis://{server.address}?{where}"
        with dial(address, pingInterval=300, pingTimeout=600, reconnect=False) as conn:
            assert conn.read(1500) is None  # the signs of life come
            assert conn.stats().state == "open"
            server.freeze()
            until(lambda conn=conn: conn.stats().state == "lost", "the loss", 20)
            server.thaw()


def test_logins(start_redis: Start) -> None:
    server = start_redis(users={"u": "on >pa55wörd allkeys allchannels +@all", "default": "off"})
    with dial(f"redis://u:pa55w%C3%B6rd@{server.address}?channel=c") as conn:
        conn.write("x")
        assert conn.read(10_000) == "x"
        assert "pa55" not in f"{conn!r} {conn.stats()}"
    for account, words in (
        ("u:hunter2@", "refused the login"),
        ("", "wants a login"),
    ):
        assert Dial(f"redis://{account}{server.address}?channel=c") is None
        assert words in str(last_error())
        assert "hunter2" not in str(last_error())
    open_server = start_redis()
    assert Dial(f"redis://:hunter2@{open_server.address}?channel=c") is None
    assert "has no password" in str(last_error())
    assert Dial(f"redis://{open_server.address}/99?channel=c") is None
    assert "no database of that number" in str(last_error())


def test_rights_are_told(start_redis: Start) -> None:
    rules = "on >p ~s* &c* +@all -xadd -xgroup -publish"
    server = start_redis(users={"u": rules})
    assert Dial(f"redis://u:p@{server.address}?channel=other") is None
    assert "does not allow to subscribe to other" in str(last_error())
    assert Dial(f"redis://u:p@{server.address}?stream=s&group=g") is None
    assert "read stream s" in str(last_error())
    with connect(f"redis://u:p@{server.address}?write_stream=s") as conn:
        with pytest.raises(RefusedError, match="does not allow to write to stream s"):
            conn.write("x")
        assert conn.stats().state == "open"


def test_tls_and_its_failures(redis_server: Redis, certs: Certs, name: str) -> None:
    port = redis_server.ports["tls"]
    with dial(f"tls+redis://127.0.0.1:{port}?channel={name}", cafile=str(certs.ca)) as conn:
        conn.write("x")
        assert conn.read(10_000) == "x"
    assert Dial(f"rediss://127.0.0.1:{port}?channel={name}") is None
    assert "is not trusted" in str(last_error())
    assert (
        Dial(f"rediss://127.0.0.1:{port}?channel={name}|cafile={certs.ca}&servername=other.host")
        is None
    )
    assert "another host" in str(last_error())
    assert Dial(f"redis://127.0.0.1:{port}?channel={name}") is None
    assert "rediss://" in str(last_error())
    assert Dial(f"rediss://{redis_server.address}?channel={name}|cafile={certs.ca}") is None
    assert "TLS" in str(last_error())


def test_who_is_no_redis() -> None:
    with unused_port() as port:
        assert Dial(f"redis://127.0.0.1:{port}?channel=c") is None
        assert "refused the connection" in str(last_error())
    assert Dial("redis://no.such.host.invalid?channel=c") is None
    assert "no.such.host.invalid" in str(last_error())
    server = SocketServer(say(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    assert Dial(f"redis://{server.url.removeprefix('tcp://')}?channel=c") is None
    assert "does not speak Redis" in str(last_error())
    server.close()


def test_a_key_of_another_type(redis_server: Redis, side: RedisSide, name: str) -> None:
    side.client.set(name, "text")
    assert Dial(f"redis://{redis_server.address}?stream={name}") is None
    assert "something other than a stream" in str(last_error())
    assert Dial(f"redis://{redis_server.address}?stream={name}&group=g") is None
    with (
        connect(f"redis://{redis_server.address}?write_stream={name}") as conn,
        pytest.raises(RefusedError, match="something other than a stream"),
    ):
        conn.write("x")


def test_a_replica_and_its_primary(start_redis: Start) -> None:
    primary = start_redis()
    replica = start_redis(config=f"replicaof 127.0.0.1 {primary.port}")
    with RedisSide(replica.port) as side:
        until(
            lambda: side.client.info("replication")["master_link_status"] == "up", "the replica", 30
        )
        assert Dial(f"redis://{replica.address}?write_stream=s") is None
        assert "is a replica" in str(last_error())
        # the next server of the address is the primary
        with dial(f"redis://{replica.address},{primary.address}?stream=s&group=g") as conn:
            assert conn.write("x") == 1
            assert conn.read(10_000) == "x"
        with connect(f"redis://{primary.address}?write_stream=s", reconnect=False) as conn:
            conn.write("y")
            with RedisSide(primary.port) as other:
                other.client.execute_command("REPLICAOF", "127.0.0.1", replica.port)
            with pytest.raises(RefusedError, match="is a replica"):
                conn.write("z")


def test_a_node_of_a_cluster(start_redis: Start) -> None:
    server = start_redis(config="cluster-enabled yes")
    assert Dial(f"redis://{server.address}?stream=s") is None
    assert "cluster" in str(last_error())
    with RedisSide(server.port) as side:
        side.client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        until(lambda: side.client.cluster("INFO")["cluster_state"] == "ok", "the cluster", 20)
        with dial(f"redis://{server.address}?stream=s&group=g") as conn:
            conn.write("x")
            assert conn.read(10_000) == "x"


def test_memory_that_is_full(start_redis: Start) -> None:
    server = start_redis(config="maxmemory 3mb\nmaxmemory-policy noeviction")
    with connect(f"redis://{server.address}?write_stream=s") as conn:
        with RedisSide(server.port) as side, contextlib.suppress(redis.ResponseError):
            while True:
                side.add("other", "x" * 100_000)
        with pytest.raises(RefusedError, match="no memory left"):
            conn.write(b"x" * 500_000)
        assert conn.stats().state == "open"


def test_a_deleted_group_ends_the_connection(
    redis_server: Redis, side: RedisSide, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="trunkline")
    side.add(name, "a")
    with dial(f"redis://{redis_server.address}?stream={name}&group=g", reconnect=False) as conn:
        assert conn.read(10_000) == "a"
        side.client.xgroup_destroy(name, "g")
        until(lambda: conn.stats().state == "lost", "the loss", 20)
        texts = [record.getMessage() for record in caplog.records]
        assert any("group g of stream" in text for text in texts), texts


def test_messages_that_are_too_long_are_counted(
    redis_server: Redis, side: RedisSide, name: str
) -> None:
    for where in (f"channel={name}", f"stream={name}.s&group=g"):
        with dial(f"redis://{redis_server.address}?{where}", max_size=100) as conn:
            send = side.publish if "channel" in where else side.add
            send(name if "channel" in where else f"{name}.s", "x" * 200, "short")
            assert conn.read(10_000) == "short"
            assert conn.stats().dropped == 1
    until(lambda: side.pending(f"{name}.s", "g") == 0, "the acknowledgements")
