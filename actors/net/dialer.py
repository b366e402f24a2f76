"""Connected TCP sockets for all TCP schemes: names, both address families, local_ip, proxies.

Every wait of `open_connection` ends by the deadline. Names are resolved in a daemon thread, because
`getaddrinfo` cannot be cancelled: after the deadline the thread is left behind. All other work runs
on the event loop and can be cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from trunkline.actors.driver import FatalError
from trunkline.actors.net import proxies, proxy_tls
from trunkline.actors.net.socks4 import socks4
from trunkline.actors.net.tcp_keepalive import keep_alive
from trunkline.address.host import join_host_port
from trunkline.deadline import Deadline
from trunkline.errors import DialError, DialTimeout

if TYPE_CHECKING:
    from trunkline.address import Address

__all__ = [
    "bind_local",
    "of_family",
    "open_connection",
    "resolve",
    "run_in_thread",
    "tune",
    "within",
]

_T = TypeVar("_T")
_Info = tuple[Any, Any, int, str, Any]
_STAGGER_S = 0.25
"""Seconds of head start of one address over the next (RFC 8305)."""
_SPEAK = {
    "socks5": proxies.socks5,
    "socks5h": proxies.socks5,
    "socks4": socks4,
    "socks4a": socks4,
    "http": proxies.http_connect,
    "https": proxies.http_connect,
}


async def open_connection(
    address: Address, deadline: Deadline, *, host: str | None = None, port: int | None = None
) -> socket.socket:
    """A connected, non-blocking, tuned socket to the host and port of the address.

    `host` and `port` replace those of the address. The way goes through `proxy=` and begins at
    `local_ip=`, where the address has these options. Raises DialError (DialTimeout, FatalError),
    which names the party that failed.
    """
    target = (host or address.host or "", port or address.port or 0)
    place = join_host_port(*target)
    proxy = address.option("proxy")
    if proxy is None:
        async with within(deadline, f"no answer from {place}"):
            return await _connect(*target, address.option("local_ip"))
    return await _through(address, target, deadline)


@contextlib.asynccontextmanager
async def within(deadline: Deadline, what: str) -> AsyncIterator[None]:
    """Cancel the body at the deadline and raise `DialTimeout("<what> in the time allowed")`."""
    try:
        async with asyncio.timeout(deadline.timeout()):
            yield
    except DialError:
        raise
    except TimeoutError:
        raise DialTimeout(f"{what} in the time allowed") from None


async def resolve(host: str, port: int, kind: int = socket.SOCK_STREAM) -> Sequence[_Info]:
    """`getaddrinfo`, for names in a daemon thread.

    DialError for an unknown name, FatalError for a name or a zone that cannot exist."""
    try:
        if _is_address(host):
            return socket.getaddrinfo(host, port, type=kind)
        return await run_in_thread(lambda: socket.getaddrinfo(host, port, type=kind))
    except socket.gaierror as error:
        if _is_address(host) and "%" in host:
            text = f"{host}: this machine has no interface of that name; write its own as in [fe80::1%25eth0]"
            raise FatalError(text, code=error.errno) from None
        if error.errno == socket.EAI_AGAIN:
            text = f"the name {host} cannot be resolved now; check the spelling or DNS"
        else:
            text = f"no such host {host}; check the spelling or DNS"
        raise DialError(text, code=error.errno) from None
    except UnicodeError:
        raise FatalError(f"{host} cannot be a host name; check the spelling") from None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


async def run_in_thread(work: Callable[[], _T], name: str = "trunkline-resolve") -> _T:
    """Run `work` in a daemon thread of its own and return its result or raise its error.

    When the caller is cancelled, the thread is left behind and its result is ignored."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    # `finish` runs on the event loop, `body` in the thread.

    def finish(result: _T | None, error: BaseException | None) -> None:
        # The future was cancelled when the caller stopped waiting.
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def body() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:
            failure = error
        # RuntimeError: the loop was closed meanwhile, so no task waits for the result.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(finish, result, failure)

    threading.Thread(target=body, name=name, daemon=True).start()
    return await future


