"""Lines in the user's log: warnings and reports of dropped messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.unit.stream.rig import Host
from trunkline.actors.driver import Overflow
from trunkline.actors.stream.buffer import Buffer
from trunkline.actors.stream.figures import Counters
from trunkline.actors.stream.user_log import UserLog
from trunkline.wire.stats import Stats


class Logged:
    def __init__(self) -> None:
        self.host = Host("ws://peer:1")
        self.buffer = Buffer(2, Overflow.DROP_OLDEST)
        self.counters = Counters(Stats())
        self.log = UserLog(self.host, self.buffer, self.counters)  # type: ignore[arg-type]


def run(body: Callable[[Logged], None]) -> None:
    async def whole() -> None:
        body(Logged())

    asyncio.run(whole())


def test_the_same_words_are_written_once_and_the_last_ones_are_kept() -> None:
    def body(logged: Logged) -> None:
        for _ in range(3):
            logged.log.warn("the server is read-only")
        logged.log.warn("the login is too old")
        assert logged.host.lines == [
            "warning: the server is read-only",
            "warning: the login is too old",
        ]
        assert logged.counters.last_error == "the login is too old"

    run(body)


def test_dropped_messages_are_told_with_what_helps() -> None:
    def body(logged: Logged) -> None:
        logged.log.tell_drops()
        assert logged.host.lines == []
        logged.buffer.extend(["a", "b", "c"])
        logged.buffer.flush()
        logged.log.tell_drops()
        logged.log.tell_drops()  # nothing new
        (line,) = logged.host.lines
        assert "1 message was dropped, 1 in all" in line
        assert "read faster, or give buffer=n" in line

    run(body)


def test_messages_that_were_lost_before_the_buffer_are_told_as_such() -> None:
    def body(logged: Logged) -> None:
        logged.counters.dropped_elsewhere = 7
        logged.log.tell_drops()
        (line,) = logged.host.lines
        assert "7 messages were dropped, 7 in all (they were lost before they could be" in line

    run(body)
