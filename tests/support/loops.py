"""Both event loops that a worker may run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

__all__ = ["Run", "on_both_loops"]

# libuv makes a pipe with its first loop and keeps it for the process: not a leak of the first test.
uvloop.new_event_loop().close()

Run = Callable[[Coroutine[Any, Any, None]], None]

on_both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
"""Gives a test `run`, which runs one coroutine to its end on a new loop."""
