"""Connected TCP sockets for every TCP scheme: names, both address families, local_ip, proxies.

Everything here ends by the deadline: names are resolved in a daemon thread whose answer may be late,
the rest runs on the loop and can be cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from trunkline.actors import proxies
from trunkline.actors.driver import FatalError
from trunkline.deadline import Deadline
from trunkline.errors import DialError, DialTimeout

if TYPE_CHECKING:
    from trunkline.address import Address

__all__ = ["bind_local", "of_family", "open_connection", "resolve", "run_in_thread", "tune", "within"]

_T = TypeVar("_T")
_Info = tuple[Any, Any, int, str, Any]
_STAGGER_S = 0.25
"""Head start of one address over the next (RFC 8305)."""
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4}


async def open_connection(
    address: Address, deadline: Deadline, *, host: str | None = None, port: int | None = None
) -> socket.socket:
    """A connected, non-blocking, tuned socket to the address's host and port, or to those given.

    Goes through `proxy=` and from `local_ip=` where the address has them. Raises DialError (DialTimeout,
    FatalError) naming the party that failed.
    """
    target = (host or address.host or "", port or address.port or 0)
    proxy = address.option("proxy")
    if proxy is None:
        async with within(deadline, f"no answer from {target[0]}:{target[1]}"):
            return await _connect(*target, address.option("local_ip"))
    return await _through(proxy, target, address.option("local_ip"), deadline)


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
    """`getaddrinfo`, in a daemon thread but for plain addresses; DialError when there is no such name."""
    try:
        if _is_address(host):
            return socket.getaddrinfo(host, port, type=kind)
        return await run_in_thread(lambda: socket.getaddrinfo(host, port, type=kind))
    except socket.gaierror as error:
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
    """`work()` in a daemon thread of its own: whoever stops waiting leaves it behind, harmlessly."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def finish(result: _T | None, error: BaseException | None) -> None:
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
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits
            loop.call_soon_threadsafe(finish, result, failure)

    threading.Thread(target=body, name=name, daemon=True).start()
    return await future


def tune(sock: socket.socket) -> None:
    """No delay for small writes, and keepalive that finds a dead peer in about a minute."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


async def _through(
    proxy: Any, target: tuple[str, int], local_ip: str | None, deadline: Deadline
) -> socket.socket:
    speak = {"socks5": proxies.socks5, "socks5h": proxies.socks5, "http": proxies.http_connect}.get(
        proxy.scheme
    )
    if speak is None:
        raise FatalError(f"proxy={proxy.scheme}://... is not supported; use socks5:// or http://")
    name = f"{proxy.host}:{proxy.port}"
    async with within(deadline, f"no answer through proxy {name}"):
        try:
            sock = await _connect(proxy.host, proxy.port, local_ip)
        except FatalError:
            raise
        except DialError as error:
            raise DialError(f"proxy: {error}", code=error.code) from None
        try:
            await speak(sock, name, target, proxy.user, proxy.password)
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError):
                raise DialError(f"proxy {name} broke the connection: {error.strerror or error}") from None
            raise
    return sock


async def _connect(host: str, port: int, local_ip: str | None) -> socket.socket:
    infos = await resolve(host, port)
    if local_ip:
        infos = of_family(infos, local_ip, host)
    return await _race(_interleave(infos), f"{host}:{port}", local_ip)


def of_family(infos: Sequence[_Info], local_ip: str, host: str) -> list[_Info]:
    """Those that can be reached from `local_ip`; FatalError when there is none."""
    family = socket.AF_INET6 if ":" in local_ip else socket.AF_INET
    chosen = [info for info in infos if info[0] == family]
    if not chosen:
        raise FatalError(f"local_ip={local_ip} and {host} are not of the same address family")
    return chosen


def _interleave(infos: Sequence[_Info]) -> list[_Info]:
    """The families by turns, the resolver's favourite first (RFC 8305, section 4)."""
    first = [info for info in infos if info[0] == infos[0][0]]
    second = [info for info in infos if info[0] != infos[0][0]]
    mixed = [info for pair in zip(first, second, strict=False) for info in pair]
    return mixed + first[len(second) :] + second[len(first) :]


async def _race(infos: Sequence[_Info], peer: str, local_ip: str | None) -> socket.socket:
    """Connect to the addresses, each with a head start over the next; the first one wins."""
    waiting = list(infos)
    running: set[asyncio.Task[socket.socket]] = set()
    failure: OSError | None = None
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.ensure_future(_attempt(waiting.pop(0), local_ip)))
            done, running = await asyncio.wait(
                running, timeout=_STAGGER_S if waiting else None, return_when=asyncio.FIRST_COMPLETED
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
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, socket.socket):
            result.close()


async def _attempt(info: _Info, local_ip: str | None) -> socket.socket:
    family, kind, protocol, _, sockaddr = info
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        if local_ip:
            bind_local(sock, local_ip)
        await asyncio.get_running_loop().sock_connect(sock, sockaddr)
        tune(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def bind_local(sock: socket.socket, local_ip: str) -> None:
    """Bind to `local_ip`; FatalError when this machine has no such address."""
    try:
        sock.bind((local_ip, 0))
    except OSError as error:
        raise FatalError(
            f"local_ip={local_ip} cannot be used: {error.strerror or error}", code=error.errno
        ) from None


def _in_words(error: OSError, peer: str) -> DialError:
    if error.errno == errno.ECONNREFUSED:
        text = f"{peer} refused the connection; is the server running?"
    elif error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        text = f"{peer} cannot be reached from here: {error.strerror}"
    else:
        text = f"{peer} could not be connected to: {error.strerror or error}"
    return DialError(text, code=error.errno)
