"""A database that does what a test says, and an actor around it without broker, server or proxy."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from trunkline.actors.database.actor import ExecActor
from trunkline.actors.driver import Ending, ExecDriver, Result, Rows
from trunkline.actors.process.door import Door, Guest
from trunkline.address import Address, parse_address
from trunkline.deadline import Deadline
from trunkline.errors import StatementError, TrunklineError, from_wire
from trunkline.wire import messages, values
from trunkline.wire.envelope import Kind, header, parse
from trunkline.wire.framing import Unframer, frame
from trunkline.wire.stats import Stats
from trunkline.wire.table import unpack_rows

__all__ = ["HOLDER", "OTHER", "Client", "Host", "Script", "driver_class", "hosting", "run", "until"]

HOLDER, OTHER = b"holder", b"other holder"
ADDRESS = "postgres://user@db.test/data"
LIMIT_S = 20.0
"""A test that takes so long hangs."""


class Script:
    """What the database does, and what was asked of it; for all drivers of a connection."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        """Each call of a driver, and the name of the thread that made it."""
        self.texts: list[str] = []
        """The statements that were executed."""
        self.failures: deque[BaseException] = deque()
        """What the next attempts to open raise."""
        self.is_alive = True
        self.is_inside = False
        self.can_reset = False
        self.has_begun = threading.Semaphore(0)
        """Released when a statement that waits has begun."""
        self.may_end = threading.Event()
        """Set: statements that wait go on."""
        self.may_open = threading.Event()
        self.may_open.set()
        self.may_interrupt = threading.Event()
        """Cleared: `interrupt` waits, where the driver says that it does."""
        self.may_interrupt.set()
        self.drivers: list[ExecDriver] = []

    def threads_of(self, *calls: str) -> set[str]:
        """The names of the threads that made these calls; of all calls when none is named."""
        return {thread for call, thread in list(self.calls) if not calls or call in calls}

    def count(self, call: str) -> int:
        return sum(1 for each, _ in list(self.calls) if each == call)


class ScriptedDriver(ExecDriver):
    """Obeys words at the beginning of a statement:

    WAIT: until `Script.may_end`, an interrupt or an abort. DEAF: the same without interrupts. LOSE: the
    server is lost. FAIL: refused. BEGIN, COMMIT. ROWS n: so many rows. Any other text is the only row.
    """

    schemes = ("postgres",)
    transient = (OSError,)
    script: ClassVar[Script]

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self.is_interrupted = threading.Event()
        self.is_aborted = threading.Event()
        self.note("make")
        self.script.drivers.append(self)

    def note(self, call: str) -> None:
        self.script.calls.append((call, threading.current_thread().name))

    def open(self, deadline: Deadline) -> None:
        self.note("open")
        assert self.script.may_open.wait(LIMIT_S)
        if self.script.failures:
            raise self.script.failures.popleft()
        self.script.is_alive = True

    def execute(self, sql: str, binds: Sequence[Any] | Mapping[str, Any]) -> Result:
        self.note("execute")
        self.script.texts.append(sql)
        self.is_interrupted.clear()
        match sql.split():
            case ["WAIT" | "DEAF" as word, *_]:
                self._wait(hears=word == "WAIT")
            case ["LOSE", *_]:
                raise ConnectionError("the server is gone")
            case ["FAIL", *_]:
                raise StatementError("the server refused it", code="42000")
            case ["BEGIN" | "COMMIT" as word, *_]:
                self.script.is_inside = word == "BEGIN"
            case ["ROWS", number, *_]:
                rows = [[each] for each in range(int(number))]
                return Result(columns=["n"], values=rows[:3], rest=ScriptedRows(self, rows[3:]))
        return Result(columns=["text"], values=[[sql]], affected=1)

    def _wait(self, hears: bool) -> None:
        self.script.has_begun.release()
        deadline = Deadline(LIMIT_S)
        while not self.script.may_end.wait(0.001):
            assert not deadline.expired()
            if self.is_aborted.is_set():
                raise ConnectionError("the link was broken")
            if hears and self.is_interrupted.is_set():
                raise StatementError("canceled on user's request")

    def query(self, sql: str, binds: Sequence[Any] | Mapping[str, Any]) -> Rows:
        self.note("query")
        return super().query(sql, binds)

    @classmethod
    def joins(cls, sql: str) -> bool:
        return sql.startswith("JOIN")

    def execute_together(
        self, statements: Sequence[tuple[str, Any]]
    ) -> Sequence[Result | StatementError | ConnectionError]:
        self.note("execute_together")
        outcomes: list[Result | StatementError | ConnectionError] = []
        for sql, _ in statements:
            if sql == "JOIN LOSE":
                raise ConnectionError("the server is gone")
            if sql == "JOIN STOP":
                break
            self.script.texts.append(sql)
            refusal = StatementError("refused") if sql == "JOIN FAIL" else None
            outcomes.append(refusal or Result(affected=1))
        return outcomes

    def interrupt(self) -> None:
        self.note("interrupt")
        if self.interrupt_waits:
            assert self.script.may_interrupt.wait(LIMIT_S)
        self.is_interrupted.set()

    def abort(self) -> None:
        self.note("abort")
        self.is_aborted.set()

    def alive(self) -> bool:
        self.note("alive")
        return self.script.is_alive

    def reset(self) -> bool:
        self.note("reset")
        return self.script.can_reset

    def in_transaction(self) -> bool:
        self.note("in_transaction")
        return self.script.is_inside

    def begin(self) -> None:
        self.note("begin")
        self.script.is_inside = True

    def begin_as(self, how: str) -> None:
        self.note(f"begin {how}")
        self.script.is_inside = True

    def commit(self) -> None:
        self.note("commit")
        self.script.is_inside = False

    def rollback(self) -> None:
        self.note("rollback")
        self.script.is_inside = False

    def close(self) -> None:
        self.note("close")


class ScriptedRows(Rows):
    """The rows that a statement has left."""

    columns: ClassVar[list[str]] = ["n"]  # type: ignore[misc]

    def __init__(self, driver: ScriptedDriver, rows: list[list[int]]) -> None:
        self.driver = driver
        self.rows = rows
        self.is_closed = False

    def fetch(self, count: int) -> Sequence[Sequence[Any]]:
        self.driver.note("fetch")
        found, self.rows = self.rows[:count], self.rows[count:]
        return found

    def close(self) -> None:
        self.driver.note("close rows")
        self.is_closed = True


def driver_class(script: Script, **attributes: Any) -> type[ScriptedDriver]:
    """A class of drivers that obey `script`; `attributes` are those of `ExecDriver`."""
    return type("Driver", (ScriptedDriver,), {"script": script, **attributes})


class Mailbox:
    """Keeps the answers to requests that came by the router; answers those of the door itself."""

    def __init__(self) -> None:
        self.door: Door | None = None
        self.sent: list[tuple[bytes, bytes, bytes]] = []
        self.receive: Callable[[bytes, bytes, list[bytes]], None] = lambda *message: None

    def send(self, to: bytes, head: bytes, *body: bytes) -> None:
        if not self.answer(to, head, *body):
            self.sent.append((to, head, b"".join(body)))

    def answer(self, to: bytes, head: bytes, *body: bytes) -> bool:
        if not to.startswith(b"direct-"):
            return False
        guest = self.guest(to)
        if guest is not None:
            guest.send(head, *body)
        return True

    def guest(self, name: bytes) -> Guest | None:
        return self.door.guests.get(name) if self.door is not None else None

    def deliver(self, sender: bytes, head: bytes, body: bytes) -> None:
        self.receive(sender, head, [body])

    def left_ms(self, timeout_ms: float, until: float) -> float:
        return timeout_ms


class Worker:
    """The parts of a worker that its actor uses."""

    def __init__(self, options: Mapping[str, Any], succeeds: bool) -> None:
        self.loop = asyncio.get_running_loop()
        self.address = parse_address(ADDRESS, dict(options))
        self.holders: dict[bytes, bytes] = {HOLDER: b"", OTHER: b""}
        self.record: dict[str, Any] = {"number": 1, "handle": None}
        self.incarnation = 1
        self.succeeds = succeeds
        self.mailbox = Mailbox()
        self.lines: list[str] = []
        self.states: list[str] = []
        self.actor: ExecActor

    def base_stats(self) -> Stats:
        return Stats()

    def log(self, level: str, text: str) -> None:
        self.lines.append(text)

    def say_state(self) -> None:
        self.states.append(self.actor.state.value)


class Client:
    """A program that has come in by the door."""

    def __init__(self, host: Host, sock: socket.socket, name: bytes) -> None:
        self.name = name
        self._host = host
        self._sock = sock
        self._unframer = Unframer()

    async def send(self, *requests: bytes) -> None:
        """Send requests, in one piece."""
        await self._host.worker.loop.sock_sendall(self._sock, b"".join(requests))

    async def receive(self) -> tuple[Kind, int, Any]:
        """The kind, request id and value of the next answer, which comes alone."""
        while True:
            chunk = await self._host.worker.loop.sock_recv(self._sock, 1 << 16)
            assert chunk
            for head, body in self._unframer.feed(chunk):
                kind, number, fields = parse(head)
                return kind, number, fields[0] if kind is Kind.ERROR else values.unpack(body)

    async def exec(self, sql: str) -> Any:
        """The value that a statement without a deadline gives."""
        await self.send(exec_frame(1, sql))
        kind, _, value = await self.receive()
        assert kind is Kind.REPLY, value
        return value

    def close(self) -> None:
        self._sock.close()


def exec_frame(number: int, sql: str, holder: bytes = HOLDER) -> bytes:
    """An EXEC as it travels through the door."""
    head = header(Kind.EXEC, number, *messages.Statement(holder, None, None, None))
    return frame(head, values.pack([sql, []]))


class Host:
    """An actor with a scripted driver, and the means to ask it."""

    def __init__(
        self, script: Script, worker: Worker, actor: ExecActor, folder: Path | None
    ) -> None:
        self.script = script
        self.worker = worker
        self.actor = actor
        self.clients: list[Client] = []
        self._numbers = itertools.count(100)
        worker.mailbox.receive = self._receive
        if folder is not None:
            self._door_path = folder / "door"
            worker.mailbox.door = Door(self._door_path, self._receive, actor.left)

    def _receive(self, sender: bytes, head: bytes, body: list[bytes]) -> None:
        self.actor.receive(sender, *parse(head), body)

    def ask(
        self,
        kind: Kind,
        fields: tuple[Any, ...],
        *body: Any,
        sender: bytes = b"routed",
    ) -> int:
        """Send a request by the router; its number."""
        number = next(self._numbers)
        self.actor.receive(sender, kind, number, list(fields), [values.pack([*body])])
        return number

    def exec(self, sql: str, **more: Any) -> int:
        """Send a statement; its number."""
        return self.ask(Kind.EXEC, self.statement(**more), sql, [])

    def statement(
        self, holder: bytes = HOLDER, token: bytes | None = None, timeout_ms: float | None = None
    ) -> messages.Statement:
        return messages.Statement(holder, token, timeout_ms, None)

    def transaction(
        self, token: bytes, what: str, holder: bytes = HOLDER, ms: float = 20_000
    ) -> int:
        """Send a request to begin, commit or roll back; its number."""
        return self.ask(Kind.TRANSACTION, messages.Transaction(holder, token, what, ms, None))

    async def answer(self, number: int) -> Any:
        """The value that answers a request; raises the error that answers it."""
        while True:
            for _, head, body in self.worker.mailbox.sent:
                kind, its_number, fields = parse(head)
                if its_number == number and kind is Kind.ERROR:
                    raise from_wire(fields[0])
                if its_number == number and kind is Kind.REPLY:
                    return values.unpack(body)
            await asyncio.sleep(0.001)

    async def parts(self, number: int) -> list[Any]:
        """The rows that have come ahead of an answer."""
        found = []
        for _, head, body in self.worker.mailbox.sent:
            kind, its_number, _ = parse(head)
            if its_number == number and kind is Kind.PART:
                found += unpack_rows(body)
        return found

    async def answer_or_error(self, number: int) -> Any:
        """The value or the error that answers a request."""
        try:
            return await self.answer(number)
        except TrunklineError as error:
            return error

    async def error(self, number: int) -> Exception:
        """The error that answers a request."""
        answer = await self.answer_or_error(number)
        assert isinstance(answer, Exception), f"no error, but {answer}"
        return answer

    async def until(self, happened: Callable[[], object]) -> None:
        """Let the event loop run until `happened()` is true."""
        await until(happened)

    async def begun(self) -> None:
        """Wait for a statement that waits to begin."""
        await self.until(lambda: self.script.has_begun.acquire(blocking=False))

    async def connect(self) -> Client:
        """A client that comes in by the door."""
        door = self.worker.mailbox.door
        assert door is not None
        known = set(door.guests)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        await self.worker.loop.sock_connect(sock, str(self._door_path))
        await self.until(lambda: set(door.guests) - known)
        client = Client(self, sock, (set(door.guests) - known).pop())
        self.clients.append(client)
        return client

    async def close(self) -> None:
        """End the connection as a worker does, and wait for its threads."""
        self.script.may_open.set()
        self.script.may_interrupt.set()
        await self.actor.close(Ending.CLOSED)
        self.script.may_end.set()
        for client in self.clients:
            client.close()
        if self.worker.mailbox.door is not None:
            self.worker.mailbox.door.close()
        await self.until(lambda: not _threads())


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("trunkline-")]


@contextlib.asynccontextmanager
async def hosting(
    script: Script,
    *,
    folder: Path | None = None,
    succeeds: bool = False,
    opens: bool = True,
    options: Mapping[str, Any] | None = None,
    **attributes: Any,
) -> AsyncIterator[Host]:
    """An actor that is open. `folder`: that of its door, if it has one. `attributes`: of the driver."""
    worker = Worker(options or {}, succeeds)
    actor = worker.actor = ExecActor(worker, driver_class(script, **attributes))  # type: ignore[arg-type]
    host = Host(script, worker, actor, folder)
    try:
        if opens:
            await actor.open(Deadline(LIMIT_S))
        yield host
    finally:
        await host.close()


async def until(happened: Callable[[], object]) -> None:
    """Let the event loop run until `happened()` is true."""
    while True:
        if happened():
            return
        await asyncio.sleep(0.001)


def run(body: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine to its end; AssertionError when it hangs."""

    async def limited() -> None:
        async with asyncio.timeout(LIMIT_S):
            await body

    asyncio.run(limited())
