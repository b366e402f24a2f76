"""A stream actor with a host that records and a driver that follows a script: no process, no socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

from trunkline.actors.driver import Delivery, Ending, Sink, StreamDriver
from trunkline.actors.stream.actor import StreamActor
from trunkline.address import Address, parse_address
from trunkline.deadline import Deadline
from trunkline.wire.envelope import Kind, parse
from trunkline.wire.ledger import Ledger
from trunkline.wire.stats import Stats

__all__ = ["READER", "Host", "Rig", "ScriptedDriver", "Sent", "driver_class"]

READER = b"reader"
CONTROL = b"control"
WAIT_S = 10.0


class Sent(NamedTuple):
    """A message that a part has sent."""

    to: bytes
    kind: Kind
    request_id: int
    fields: list[Any]
    body: tuple[bytes, ...]


class _Mailbox:
    def __init__(self, host: Host) -> None:
        self._host = host
        self.sent: list[Sent] = []
        self.heard: list[bytes] = []

    def send(self, to: bytes, head: bytes, *body: bytes) -> None:
        self.sent.append(Sent(to, *parse(head), body))
        self._host.news.set()

    def hear(self, holder: bytes) -> None:
        self.heard.append(holder)

    def left_ms(self, timeout_ms: float, until: float) -> float:
        return timeout_ms


class Host:
    """Records what the parts say. Made inside the loop it is used on."""

    def __init__(
        self, address: str, *, succeeds: bool = False, former: Any = (), **options: Any
    ) -> None:
        self.address: Address = parse_address(address, options)
        self.loop = asyncio.get_running_loop()
        self.ledger: Ledger | None = None
        self.holders = {READER: CONTROL}
        self.record = {"number": 7}
        self.incarnation = 2 if succeeds else 1
        self.succeeds = succeeds
        self.base = Stats()
        self.news = asyncio.Event()
        self.mailbox = _Mailbox(self)
        self.lines: list[str] = []
        self.states: list[str] = []
        self.state: Callable[[], str] = lambda: ""
        self._former = dict(former)

    def base_stats(self) -> Stats:
        return self.base

    def inherited(self) -> dict[str, Any]:
        return {"from": "before"} if self.succeeds else {}

    def former(self) -> dict[bytes, int]:
        return dict(self._former)

    def say_state(self) -> None:
        self.states.append(self.state())
        self.news.set()

    def log(self, level: str, text: str) -> None:
        self.lines.append(f"{level}: {text}")
        self.news.set()

    async def until(self, happened: Callable[[], object]) -> None:
        """Wait until `happened()` is true; it is asked again after each message, state and line."""
        async with asyncio.timeout(WAIT_S):
            while not happened():
                self.news.clear()
                await self.news.wait()


class ScriptedDriver(StreamDriver):
    """Opens as its script says: an error is raised, a function is called with the driver."""

    script: list[Any]
    made: list[ScriptedDriver]
    waits = True
    """Whether `send` may have to wait."""
    takes: Any = None
    """What `send` returns or raises instead of the size."""

    def __init__(self, address: Address, sink: Sink) -> None:
        super().__init__(address, sink)
        self.sent: list[Any] = []
        self.settled: list[Any] = []
        self.pauses: list[bool] = []
        self.endings: list[Ending] = []
        self.made.append(self)

    async def open(self, deadline: Deadline) -> None:
        step = self.script.pop(0) if self.script else None
        if isinstance(step, BaseException):
            raise step
        if step is not None:
            step(self)

    def would_wait(self, size: int) -> bool:
        return self.waits

    async def send(self, data: str | bytes, deadline: Deadline) -> int:
        if isinstance(self.takes, BaseException):
            raise self.takes
        self.sent.append(data)
        return len(data) if self.takes is None else int(self.takes)

    async def request(self, data: str | bytes, deadline: Deadline) -> Delivery:
        return Delivery(f"answer to {data!r}")

    async def close(self) -> None:
        raise AssertionError("the actor calls `end`")

    async def end(self, ending: Ending) -> None:
        self.endings.append(ending)

    def settle(self, tokens: Sequence[Any]) -> None:
        self.settled += tokens

    def pause(self) -> None:
        self.pauses.append(True)

    def resume(self) -> None:
        self.pauses.append(False)

    def bequeath(self) -> dict[str, Any]:
        return {"link": len(self.made)}


def driver_class(*script: Any, **attributes: Any) -> type[ScriptedDriver]:
    """A class of drivers whose objects go through `script` together, one step for each attempt."""
    return type("Scripted", (ScriptedDriver,), {"script": list(script), "made": [], **attributes})


class Rig:
    """A whole actor, its host and its drivers."""

    def __init__(
        self,
        *script: Any,
        address: str = "ws://peer:1",
        succeeds: bool = False,
        former: Any = (),
        ledger: Path | None = None,
        base: Stats | None = None,
        driver: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.host = Host(address, succeeds=succeeds, former=former, **options)
        self.host.base = base or Stats()
        if ledger is not None:
            self.host.ledger = Ledger(ledger, self.host.incarnation)
            self.host.ledger.publish()
        self.drivers = driver_class(*script, **(driver or {}))
        self.actor = StreamActor(self.host, self.drivers)  # type: ignore[arg-type]
        self.host.state = lambda: self.actor.stats().state

    async def __aenter__(self) -> Rig:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.actor.close(Ending.CLOSED)
        if self.host.ledger is not None:
            self.host.ledger.close()

    @property
    def driver(self) -> ScriptedDriver:
        """The driver that was made last."""
        return self.drivers.made[-1]

    async def open(self) -> None:
        await self.actor.open(Deadline(WAIT_S))

    def read_on(self) -> None:
        """The reader says START, so that all entries are sent to it as they come."""
        self.actor.start(READER, down=False, had=0, envelopes=False)

    def entries(self) -> list[Any]:
        """All that was sent to the reader."""
        pushes = [sent for sent in self.host.mailbox.sent if sent.kind is Kind.PUSH]
        return [entry for push in pushes for entry in msgpack.unpackb(push.body[0])]

    async def answer(self, kind: Kind, *fields: Any, body: bytes = b"") -> Sent:
        """The answer to a request with these fields."""
        number = 1 + max((sent.request_id for sent in self.host.mailbox.sent), default=0)
        self.actor.receive(b"thread", kind, number, list(fields), [body])
        found: list[Sent] = []
        await self.host.until(
            lambda: (
                found.extend(s for s in self.host.mailbox.sent if s.request_id == number) or found
            )
        )
        return found[0]
