"""Acknowledging messages that readers have had: PUBACK for QoS 1, PUBREC for QoS 2.

A QoS 2 message is handed over when it arrives, and PUBREC goes out when a reader has had it. Until
then the broker keeps the message and sends it again after a broken link. Later copies are
recognised by the packet id.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from trunkline.actors.drivers.mqtt.session import Session

__all__ = ["Acknowledgements", "Token"]

Token = tuple[int, int, int]
"""The token of a message of QoS 1 or 2: packet id, QoS, hash of the content (see `Session`)."""


class _Client(Protocol):
    """The methods of paho's client in use."""

    def ack(self, mid: int, qos: int) -> Any: ...
    def received(self, number: int) -> None: ...


class _Socket(Protocol):
    """The method of the socket in use."""

    def together(self) -> AbstractContextManager[None]: ...


class Acknowledgements:
    """The acknowledgements of one connection, which goes on over several links."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._link: tuple[_Client, _Socket] | None = None

    def begin_link(self, client: _Client, sock: _Socket) -> None:
        self._link = (client, sock)

    def end_link(self) -> None:
        """Note the end of the link: acknowledgements do not reach the broker any more."""
        self._link = None

    @property
    def has_link(self) -> bool:
        return self._link is not None

    def send(self, tokens: Sequence[Token]) -> None:
        """Acknowledge messages to the broker. Without a link QoS 2 messages are only remembered."""
        if self._link is None:
            for number, qos, content in tokens:
                if qos == 2:  # the broker repeats such messages: remember
                    self._session.acknowledged(number, qos, content)
            return
        client, sock = self._link
        with sock.together():
            for number, qos, content in tokens:
                self._session.acknowledged(number, qos, content)
                if qos == 2:
                    client.received(number)
                else:
                    client.ack(number, qos)

    def repeat_if_known(self, number: int, qos: int, content: int) -> bool:
        """Acknowledge a QoS 2 message again if a reader has had it; return whether a reader had.

        The broker repeats such a message when the first acknowledgement was lost.
        """
        if qos != 2 or not self._session.is_received(number, content):
            return False
        if self._link is not None:
            client, _ = self._link
            client.received(number)
        return True
