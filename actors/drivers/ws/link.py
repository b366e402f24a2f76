"""The interface between the WebSocket driver and its engines: one link's frames, in both
directions.
"""

from __future__ import annotations

import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from trunkline.actors.driver import PeerClosed
from trunkline.actors.drivers.ws.messages import NORMAL
from trunkline.actors.drivers.ws.request import Target
from trunkline.actors.net.liveness import Traffic
from trunkline.deadline import Deadline

__all__ = ["CLOSE_S", "HIGH_WATER", "Link", "Owner", "gone", "tls_failure"]

CLOSE_S = 1.0
"""Seconds that a closing handshake may take before the socket is closed anyway."""
HIGH_WATER = 64 * 1024
"""A send waits while more bytes than that are queued in the transport."""


class Owner(Protocol):
    """The receiver of a link's reports. All methods are called on the event loop."""

    def delivered(self, batch: Sequence[str | bytes]) -> None:
        """Messages have come, in this order."""

    def ended(self, reason: BaseException | None) -> None:
        """The link is gone, as in `Sink.lost`. May be called more than once."""

    def warn(self, text: str) -> None:
        """Write one line to the user's log."""


def gone(cause: BaseException | None) -> ConnectionError:
    """Return the error of a send over a link that is gone, with the cause where it is known."""
    if isinstance(cause, PeerClosed):
        return PeerClosed(cause.code, cause.reason)
    return ConnectionError("the link is gone" if cause is None else f"the link is gone: {cause}")


def tls_failure(error: BaseException | None) -> ssl.SSLError | None:
    """Return the error with which TLS has ended the link.

    None for an end that only lacks TLS's goodbye.
    """
    return (
        error
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError)
        else None
    )


class Link(ABC):
    """One WebSocket connection by one engine. An object serves one attempt."""

    def __init__(self, owner: Owner, max_size: int, *, strict_text: bool = True) -> None:
        self.owner = owner
        self.max_size = max_size
        self.heard = 0
        """How many control frames have come, where the engine counts them."""
        self.control_bytes = 0
        """Upper bound of the received bytes that belong to control frames."""
        self.secured = False
        """Whether the TLS handshake has succeeded."""
        self.strict_text = strict_text
        """Whether a text message that is not UTF-8 ends the link with 1007. Otherwise it comes as
        `bytes`.
        """

    @abstractmethod
    async def connect(
        self,
        sock: socket.socket,
        target: Target,
        deadline: Deadline,
        *,
        context: ssl.SSLContext | None,
        hostname: str,
        deflate: bool,
    ) -> None:
        """Make the TLS handshake (with a context) and the opening handshake over a connected
        socket.

        The link owns the socket from then on. Raises `Redirect` or DialError. The caller enforces
        the deadline by cancelling.
        """

    @abstractmethod
    async def send(self, data: str | bytes, deadline: Deadline) -> int:
        """As `StreamDriver.send`."""

    def would_wait(self, size: int) -> bool:
        """As `StreamDriver.would_wait`."""
        return True

    @abstractmethod
    def ping(self) -> None:
        """Send a ping if the transport takes it now."""

    @abstractmethod
    def traffic(self) -> Traffic:
        """The figures of `StreamDriver.traffic`.

        Without help of the kernel they rest on the engine's own counts.
        """

    @abstractmethod
    async def close(self, code: int = NORMAL) -> None:
        """Make the closing handshake with this code, within `CLOSE_S`.

        Idempotent; also before and during `connect`.
        """

    @abstractmethod
    def abort(self, reason: BaseException) -> None:
        """Break the link off at once and report `reason`."""

    @abstractmethod
    def pause(self) -> None: ...

    @abstractmethod
    def resume(self) -> None: ...
