"""Autobahn's cases against both WebSocket engines, through the driver and as `kosoku` runs them.

Not run: 9.* (limits and performance: minutes of megabytes), and 12.* and 13.* (permessage-deflate) but for
a part of each compression profile, and on the engine that has it. With `decode=text`: without it a text
message that is not UTF-8 is handed over as bytes, where the cases want the link closed with 1007.
"""

from __future__ import annotations

import asyncio
import contextlib

import kosoku
import pytest

from tests.support.recorder import Recorder
from trunkline.actors.drivers.ws.driver import WsDriver
from trunkline.address import parse_address
from trunkline.deadline import Deadline

CASE_S = 20.0
PLAIN = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]
# 13.2, 13.5 and 13.6 want server_no_context_takeover in the client's offer, which saves the server memory
# and us nothing: we do not ask for it, but take it (tests/unit/drivers/ws/test_ws_deflate.py).
DEFLATE = [
    "12.1.1",
    "12.1.3",
    "12.2.3",
    "12.3.2",
    "12.4.4",
    "12.5.2",
    "13.1.1",
    "13.3.3",
    "13.4.2",
    "13.7.4",
]
MAY_FAIL = {
    # Two close frames in one packet: picows parses one frame ahead, sees the second close and answers 1002
    # before anybody sees the first. The link ends either way. Where they come in two packets, it passes.
    "picows": {"7.1.2": "FAILED / WRONG CODE"},
    "websocket-client": {},
}


async def converse(address: str, engine: str, *, echo: bool) -> list[str | bytes]:
    """Connect and, with `echo`, send every message back until the server ends it; what came."""
    sink = Recorder()
    driver = WsDriver(parse_address(address), sink, engine)
    replied: list[str | bytes] = []
    try:
        await driver.open(Deadline(CASE_S))
        while True:
            await sink.until(lambda: len(sink.received) > len(replied) or sink.losses, CASE_S)
            if not echo or len(sink.received) == len(replied):
                await sink.until(lambda: sink.losses, CASE_S)
                return sink.received
            message = sink.received[len(replied)]
            with contextlib.suppress(OSError):
                await driver.send(message, Deadline(CASE_S))
            replied.append(message)
    finally:
        await driver.close()


async def run_cases(engine: str, cases: list[str], options: str = "") -> dict[str, str]:
    """The cases that did not pass, with what was wrong."""
    async with kosoku.run_fuzzingserver(cases=cases, port=0) as server:
        base = f"ws://{server.address}:{server.port}"
        count = int((await converse(f"{base}/getCaseCount", engine, echo=False))[0])
        for case in range(1, count + 1):
            url = f"{base}/runCase?case={case}&agent=trunkline|decode=text{options}"
            await converse(url, engine, echo=True)
        await converse(f"{base}/updateReports?agent=trunkline", engine, echo=False)
        try:
            results = await server.get_result()
        except kosoku.FailureError as failure:
            results = failure.results
    assert len(results) == count
    return {
        result.case_id: f"{result.behavior.value} / {result.behavior_close.value}"
        for result in results
        if not result.passed
    }


@pytest.mark.parametrize("engine", ["picows", "websocket-client"])
def test_every_case_of_the_protocol_passes(engine: str) -> None:
    failed = asyncio.run(run_cases(engine, PLAIN))
    assert failed in ({}, MAY_FAIL[engine])


@pytest.mark.filterwarnings(
    "ignore:.*testdata:pytest.PytestUnraisableExceptionWarning"
)  # kosoku's own files
def test_compressed_messages_pass_in_each_profile() -> None:
    assert asyncio.run(run_cases("picows", DEFLATE, "&enableCompression=true")) == {}
