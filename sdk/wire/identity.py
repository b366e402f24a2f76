"""The names of a program's sockets at the broker. A name holds the process id.

A broker that takes over reads from the names which processes may come back.
"""

from __future__ import annotations

import os

__all__ = ["new_identity", "process_of"]

_PREFIX = b"c"
_PID_BYTES = 4
_RANDOM_BYTES = 12


def new_identity() -> bytes:
    """Return a unique name for a socket of this process."""
    return _PREFIX + os.getpid().to_bytes(_PID_BYTES, "big") + os.urandom(_RANDOM_BYTES)


def process_of(identity: bytes) -> int:
    """The process id in a name; 0 for a name of another form."""
    if len(identity) != len(_PREFIX) + _PID_BYTES + _RANDOM_BYTES or not identity.startswith(
        _PREFIX
    ):
        return 0
    return int.from_bytes(identity[len(_PREFIX) :][:_PID_BYTES], "big")
