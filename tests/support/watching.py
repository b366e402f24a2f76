"""What the actor does for a driver's link: keepalives, and the end of one that is silent."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from tests.support.recorder import Recorder
from trunkline.actors.driver import StreamDriver
from trunkline.actors.net.liveness import Traffic
from trunkline.actors.stream.link_watch import LinkWatch
from trunkline.deadline import Deadline

__all__ = ["watched"]


@contextlib.asynccontextmanager
async def watched(driver: StreamDriver, sink: Recorder) -> AsyncIterator[None]:
    """In the block, the link of an open driver is watched as the options of its address say."""
    watch = LinkWatch(
        driver.address,
        driver,
        send=lambda text, seconds: driver.send(text, Deadline(seconds)),
        lost=sink.lost,
        counted=lambda: Traffic(0),
        paused=lambda: False,
        message_at=time.monotonic,
    )
    jobs = [asyncio.create_task(job) for job in watch.jobs()]
    try:
        yield
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
