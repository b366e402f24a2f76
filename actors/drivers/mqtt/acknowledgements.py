"""Telling the broker which messages readers have: PUBACK for QoS 1, PUBREC for QoS 2.

A QoS 2 message is handed over when it arrives, and PUBREC goes out when a reader has it. Until then the
broker keeps it and sends it again after a broken link; afterwards its copies are known by their packet id.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from trunkline.actors.drivers.mqtt.session import Session

__all__ = ["Acknowledgements", "Token"]

Token = tuple[int, int, int]
"""A message of QoS 1 or 2: packet id, QoS, content (see `Session`)."""


class _Client(Protocol):
    """What is needed of paho's client."""

    def ack(self, mid: int, qos: int) -> Any: ...
    def received(self, number: int) -> None: ...


class _Socket(Protocol):
    """What is needed of the socket."""

    def together(self) -> AbstractContextManager[None]: ...


class Acknowledgements:
    """Those of one connection; a link is set while there is one."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._link: tuple[_Client, _Socket] | None = None

    def begin_link(self, client: _Client, sock: _Socket) -> None:
        self._link = (client, sock)

    def end_link(self) -> None:
        """The link is over: acknowledgements do not reach the broker any more."""
        self._link = None

    @property
    def has_link(self) -> bool:
        return self._link is not None

    def send(self, tokens: Sequence[Token]) -> None:
        """Readers have these messages."""
        if self._link is None:
            for number, qos, content in tokens:
                if (
                    qos == 2
                ):  # the broker does not hear of it and sends them again, to be known by this
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
        """Whether a reader has this QoS 2 message already, and the broker did not hear of that: then it is
        told again."""
        if qos != 2 or not self._session.is_received(number, content):
            return False
        if self._link is not None:
            client, _ = self._link
            client.received(number)
        return True
