"""Imports of the zygote before it forks workers: modules for every worker of the core schemes.

An import must open nothing: no thread, no socket, no ZeroMQ context. A library without that
guarantee is imported after the fork, by the worker with a need for it.
"""

import asyncio  # noqa: F401
import contextlib
import encodings.idna  # noqa: F401
import logging  # noqa: F401
import socket  # noqa: F401
import sqlite3  # noqa: F401
import ssl  # noqa: F401

import msgpack  # noqa: F401
import zmq  # noqa: F401

import trunkline.actors.database.actor
import trunkline.actors.process.worker
import trunkline.actors.stream.actor
import trunkline.address  # noqa: F401
from trunkline.actors import registry

with contextlib.suppress(ImportError):
    import uvloop  # noqa: F401

for _scheme in ("tcp", "ws", "sqlite3"):
    registry.preload(_scheme)
