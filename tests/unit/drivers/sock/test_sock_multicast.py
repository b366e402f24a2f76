"""udp: multicast groups are joined, broadcasts sent and their answers read, the rest refused in words."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.support.loops import Run, on_both_loops
from tests.support.recorder import Recorder, opened
from tests.support.sockets import free_port
from trunkline.actors.driver import FatalError
from trunkline.actors.drivers.sock.driver import UdpDriver
from trunkline.deadline import Deadline
from trunkline.errors import AddressError, DialError

pytestmark = on_both_loops
GROUP = "239.77.1.2"


@pytest.fixture
def port() -> int:
    return free_port(socket.SOCK_DGRAM)


@pytest.fixture
def sender() -> Iterator[socket.socket]:
    """Sends to groups over the loopback interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        yield sock


@pytest.mark.parametrize("option", ["interface=127.0.0.1", "interface=lo", "local_ip=127.0.0.1"])
def test_a_group_is_joined_and_written_to(
    run: Run, port: int, sender: socket.socket, option: str
) -> None:
    async def body() -> None:
        first, second = Recorder(), Recorder()
        drivers = [
            await opened(UdpDriver, f"udp://{GROUP}:{port}|{option}", sink)
            for sink in (first, second)
        ]
        sender.sendto(b"tick", (GROUP, port))
        assert await first.wait_received(1) == [b"tick"]
        assert await drivers[0].send("ours", Deadline(5)) == 4
        for sink in (first, second):
            assert await sink.wait_received(2) == [b"tick", b"ours"]
        for driver in drivers:
            await driver.close()

    run(body())


def has_route() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return sock.connect_ex((GROUP, 9)) == 0


@pytest.mark.skipif(not has_route(), reason="no route leads to a multicast group")
def test_without_an_interface_programs_of_this_machine_are_heard(
    run: Run, port: int, sender: socket.socket
) -> None:
    async def body() -> None:
        sink = Recorder()
        driver = await opened(UdpDriver, f"udp://{GROUP}:{port}", sink)
        sender.sendto(b"tick", (GROUP, port))
        assert await sink.wait_received(1) == [b"tick"]
        await driver.close()

    run(body())


def test_another_group_on_the_same_port_is_not_heard(
    run: Run, port: int, sender: socket.socket
) -> None:
    async def body() -> None:
        sinks = [Recorder(), Recorder()]
        groups = (GROUP, "239.77.1.3")
        drivers = [
            await opened(UdpDriver, f"udp://{group}:{port}|interface=lo", sink)
            for group, sink in zip(groups, sinks, strict=True)
        ]
        for group in groups:
            sender.sendto(group.encode(), (group, port))
        for group, sink in zip(groups, sinks, strict=True):
            assert await sink.wait_received(1) == [group.encode()]
        for driver in drivers:
            await driver.close()

    run(body())


def test_a_broadcast_is_sent_and_answers_are_read(run: Run) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("", 0))
        listener.settimeout(10)

        async def body() -> None:
            sink = Recorder()
            driver = await opened(
                UdpDriver, f"udp://127.255.255.255:{listener.getsockname()[1]}", sink
            )
            assert await driver.send("who is there?", Deadline(5)) == 13
            data, peer = listener.recvfrom(100)
            assert data == b"who is there?"
            listener.sendto(b"me", peer)
            assert await sink.wait_received(1) == [b"me"]
            await driver.close()

        run(body())


@pytest.mark.parametrize(
    ("address", "kind", "words"),
    [
        (
            f"udp://{GROUP}:9|interface=nobody0",
            FatalError,
            "interface=nobody0: this machine has no such interface",
        ),
        (
            f"udp://{GROUP}:9999|interface=203.0.113.77",
            DialError,
            "cannot be joined on interface=203.0.113.77",
        ),
        (f"udp://{GROUP}:9999|interface=::1", FatalError, "name the interface"),
        (
            "udp://127.0.0.1:9|interface=lo",
            FatalError,
            "interface= is for multicast groups, and 127.0.0.1 is none",
        ),
        (
            "tcp://127.0.0.1:9|interface=lo",
            AddressError,
            "option 'interface' makes no sense for tcp",
        ),
    ],
)
def test_what_is_refused(run: Run, address: str, kind: type[Exception], words: str) -> None:
    async def body() -> None:
        with pytest.raises(kind, match=words):
            await opened(UdpDriver, address, Recorder())

    run(body())
