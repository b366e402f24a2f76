"""Links through a SOCKS proxy, by PySocks (the extra `socks`), as a network of httpcore.

PySocks bounds each single read of its handshake. A proxy that sends a byte now and then would hold a request
for as long as it liked, so the socket here reads with the time that is left of the whole dial.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
from collections.abc import Iterable, Iterator
from typing import Any

import httpcore
import socks

from trunkline.deadline import Deadline

__all__ = ["LONGEST", "SCHEMES", "SocksNetwork"]

SCHEMES = {
    "socks5": (socks.SOCKS5, True),
    "socks5h": (socks.SOCKS5, True),
    "socks4": (socks.SOCKS4, False),
    "socks4a": (socks.SOCKS4, True),
}
"""Scheme of a proxy's address: the protocol, and whether the proxy looks names up."""
LONGEST = 127
"""Bytes of a user name, a password or a host's name: PySocks writes the length of a longer one wrongly."""


class SocksNetwork(httpcore.NetworkBackend):
    """Dials through one SOCKS proxy. Several threads may use it."""

    def __init__(self, scheme: str, host: str, port: int, login: tuple[str, str] | None) -> None:
        """`scheme` is one of SCHEMES; `login` is a user name and a password.

        Raises ValueError for a login that cannot be sent; its text quotes nothing of the login.
        """
        self._protocol, self._proxy_looks_up = SCHEMES[scheme]
        self._host = host
        self._port = port
        self._user, self._password = login or ("", "")
        if self._protocol == socks.SOCKS4 and self._password:
            raise ValueError("SOCKS4 proxies take a user name and no password")
        if max(len(self._user.encode()), len(self._password.encode())) > LONGEST:
            raise ValueError(f"a SOCKS proxy's user name and password have {LONGEST} bytes at most")

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Return a link to `host` that the proxy has made. `timeout` in seconds bounds the whole dial, the
        handshake included.

        Raises ConnectTimeout, ConnectError when the proxy does not answer, and ProxyError when the proxy
        refuses the login, does not connect to the target or does not speak SOCKS.
        """
        if len(host) > LONGEST:
            raise httpcore.ProxyError(
                f"a host's name has {LONGEST} bytes at most behind a SOCKS proxy"
            )
        deadline = Deadline(timeout)
        try:
            sock = self._dial(host, port, deadline, local_address, list(socket_options or ()))
        except OSError as error:
            if _is_timeout(error) or deadline.expired():
                raise httpcore.ConnectTimeout("no link through the SOCKS proxy in time") from error
            raise _explain(error, f"{host}:{port}") from error
        return _SocketLink(sock)

    def _dial(
        self,
        host: str,
        port: int,
        deadline: Deadline,
        local_address: str | None,
        options: list[Any],
    ) -> socket.socket:
        """Try the proxy's addresses, until one answers."""
        unreachable: OSError = OSError("its name has no address")
        for family, _, _, _, place in socket.getaddrinfo(
            self._host, self._port, type=socket.SOCK_STREAM
        ):
            sock = _HandshakeSocket(family, deadline)
            try:
                for option in options:
                    sock.setsockopt(*option)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if local_address is not None:
                    sock.bind((local_address, 0))
                numbers, _ = socket.getnameinfo(
                    place, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
                )
                proxy = (self._protocol, numbers, self._port, self._proxy_looks_up)
                sock.set_proxy(*proxy, self._user, self._password)
                sock.connect((host, port))
            except socks.ProxyConnectionError as error:
                sock.close()
                unreachable = error
            except BaseException:
                sock.close()
                raise
            else:
                return socket.socket(fileno=sock.detach())
        raise unreachable


class _HandshakeSocket(socks.socksocket):  # type: ignore[misc]  # the library has no types
    """A socket of PySocks whose handshake ends with the deadline."""

    def __init__(self, family: int, deadline: Deadline) -> None:
        super().__init__(family)
        self._deadline = deadline

    def connect(self, *args: Any, **options: Any) -> None:
        self._bound_next_call()
        super().connect(*args, **options)

    def recv_into(self, *args: Any) -> int:
        """PySocks reads the handshake through a file of the socket, and the file reads by this."""
        self._bound_next_call()
        read: int = super().recv_into(*args)
        return read

    def _bound_next_call(self) -> None:
        left = self._deadline.timeout()
        if left == 0:
            raise TimeoutError("the deadline of the handshake is over")
        self.settimeout(left)


def _is_timeout(error: OSError) -> bool:
    """Whether a socket took too long; PySocks packs the socket's error into one of its own."""
    return isinstance(error, TimeoutError) or isinstance(_reason_of(error), TimeoutError)


def _reason_of(error: OSError) -> OSError | None:
    return getattr(error, "socket_err", None)


def _explain(error: OSError, target: str) -> Exception:
    """An error of httpcore in the words of HttpQuery's users."""
    inner = _reason_of(error)
    if isinstance(inner, socks.ProxyError):
        error = inner  # PySocks takes its own errors of the handshake for errors of the socket
    if isinstance(error, socks.SOCKS5AuthError):
        return httpcore.ProxyError(f"the SOCKS proxy refused the login: {error}")
    if isinstance(error, (socks.SOCKS5Error, socks.SOCKS4Error)):
        return httpcore.ProxyError(f"the SOCKS proxy did not connect to {target}: {error}")
    if isinstance(error, socks.ProxyConnectionError):
        return httpcore.ConnectError(f"the SOCKS proxy cannot be reached: {inner}")
    if isinstance(error, socks.ProxyError):
        return httpcore.ProxyError(f"the SOCKS proxy did not finish its handshake: {error}")
    return httpcore.ConnectError(f"the SOCKS proxy cannot be reached: {error}")


class _SocketLink(httpcore.NetworkStream):
    """A connected socket, with or without TLS, as httpcore takes it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _raised_as(httpcore.ReadTimeout, httpcore.ReadError):
            self._sock.settimeout(timeout)
            return self._sock.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _raised_as(httpcore.WriteTimeout, httpcore.WriteError):
            self._sock.settimeout(timeout)
            self._sock.sendall(buffer)

    def close(self) -> None:
        self._sock.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """A link that speaks TLS over this one; `timeout` bounds the whole handshake. When that fails, the
        socket is closed."""
        with _raised_as(httpcore.ConnectTimeout, httpcore.ConnectError):
            try:
                self._sock.settimeout(timeout)
                return _SocketLink(
                    ssl_context.wrap_socket(self._sock, server_hostname=server_hostname)
                )
            except BaseException:
                self.close()
                raise

    def get_extra_info(self, info: str) -> Any:
        if info == "socket":
            return self._sock
        if info == "ssl_object":
            return self._sock if isinstance(self._sock, ssl.SSLSocket) else None
        if info == "client_addr":
            return self._sock.getsockname()
        if info == "server_addr":
            return self._sock.getpeername()
        if info == "is_readable":
            return self._is_readable()
        return None

    def _is_readable(self) -> bool:
        """Whether a read returns at once; of a kept link that means that the server has ended it."""
        if self._sock.fileno() < 0:
            return True
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
            return bool(selector.select(0))


@contextlib.contextmanager
def _raised_as(timeout: type[Exception], failure: type[Exception]) -> Iterator[None]:
    """Raise the errors of a socket as those of httpcore."""
    try:
        yield
    except TimeoutError as error:
        raise timeout(str(error)) from error
    except OSError as error:
        raise failure(str(error)) from error
