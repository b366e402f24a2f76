"""What a peer is told at the end of a connection: closed by the program, or left by one that died."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import weakref
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from tests.servers.mosquitto import Mosquitto
from tests.support.certs import Certs
from tests.support.mqtt_side import MqttSide
from tests.support.programs import Program
from tests.support.servers import WsServer
from tests.support.sockets import Peer, SocketServer, deaf
from tests.support.waiting import until
from trunkline import Dial, connect, last_error
from trunkline.proxy.dialogue import Dialogue

OPEN = (
    "conn = Dial(args[0])\n"
    "assert conn is not None, trunkline.last_error()\n"
    "say('open')\n"
    "sys.stdin.readline()\n"
)
DEATHS = {
    "kill": "",
    "term": "",
    "error": "raise RuntimeError\n",
    "end": "",
    "exit": "os._exit(3)\n",
    "closed in a child": (
        "pid = os.fork()\nif not pid: conn.close(); os._exit(0)\nos.waitpid(pid, 0)\nos._exit(0)\n"
    ),
    "collected": "del conn\nsys.stdin.readline()\n",
}
GOOD_ENDS = {
    "close": "conn.close()\n",
    "close, then exit": "conn.close(); os._exit(0)\n",
    "close, then killed": "conn.close(); os.kill(os.getpid(), signal.SIGKILL)\n",
    "with, then killed": "\nwith conn: conn.write('x')\nos.kill(os.getpid(), signal.SIGKILL)\n",
    "close while another thread reads": (
        "reader = threading.Thread(target=conn.read, daemon=True)\nreader.start()\n"
        "threading.Event().wait(0.3)\nconn.close(); os._exit(0)\n"
    ),
    "with": "with conn: pass\n",
    "shutdown": "trunkline.shutdown()\n",
}


def test_the_will_is_published_unless_the_program_closed(mosquitto: Mosquitto) -> None:
    """By each way that a program ends, with MQTT 3.1.1 and 5, with a broker process of its own and with one
    that others use too."""
    base = mosquitto.unique()
    ways = {**DEATHS, **GOOD_ENDS}
    cases = [(way, "3.1.1", "shared") for way in ways]
    cases += [(way, "5", "own") for way in ("kill", "end", "close", "close, then exit")]
    shared = Dial(
        f"mqtt://127.0.0.1:{mosquitto.port}?write_topic=x"
    )  # puts the broker's address into ours
    assert shared is not None, last_error()
    with MqttSide(mosquitto.port) as side, ExitStack() as stack:
        side.watch(f"{base}/#")
        side.watch("the end")
        programs: dict[str, tuple[str, Program]] = {}
        for way, version, broker in cases:
            topic = f"{base}/{way}/{version}".replace(" ", "-").replace(",", "")
            address = (
                f"mqtt://127.0.0.1:{mosquitto.port}?topic=in/{topic}&qos=1&version={version}"
                f"&client_id={topic}&will_topic={topic}&will_payload=gone"
            )
            env = {} if broker == "shared" else {"TRUNKLINE_BROKER": ""}
            programs[topic] = way, stack.enter_context(Program(OPEN + ways[way], address, env=env))
        for way, program in programs.values():
            program.wait_line("open", 60)
            if way in ("kill", "term"):
                os.kill(program.pid, signal.SIGKILL if way == "kill" else signal.SIGTERM)
            else:
                program.tell()
        wanted = {topic for topic, (way, _) in programs.items() if way in DEATHS}
        with suppress(AssertionError):
            until(lambda: wanted <= set(side.seen), "the wills", seconds=60)
        assert wanted <= set(side.seen), f"no will of {wanted - set(side.seen)}"
        for way, program in programs.values():
            if way == "collected":  # its process lives on until now
                program.tell()
            program.process.wait(30)
        closed = set(programs) - wanted

        def not_ended() -> set[str]:
            said = mosquitto.log  # long, for other tests use the server too
            return {topic for topic in closed if f"Client {topic} disconnected." not in said}

        with suppress(AssertionError):
            until(lambda: not not_ended(), "the good ends", seconds=60)
        if missed := not_ended():
            said = [
                line
                for line in mosquitto.log.splitlines()
                if any(topic in line for topic in missed)
            ]
            raise AssertionError(f"no DISCONNECT of {missed}; {side.seen.keys() - wanted}, {said}")
        side.publish("the end", "")
        until(lambda: side.seen["the end"], "what came after the ends")
        assert set(side.seen) - {"the end"} == wanted
        assert all(side.seen[topic] == [b"gone"] for topic in wanted)
    shared.close()


def test_an_object_that_is_dropped_after_a_while_ends_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever looks after objects now and then (each second) must not keep them."""
    ended = threading.Event()
    looks: list[object] = []

    def handler(peer: Peer) -> None:
        while peer.read():
            pass
        ended.set()

    with SocketServer(handler) as server:
        conn = Dial(server.url)
        assert conn is not None, last_error()
        monkeypatch.setattr(
            Dialogue, "acknowledge_when_idle", lambda _, control: looks.append(control)
        )
        until(lambda: len(looks) >= 2, "two looks")
        dropped = weakref.ref(conn)
        del conn
        gc.collect()
        assert dropped() is None
        assert ended.wait(30)


