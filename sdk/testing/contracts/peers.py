"""The other end of a contract's connection, scripted by the test: it sends, receives, leaves, comes back."""

from __future__ import annotations

from abc import ABC, abstractmethod

from trunkline.testing.faultproxy import FaultProxy

__all__ = ["ProxiedPeer", "ScriptedPeer"]


class ScriptedPeer(ABC):
    """What the author of a driver gives to `StreamContract`: a server that the test plays.

    Each call returns when it has taken effect, or raises (AssertionError after a timeout of its own).
    """

    address: str
    """What is dialled; the option of another test may be added to it by name."""
    options: dict[str, object]
    """Options for each dial, by name; {} where there are none."""

    @abstractmethod
    def send(self, data: str | bytes) -> None:
        """Send to every link there is: text, or bytes."""

    @abstractmethod
    def received(self) -> bytes:
        """All that came in so far, of all links, one after the other."""

    @abstractmethod
    def wait_links(self, count: int) -> None:
        """Wait until there are exactly so many links, ready to be sent to."""

    @abstractmethod
    def drop(self) -> None:
        """Lose every link."""

    @abstractmethod
    def refuse(self) -> None:
        """Take no new links, until `heal`."""

    @abstractmethod
    def heal(self) -> None:
        """Take links again."""

    @abstractmethod
    def stop_reading(self) -> None:
        """Take no more bytes from the links there are."""

    @abstractmethod
    def close(self) -> None:
        """End the links and the server; called at the end of each test."""


class ProxiedPeer(ScriptedPeer):
    """A real server behind a fault proxy, which makes the faults.

    A subclass sets `proxy` (and `address` to the proxy's), sends, receives and closes.
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
