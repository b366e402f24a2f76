"""The names that a program's sockets have at the broker. They tell which process they belong to, so that a
broker that takes over knows who may come back."""

from __future__ import annotations

import os

__all__ = ["new_identity", "process_of"]

_PREFIX = b"c"
_PID_BYTES = 4
_RANDOM_BYTES = 12


def new_identity() -> bytes:
    """A name that nobody else has, for a socket of this process."""
    return _PREFIX + os.getpid().to_bytes(_PID_BYTES, "big") + os.urandom(_RANDOM_BYTES)


def process_of(identity: bytes) -> int:
    """The process id in such a name; 0 for what is none."""
    if len(identity) != len(_PREFIX) + _PID_BYTES + _RANDOM_BYTES or not identity.startswith(
        _PREFIX
    ):
        return 0
    return int.from_bytes(identity[len(_PREFIX) :][:_PID_BYTES], "big")
