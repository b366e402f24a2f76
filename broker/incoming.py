"""A message to the broker itself, as handlers get it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from trunkline.wire.envelope import Kind

__all__ = ["Handlers", "Incoming"]


class Incoming(NamedTuple):
    """A message of a program or a worker to the broker."""

    sender: bytes
    """The routing id of the sender's socket."""
    kind: Kind
    request_id: int
    fields: list[Any]
    """The fields of the header; `trunkline.wire.messages` has a class for each kind."""
    body: list[bytes]
    """The frames behind the header."""


Handlers = dict[Kind, Callable[[Incoming], None]]
"""The kinds of messages for a module, with their handlers."""
