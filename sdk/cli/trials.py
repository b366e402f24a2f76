"""The findings of `trunkline doctor` by trial: a private broker, and connections to local
servers."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from trunkline.cli.findings import Finding, fail, ok, warn
from trunkline.deadline import Deadline
from trunkline.demo.certificate import make_certificate
from trunkline.errors import TrunklineError
from trunkline.proxy.dial import connect, shutdown
from trunkline.wire import endpoint

if TYPE_CHECKING:
    from trunkline.demo.wsserver import Peer

__all__ = ["trials"]

DIALS = 5
"""The number of dials whose median time is reported."""
SLOW_MS = 250.0
"""A slower dial, in milliseconds, is a warning."""
ANSWER_MS = 5000
"""Milliseconds that a local server has to answer."""
LEAVE_S = 6.0
"""Seconds that the private broker has to end."""
LONGEST = 55
"""The longest path of a folder for temporary files that leaves room for a socket's path."""
_FIREWALL = "is a firewall on the loopback device?"


def trials() -> Iterator[Finding]:
    """Start a broker in a folder of its own, dial through it, and end it."""
    # The path of a unix socket is limited to about 100 bytes.
    above = None if len(tempfile.gettempdir()) <= LONGEST else "/tmp"
    folder = tempfile.TemporaryDirectory(prefix="tl-", dir=above, ignore_cleanup_errors=True)
    with folder as name, _private_runtime(name):
        log = Path(name)
        try:
            with _EchoServer() as server:
                started = time.monotonic()
                try:
                    connect(server.address, 10).close()
                except TrunklineError as error:
                    yield fail(
                        "broker start", str(error), _last_words(log) or "see the lines above"
                    )
                    return
                yield ok(
                    "broker start",
                    f"{1000 * (time.monotonic() - started):.0f} ms with the first dial",
                )
                yield _try_dial(server.address)
            yield _try_wss(Path(name))
        finally:
            shutdown()
            _await_end()


def _await_end() -> None:
    """Wait until the private broker has ended, because its folder is about to be removed."""
    deadline = Deadline(LEAVE_S)
    while any(endpoint.root().glob("b-*")) and not deadline.expired():
        time.sleep(0.02)


@contextlib.contextmanager
def _private_runtime(folder: str) -> Iterator[None]:
    """Let `endpoint` use this folder inside the block, without a broker that the environment
    names."""
    names = (endpoint.ENV, endpoint.ROOT_ENV)
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ[endpoint.ROOT_ENV] = folder
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _last_words(root: Path) -> str:
    """The last line of the private broker's log; "" without a log."""
    for log in root.glob("b-*/broker.log"):
        lines = log.read_text(errors="replace").strip().splitlines()
        if lines:
            return f"its log ends with: {lines[-1]}"
    return ""


def _try_dial(address: str) -> Finding:
    """Dial a local TCP server several times: the median time, and whether an echo arrives."""
    times = []
    for _ in range(DIALS):
        started = time.monotonic()
        with connect(address, 10) as connection:
            times.append(1000 * (time.monotonic() - started))
            connection.write("ping")
            if connection.read(ANSWER_MS) != "ping":
                return fail("dial", "a local echo server did not answer", _FIREWALL)
    median = statistics.median(times)
    text = f"{median:.1f} ms from Dial to ready on a local server (median of {DIALS})"
    return (
        ok("dial", text) if median < SLOW_MS else warn("dial", text, "the machine is slow or busy")
    )


def _try_wss(folder: Path) -> Finding:
    """Dial a local wss server, where a certificate can be made."""
    try:
        from trunkline.demo.wsserver import WsServer
    except ModuleNotFoundError as error:
        hint = "pip install 'trunkline[demo]' brings it"
        return ok("wss", f"not tried: the package {error.name} is not here; {hint}")
    certificate = make_certificate(folder)
    if certificate is None:
        return ok("wss", "not tried: neither the package trustme nor the command openssl is here")
    server = WsServer(_echo_messages, certificate.server_context())
    try:
        server.start()
        started = time.monotonic()
        with connect(f"{server.url}|proxy=none&cafile={certificate.cert}", 10) as connection:
            connection.write("ping")
            answer = connection.read(ANSWER_MS)
            passed = 1000 * (time.monotonic() - started)
    except (TrunklineError, OSError) as error:
        return fail("wss", str(error), "TLS does not work here; look at the versions above")
    finally:
        server.close()
    if answer != "ping":
        return fail("wss", "a local wss server did not answer", _FIREWALL)
    return ok("wss", f"{passed:.1f} ms for dial, handshake and a round trip on a local server")


async def _echo_messages(peer: Peer) -> None:
    async for message in peer.messages():
        peer.send(message)


class _EchoServer:
    """A TCP server on 127.0.0.1 that sends back every byte."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve_clients, name="echo server", daemon=True)
        self._thread.start()

    def _serve_clients(self) -> None:
        """Serve one client after another, until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                with sock, contextlib.suppress(OSError):
                    while data := sock.recv(4096):
                        sock.sendall(data)

    def __enter__(self) -> _EchoServer:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            # Wakes the thread from accept.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(2)
