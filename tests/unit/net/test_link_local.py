"""Link-local IPv6 addresses: the zone is for the socket, and nobody at the other end hears of it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.loops import Run, on_both_loops
from trunkline.actors.driver import FatalError
from trunkline.actors.net import dialer, proxies, tls
from trunkline.address import parse_address
from trunkline.deadline import Deadline
from trunkline.errors import DialError

_LINK_SCOPE = "20"


def link_local() -> tuple[str, str] | None:
    """A link-local address of this machine and its interface, as Linux tells them."""
    table = Path("/proc/net/if_inet6")
    for line in table.read_text().splitlines() if table.exists() else ():
        digits, _, _, scope, _, name = line.split()
        if scope == _LINK_SCOPE:
            return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits)), name
    return None


OURS = link_local()
needs_one = pytest.mark.skipif(OURS is None, reason="this machine has no link-local address")


@contextlib.contextmanager
def listening(answer: Callable[[bytes], bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """A server at our link-local address that answers what it reads first; its port, and what it read."""
    assert OURS
    heard: list[bytes] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            sock, _ = server.accept()
            with sock:
                heard.append(sock.recv(1000))
                sock.sendall(answer(heard[-1]))
                sock.recv(1000)

    with socket.socket(socket.AF_INET6) as server:
        server.bind((OURS[0], 0, 0, socket.if_nametoindex(OURS[1])))
        server.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], heard
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@needs_one
@pytest.mark.parametrize("sign", ["%25", "%"])
@on_both_loops
def test_the_zone_leads_there_and_back(run: Run, sign: str) -> None:
    assert OURS

    async def body() -> None:
        zoned = f"{OURS[0]}{sign}{OURS[1]}"
        url = f"tcp://[{zoned}]:{port}|local_ip={OURS[0]}%{OURS[1]}"
        with await dialer.open_connection(parse_address(url), Deadline(5)) as sock:
            sock.setblocking(True)
            sock.sendall(b"hello")
            assert sock.recv(100) == b"HELLO"
            assert sock.getsockname()[0].partition("%")[0] == OURS[0]

    with listening(bytes.upper) as (port, _):
        run(body())


@needs_one
@on_both_loops
def test_a_proxy_is_told_no_zone(run: Run) -> None:
    assert OURS
    zoned = f"[{OURS[0]}%25{OURS[1]}]"

    async def body() -> None:
        url = f"tcp://{zoned}:9|proxy=http://{zoned}:{port}"
        (await dialer.open_connection(parse_address(url), Deadline(5))).close()

    with listening(lambda _: b"HTTP/1.1 200 OK\r\n\r\n") as (port, heard):
        run(body())
    assert heard[0].startswith(b"CONNECT [%s]:9 HTTP/1.1\r\n" % OURS[0].encode())


@pytest.mark.parametrize(
    "url",
    ["mysql://u:p@tcp([fe80::1%25eth0]:1)/d", "mysql://u:p@tcp([fe80::1%eth0]:1)/d", "mqtt://[fe80::1%25eth0]?topic=t",
     "postgres://u@[fe80::1%25eth0]/d", "clickhouse://[fe80::1%25eth0]:1/d", "ws://[fe80::1%25eth0]:80",
     "nats://[fe80::1%25eth0]?topic=t", "amqp://[fe80::1%25eth0]/?queue=q", "kafka://[fe80::1%25eth0]/t"],
)  # fmt: skip
def test_every_scheme_takes_a_zone(url: str) -> None:
    address = parse_address(url)
    hosts = [address.host, *(host for host, _ in address.hosts)]
    assert "fe80::1%eth0" in hosts


def test_certificates_and_proxies_know_no_zones() -> None:
    assert tls.server_hostname(parse_address("tls://[fe80::1%25eth0]:1")) == "fe80::1"
    assert proxies._destination("fe80::1%eth0", 1) == proxies._destination("fe80::1", 1)


@on_both_loops
def test_a_zone_that_is_missing_or_nobodys_is_named(run: Run) -> None:
    async def body() -> None:
        for host, words in (
            ("fe80::1", "is a link-local address"),
            ("fe80::1%25nobody0", "no interface of that"),
        ):
            with pytest.raises(DialError, match=words) as caught:
                await dialer.open_connection(parse_address(f"tcp://[{host}]:9"), Deadline(5))
            assert isinstance(caught.value, FatalError)

    run(body())
