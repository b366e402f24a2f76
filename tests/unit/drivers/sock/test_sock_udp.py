"""udp: datagrams, refusals that are no end, sizes, drops."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading

import pytest

from tests.support.loops import Run, on_both_loops
from tests.support.recorder import Recorder, opened, some_turns
from tests.support.sockets import UdpServer, free_port
from trunkline.actors.driver import FatalError, Overflow
from trunkline.actors.drivers.sock.driver import UdpDriver
from trunkline.deadline import Deadline
from trunkline.errors import DialError, RefusedError

pytestmark = on_both_loops


def test_one_datagram_is_one_message(run: Run) -> None:
    async def body() -> None:
        sink = Recorder()
        driver = await opened(UdpDriver, server.url, sink)
        for data, size in (("grüße", 7), (b"\xff", 1), (b"", 0)):
            assert await driver.send(data, Deadline(5)) == size
        assert await sink.wait_received(3) == ["grüße".encode(), b"\xff", b""]
        await driver.close()
        with pytest.raises(OSError, match="gone"):
            await driver.send("x", Deadline(5))
        assert sink.losses == []

    with UdpServer() as server:
        run(body())


def test_a_burst_comes_in_batches(run: Run) -> None:
    async def body() -> None:
        sink = Recorder()
        driver = await opened(UdpDriver, server.url, sink)
        driver.pause()
        await driver.send("go", Deadline(5))
        await asyncio.to_thread(server.wait_received, 1)
        await asyncio.to_thread(done.acquire)
        driver.resume()
        await sink.wait_received(100)
        assert sink.received == [b"%d" % number for number in range(100)]
        assert max(sink.batches) == 100
        await driver.close()

    def answer(data: bytes) -> list[bytes]:
        return [b"%d" % number for number in range(100)]

    done = threading.Semaphore(0)
    with UdpServer(answer) as server:
        original = server._take

        def take() -> None:
            original()
            done.release()

        server._take = take  # type: ignore[method-assign]
        run(body())


def test_a_refusal_is_warned_of_once_until_it_works_again(run: Run) -> None:
    async def body() -> None:
        port = free_port(socket.SOCK_DGRAM)
        sink = Recorder()
        driver = await opened(UdpDriver, f"udp://127.0.0.1:{port}", sink)
        for _ in range(5):
            await driver.send("anybody?", Deadline(1))
            await some_turns()
        await sink.until(lambda: sink.warnings)
        assert sink.warnings == [f"udp 127.0.0.1:{port}: nobody listens there (ICMP refused)"]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.1", port))
            await driver.send("now?", Deadline(5))
            _, peer = await asyncio.to_thread(server.recvfrom, 100)
            server.sendto(b"yes", peer)
            await sink.wait_received(1)
        await driver.send("gone again?", Deadline(1))
        await sink.until(lambda: len(sink.warnings) == 2)
        assert sink.losses == []
        await driver.close()

    run(body())


def test_a_datagram_that_is_too_big_is_refused_in_words(run: Run) -> None:
    async def body() -> None:
        sink = Recorder()
        driver = await opened(UdpDriver, server.url, sink)
        for size in (65_508, 70_000):
            with pytest.raises(RefusedError) as caught:
                await driver.send(bytes(size), Deadline(1))
            what = f"a datagram of {size:,} bytes to 127.0.0.1:{server.port} is too big"
            assert str(caught.value) == f"{what} (udp takes 65,507 at most): it was not sent"
        assert await driver.send(bytes(65_507), Deadline(1)) == 65_507
        assert sink.warnings == []
        await driver.close()

    with UdpServer() as server:
        run(body())


def test_what_the_kernel_drops_is_counted_where_it_says_so(run: Run) -> None:
    async def body() -> None:
        sink = Recorder()
        driver = await opened(UdpDriver, server.url, sink)
        driver.pause()
        await driver.send("start", Deadline(5))
        sent = 0
        await asyncio.to_thread(server.wait_received, 1)
        for _ in range(2000):
            server.send(bytes(16_000))
            sent += 1
        driver.resume()
        await sink.until(lambda: sink.received)
        await some_turns()
        server.send(b"the count comes with the next one")
        if sys.platform == "linux":
            await sink.until(lambda: sink.drops and len(sink.received) + sink.drops == sent + 1)
        await driver.close()

    with UdpServer(lambda data: []) as server:
        run(body())


def test_what_cannot_be_opened(run: Run) -> None:
    async def body() -> None:
        with pytest.raises(FatalError, match=r"local_ip=192\.0\.2\.1 cannot be used"):
            await opened(UdpDriver, "udp://127.0.0.1:9|local_ip=192.0.2.1", Recorder())
        with pytest.raises(DialError, match=r"no such host nobody\.invalid; check"):
            await opened(UdpDriver, "udp://nobody.invalid:9", Recorder())
        with pytest.raises(DialError, match="cannot be reached"):
            await opened(UdpDriver, "udp://[fe80::1]:9|local_ip=::1", Recorder())

    assert UdpDriver.overflow is Overflow.DROP_OLDEST
    assert UdpDriver.lost_is_none
    run(body())


def test_the_local_address_is_used(run: Run) -> None:
    async def body() -> None:
        driver = await opened(UdpDriver, f"{server.url}|local_ip=127.0.0.3", Recorder())
        await driver.send("x", Deadline(5))
        await asyncio.to_thread(server.wait_received, 1)
        assert server._peer is not None
        assert server._peer[0] == "127.0.0.3"
        await driver.close()

    with UdpServer() as server:
        run(body())
