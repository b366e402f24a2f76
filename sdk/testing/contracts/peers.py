"""The scripted peer of a contract's connection: sends, receives, drops links and accepts them
again."""

from __future__ import annotations

from abc import ABC, abstractmethod

from trunkline.testing.faultproxy import FaultProxy

__all__ = ["ProxiedPeer", "ScriptedPeer"]


class ScriptedPeer(ABC):
    """A server that the tests of `StreamContract` play. A driver's author implements the methods.

    Every call returns after its effect, or raises AssertionError after a timeout of its own.
    """

    address: str
    """The address to dial. A test may add an option by name."""
    options: dict[str, object]
    """Options for every dial, by name; {} for none."""

    @abstractmethod
    def send(self, data: str | bytes) -> None:
        """Send text or bytes to every present link."""

    @abstractmethod
    def received(self) -> bytes:
        """All bytes received since the start, of all links, in the order of arrival."""

    @abstractmethod
    def wait_links(self, count: int) -> None:
        """Wait until exactly `count` links exist and can be sent to."""

    @abstractmethod
    def drop(self) -> None:
        """Lose every link."""

    @abstractmethod
    def refuse(self) -> None:
        """Accept no new links until `heal`."""

    @abstractmethod
    def heal(self) -> None:
        """Accept links again."""

    @abstractmethod
    def stop_reading(self) -> None:
        """Read no more bytes from the present links."""

    @abstractmethod
    def close(self) -> None:
        """End the links and the server. Called at the end of every test."""


class ProxiedPeer(ScriptedPeer):
    """A real server behind a fault proxy, which makes the faults.

    A subclass sets `proxy` and the proxy's `address`, and implements `send`, `received` and
    `close`.
    """

    proxy: FaultProxy

    def wait_links(self, count: int) -> None:
        self.proxy.wait_live(count)

    def drop(self) -> None:
        self.proxy.cut()

    def refuse(self) -> None:
        self.proxy.refuse()

    def heal(self) -> None:
        self.proxy.heal()

    def stop_reading(self) -> None:
        self.proxy.stall("up")
