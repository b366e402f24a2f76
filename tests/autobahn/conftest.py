"""kosoku keeps one runtime (threads, descriptors) for the process: started before leaks are counted."""

from __future__ import annotations

import asyncio

import kosoku
import pytest


@pytest.fixture(scope="session", autouse=True)
def _kosoku_runtime() -> None:
    async def start() -> None:
        async with kosoku.run_fuzzingserver(cases=["1.1.1"], port=0):
            pass

    asyncio.run(start())