def tune(sock: socket.socket) -> None:
    """Send small writes without delay, and find a dead peer in about a minute by keepalive."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    keep_alive(sock)


async def _through(address: Address, target: tuple[str, int], deadline: Deadline) -> socket.socket:
    """Connect to `target` through the proxy of the address."""
    proxy, local_ip = address.option("proxy"), address.option("local_ip")
    speak = _SPEAK[proxy.scheme]
    name = proxy.place
    async with within(deadline, f"no answer through proxy {name}"):
        if proxy.scheme == "socks4":
            target = await _as_ipv4(*target)
        try:
            sock = await _connect(proxy.host, proxy.port, local_ip)
        except FatalError:
            raise
        except DialError as error:
            source = f" from {proxy.variable}" if proxy.variable else ""
            raise DialError(f"proxy{source}: {error}", code=error.code) from None
        try:
            if proxy.scheme == "https":
                context = await run_in_thread(lambda: proxy_tls.proxy_context(address))
                sock = await proxy_tls.secured(sock, proxy, context, deadline.left() + 1)
            await speak(sock, name, target, proxy.user, proxy.password)
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError) and not isinstance(error, DialError):
                raise DialError(
                    f"proxy {name} broke the connection: {error.strerror or error}"
                ) from None
            raise
    return sock


async def _as_ipv4(host: str, port: int) -> tuple[str, int]:
    """The target with its IPv4 address, because SOCKS4 has IPv4 addresses alone."""
    infos = [info for info in await resolve(host, port) if info[0] == socket.AF_INET]
    if not infos:
        raise FatalError(
            f"{host} has no IPv4 address, and a socks4:// proxy knows no other; use socks5://"
        )
    return str(infos[0][4][0]), port


async def _connect(host: str, port: int, local_ip: str | None) -> socket.socket:
    infos = await resolve(host, port)
    if local_ip:
        infos = of_family(infos, local_ip, host)
    return await _race(_interleave(infos), join_host_port(host, port), local_ip)


def of_family(infos: Sequence[_Info], local_ip: str, host: str) -> list[_Info]:
    """The addresses of the same family as `local_ip`; FatalError for none."""
    family = socket.AF_INET6 if ":" in local_ip else socket.AF_INET
    chosen = [info for info in infos if info[0] == family]
    if not chosen:
        raise FatalError(f"local_ip={local_ip} and {host} are not of the same address family")
    return chosen


def _interleave(infos: Sequence[_Info]) -> list[_Info]:
    """Alternate the address families, beginning with the resolver's first (RFC 8305, section 4)."""
    first = [info for info in infos if info[0] == infos[0][0]]
    second = [info for info in infos if info[0] != infos[0][0]]
    mixed = [info for pair in zip(first, second, strict=False) for info in pair]
    return mixed + first[len(second) :] + second[len(first) :]


async def _race(infos: Sequence[_Info], peer: str, local_ip: str | None) -> socket.socket:
    """Connect to the addresses, each with a head start over the next. The first success wins.

    When all attempts have failed, the first error is raised as a DialError."""
    waiting = list(infos)
    running: set[asyncio.Task[socket.socket]] = set()
    failure: OSError | None = None
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.ensure_future(_attempt(waiting.pop(0), local_ip)))
            done, running = await asyncio.wait(
                running,
                timeout=_STAGGER_S if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                error = task.exception()
                if isinstance(error, OSError):
                    failure = failure or error
                    continue
                running |= done - {task}
                return task.result()
    finally:
        await _abandon(running)
    assert failure is not None
    raise _in_words(failure, peer)


async def _abandon(tasks: set[asyncio.Task[socket.socket]]) -> None:
    """Cancel attempts and close the sockets of attempts that succeeded in the meantime."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, socket.socket):
            result.close()


async def _attempt(info: _Info, local_ip: str | None) -> socket.socket:
    """Connect to one address. The socket is closed on any error, and when the task is cancelled."""
    family, kind, protocol, _, sockaddr = info
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        if local_ip:
            bind_local(sock, local_ip)
        await _sock_connect(sock, sockaddr)
        tune(sock)
    except BaseException:
        sock.close()
        raise
    return sock


async def _sock_connect(sock: socket.socket, sockaddr: Any) -> None:
    """As the loop's `sock_connect`. uvloop's own loses the zone of a link-local address."""
    loop = asyncio.get_running_loop()
    if sock.family != socket.AF_INET6 or not sockaddr[3]:
        await loop.sock_connect(sock, sockaddr)
        return
    code = sock.connect_ex(sockaddr)
    if code == errno.EINPROGRESS:
        writable = asyncio.Event()
        loop.add_writer(sock.fileno(), writable.set)
        try:
            await writable.wait()
        finally:
            loop.remove_writer(sock.fileno())
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def bind_local(sock: socket.socket, local_ip: str) -> None:
    """Bind to `local_ip`. FatalError when this machine does not have the address."""
    try:
        # `getaddrinfo` converts the zone of a link-local address into a number.
        sock.bind(socket.getaddrinfo(local_ip, 0, flags=socket.AI_NUMERICHOST)[0][4])
    except OSError as error:
        raise FatalError(
            f"local_ip={local_ip} cannot be used: {error.strerror or error}", code=error.errno
        ) from None


def _in_words(error: OSError, peer: str) -> DialError:
    """The error of a failed connect, for users."""
    if error.errno == errno.ECONNREFUSED:
        text = f"{peer} refused the connection; is the server running?"
    elif error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        text = f"{peer} cannot be reached from here: {error.strerror}"
    elif error.errno == errno.EINVAL and peer.lower().startswith("[fe80:"):
        text = f"{peer} is a link-local address: name this machine's interface to it, as in [fe80::1%25eth0]"
        return FatalError(text, code=error.errno)
    else:
        text = f"{peer} could not be connected to: {error.strerror or error}"
    return DialError(text, code=error.errno)