def test_a_dropped_object_is_gone_at_once_with_its_parts() -> None:
    """No part keeps another one that refers to it: without the garbage collector, too, the sockets close."""
    with SocketServer(deaf) as server:
        conn = Dial(server.url)
        assert conn is not None, last_error()
        assert conn.read(-1) is None
        dropped, member = weakref.ref(conn), weakref.ref(conn._member)
        descriptor = conn._member.route.fileno()
        assert descriptor is not None
        gc.disable()
        try:
            del conn
            assert (dropped(), member()) == (None, None)
            with pytest.raises(OSError, match="descriptor"):
                os.fstat(descriptor)
        finally:
            gc.enable()


def test_a_call_keeps_its_object_until_it_returns() -> None:
    def behaviour(link: ServerConnection) -> None:
        time.sleep(0.2)  # the peer's pace: the call has to wait, which nothing outside of it tells
        link.send("late")
        link.recv()

    with WsServer(behaviour) as server:
        assert connect(server.url).read(20_000) == "late"
        assert next(iter(connect(server.url))) == "late"
        message = connect(server.url).receive(20_000)
        assert message is not None
        assert message.data == "late"


def test_a_websocket_is_told_who_closed() -> None:
    codes: dict[str, int | None] = {}

    def behaviour(link: ServerConnection) -> None:
        way = str(link.recv())
        with suppress(ConnectionClosed):
            link.recv()
        codes[way] = link.close_code

    with WsServer(behaviour) as server:
        closed, collected = Dial(server.url), Dial(server.url)
        assert closed is not None, last_error()
        assert collected is not None, last_error()
        closed.write("closed")
        collected.write("collected")
        closed.close()
        del collected
        until(lambda: codes == {"closed": 1000, "collected": 1001}, "the ends")


@pytest.mark.parametrize("kind", ["tcp", "tls", "unix"])
def test_what_was_written_last_arrives_though_much_is_unread(
    kind: str, tmp_path: Path, certs: Certs
) -> None:
    """A socket that is closed with something unread is reset, and the peer loses what it has not read yet."""
    closed = threading.Event()
    got: list[bytes | OSError] = []

    def handler(peer: Peer) -> None:
        peer.send(b"x" * 100_000)
        closed.wait(20)
        try:
            peer.send(b"y" * 100_000)
            got.append(peer.read_exactly(20 * 1000))
            got.append(peer.read())
        except OSError as error:
            got.append(error)

    tls = certs.server_context() if kind == "tls" else None
    with SocketServer(handler, path=tmp_path / "s" if kind == "unix" else None, tls=tls) as server:
        conn = Dial(server.url, buffer=1, cafile=str(certs.ca) if kind == "tls" else None)
        assert conn is not None, last_error()
        until(lambda: conn.stats().buffered, "the first bytes")
        assert all(conn.write(b"order " + b"." * 994) == 1000 for _ in range(20))
        pid = conn.stats().pid
        assert pid is not None
        began = time.monotonic()
        conn.close()
        assert time.monotonic() - began < 0.5
        closed.set()
        until(lambda: len(got) == 2 or (got and isinstance(got[0], OSError)), "what the peer read")
        assert isinstance(got[0], bytes), got
        assert got[0].count(b"order") == 20
        assert got[1] == b""
        until(lambda: not psutil.pid_exists(pid), "the worker's end")


def test_what_was_acknowledged_last_is_not_delivered_again(mosquitto: Mosquitto) -> None:
    """MQTT: neither the acknowledgements nor DISCONNECT may be lost with what is unread at the end."""
    for turn in range(8):
        name = mosquitto.unique()
        query = f"topic={name}&qos={1 + turn % 2}&version=3.1.1&clean=false&client_id={name}"
        address = f"mqtt://127.0.0.1:{mosquitto.port}?{query}"
        with MqttSide(mosquitto.port) as side, Dial(address) as conn:  # type: ignore[union-attr]
            for number in range(60):
                side.publish(name, str(number))
            first = [conn.read(5000) for _ in range(10)]
        with Dial(address) as conn:  # type: ignore[union-attr]
            rest = [conn.read(5000) for _ in range(50)]
        assert [*first, *rest] == [str(number) for number in range(60)]
