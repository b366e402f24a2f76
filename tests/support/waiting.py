"""The waits of tests, which users' tests have, too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from trunkline.testing.waiting import Background, until

__all__ = ["Background", "until", "until_async"]

_LOOK_S = 0.005


async def until_async(happened: Callable[[], object], seconds: float = 20.0) -> None:
    """As `until`, while the loop goes on with its other work; TimeoutError at the deadline."""
    async with asyncio.timeout(seconds):
        while not happened():  # noqa: ASYNC110  (for what tells by no event)
            await asyncio.sleep(_LOOK_S)
