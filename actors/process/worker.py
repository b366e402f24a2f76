"""The worker process: one asyncio program for every scheme.

It holds the mailbox, keeps in touch with the broker, and runs one actor: a `StreamActor` for what is read
and written, an `ExecActor` for what executes statements. When its broker is lost it keeps its connection and
its buffer and waits for another broker to come up at the same address, as long as a process that used the
connection lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import os
import secrets
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from trunkline.actors.driver import Driver, Ending, ExecDriver, StreamDriver
from trunkline.actors.process.contact import BEAT_S, BrokerWatch, Contact
from trunkline.actors.process.door import Door
from trunkline.actors.process.mailbox import Mailbox
from trunkline.actors.process.members import Members, Message
from trunkline.actors.registry import driver_class
from trunkline.address import Address
from trunkline.deadline import Deadline
from trunkline.errors import TrunklineError, to_wire
from trunkline.system.processes import is_alive
from trunkline.wire import endpoint, messages, values
from trunkline.wire.envelope import Kind, header, parse
from trunkline.wire.ledger import Ledger
from trunkline.wire.messages import TO_WORKER, check
from trunkline.wire.stats import Stats

__all__ = ["Actor", "Worker", "main"]

LOOK_S = 0.25
"""How often a worker without a broker looks whether it has to end."""
CLOSE_S = 1.5
"""How long the end of the connection (words of goodbye, acknowledgements) may take."""
SAME_COMPLAINT_S = 5.0
GARBAGE = (20_000, 20, 50)
"""Python looks for cycles after 700 new objects. A full buffer is thousands that stay for a while and hold no
cycle: to look through them again and again takes a fifth of a JetStream worker's time."""
OF_HOLDERS = frozenset((Kind.READ, Kind.TRANSACTION, Kind.QUERY, Kind.FETCH, Kind.END_QUERY))
"""Messages that name a holder first, and mean nothing before it is one."""


class Actor(Protocol):
    """What the worker needs of either kind of actor."""

    async def open(self, deadline: Deadline) -> None: ...
    async def close(self, ending: Ending) -> None: ...
    def receive(
        self, sender: bytes, kind: Kind, request_id: int, fields: list[Any], body: list[bytes]
    ) -> None: ...
    def attach(
        self, holder: bytes, control: bytes, old: bytes, epoch: int, consumed: int, kept: list[Any]
    ) -> None: ...
    def detach(self, holder: bytes, consumed: int | None) -> None: ...
    def left(self, sender: bytes) -> None: ...
    def start(self, holder: bytes, down: bool, had: int, envelopes: bool) -> None: ...
    def tick(self) -> None: ...
    def note(self) -> None: ...
    def stats(self) -> Stats: ...
    def bequest(self) -> dict[str, Any]: ...


class Worker:
    """One connection's process."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.record: dict[str, Any] = spec["record"]
        self.address = Address.from_wire(self.record["spec"]["address"])
        self.incarnation = int(spec["incarnation"])
        self.succeeds: bool = spec["succeeds"]
        """A worker before this one had a link (a crashed one, or one that was lost with its broker): a dial
        that fails is no wrong address then, and is tried again."""
        self.members = Members(spec["holders"])
        if folder := self.address.extra.get(
            "cwd"
        ):  # statements may name files too: ATTACH, VACUUM INTO
            with contextlib.suppress(OSError):
                os.chdir(folder)
        self.loop = asyncio.get_running_loop()
        self.ledger: Ledger | None = None
        # Before the mailbox: where the actor cannot be made, `_fail` says why by a mailbox of its own.
        self.actor = self._make_actor()
        self.mailbox = Mailbox(spec["broker"], spec["identity"], self._receive)
        self._contact = Contact(time.monotonic())
        self._watch = BrokerWatch(self.loop, self._lost_broker)
        self._users: list[int] = list(spec.get("users", ()))
        """The processes whose objects have used the connection."""
        self._complained_at = -SAME_COMPLAINT_S
        self._closing = asyncio.Event()

    @property
    def holders(self) -> Mapping[bytes, bytes]:
        """Holder -> the control socket of its program."""
        return self.members.controls

    def _make_actor(self) -> Actor:
        driver: type[Driver] = driver_class(self.address.scheme)
        if issubclass(driver, StreamDriver):
            from trunkline.actors.stream.actor import StreamActor

            return StreamActor(self, driver)
        from trunkline.actors.database.actor import ExecActor

        assert issubclass(driver, ExecDriver)
        return ExecActor(self, driver)

    # life

    async def run(self) -> None:
        """Dial, serve until told to close or orphaned, end in good order."""
        dialing = asyncio.ensure_future(self.actor.open(Deadline.at_time(self.spec["until"])))
        await asyncio.sleep(0)  # it waits for the peer while we introduce ourselves
        self._watch.watch(int(self.spec["broker_pid"]))
        for signum in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(signum) == signal.SIG_IGN:
                continue  # `nohup trunkline broker`: the terminal's end is not the connections'
            self.loop.add_signal_handler(signum, self._end_by_signal)
        self._open_ledger()
        self._register()
        self._open_door()
        beating = asyncio.create_task(self._keep_beating())
        try:
            if await self._dialled(dialing):
                await self._closing.wait()
        finally:
            beating.cancel()
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self.actor.close(self._ending()), CLOSE_S)
            self._watch.stop()
            if not self._contact.is_lost:
                self.mailbox.tell_broker(Kind.STATE, self._news())
            self.mailbox.close()
            ledger, self.ledger = self.ledger, None
            if ledger is not None:
                ledger.close()
            # A program that lives starts another broker here, and needs the figures.
            if self._contact.is_lost and not any(map(is_alive, self._users)):
                with contextlib.suppress(TrunklineError):
                    endpoint.tidy(endpoint.folder_of(self.spec["broker"]))

    def _end_by_signal(self) -> None:
        """A signal ends this process alone: the connection may go on with another worker, so the figures stay
        for the broker, as those of a killed one do."""
        self._closing.set()

    def _ending(self) -> Ending:
        """How the connection ends now: in good order only when its last holder closed it. One that a signal,
        `trunkline kill` or the end of its broker takes away from a living holder is no good end."""
        for holder in list(self.holders):
            self.mailbox.hear(holder)
        return Ending.CLOSED if self.members.all_have_closed() else Ending.ABANDONED

    def _open_ledger(self) -> None:
        """Keep the figures where the broker finds them should this process be killed; without it, the broker
        knows those of a moment before."""
        with contextlib.suppress(OSError, TrunklineError):
            path = endpoint.figures(self.spec["broker"], self.record["id"])
            self.ledger = Ledger(path, self.incarnation)
            self.actor.note()
            self.ledger.publish()

    def _open_door(self) -> None:
        """Let proxies of this machine in directly; without it everything goes through the router."""
        with contextlib.suppress(OSError, TrunklineError):
            path = endpoint.door(self.spec["broker"], self.record["id"])
            self.mailbox.door = Door(path, self._receive, self.actor.left)

    async def _dialled(self, dialing: asyncio.Future[None]) -> bool:
        """The first dial. A replacement for a crashed worker keeps trying as `reconnect` would."""
        closing = asyncio.ensure_future(self._closing.wait())
        both: list[asyncio.Future[Any]] = [dialing, closing]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        closing.cancel()
        if not dialing.done():
            dialing.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await dialing
            return False
        error = dialing.exception()
        if error is not None:
            self.mailbox.tell_broker(Kind.FAILED, to_wire(error))
            return False
        self.mailbox.tell_broker(Kind.OPENED, self._news())
        return True

    async def _keep_beating(self) -> None:
        """While dialling too, which may take long: a worker that is silent counts as stuck."""
        while True:
            await asyncio.sleep(LOOK_S if self._contact.is_lost else BEAT_S)
            try:
                self._beat()
            except Exception as error:  # without its heart a worker would never end
                self.log("error", f"in the heartbeat: {type(error).__name__}: {error}")

    def _beat(self) -> None:
        now = time.monotonic()
        self.actor.tick()
        if not self._contact.is_lost:
            self.mailbox.tell_broker(Kind.STATE, self._news())
            if self._contact.is_silent(now):
                self._lost_broker()
        elif self._contact.has_waited_long_enough(now, self._broker_may_come_back()):
            self.log("warning", "no broker came back: this worker ends")
            self._closing.set()

    def _broker_may_come_back(self) -> bool:
        """Whether a process lives that used this connection, or a broker is just being started."""
        return any(map(is_alive, self._users)) or endpoint.alive(self.spec["broker"])

    def say_state(self) -> None:
        """Tell the broker now that the state changed."""
        if not self._contact.is_lost:
            self.mailbox.tell_broker(Kind.STATE, self._news())

    def _news(self) -> dict[str, Any]:
        """What the broker keeps: the figures, and what the next worker is to know."""
        return {**self.figures(), "bequest": self.actor.bequest()}

    def inherited(self) -> dict[str, Any]:
        """What the worker before this one left for it."""
        return dict(self.spec.get("bequest", {}))

    def figures(self) -> dict[str, Any]:
        """The statistics as they travel."""
        return self.actor.stats().to_wire()

    def base_stats(self) -> Stats:
        """The figures of the workers before this one; the counters go on from there."""
        return Stats.from_wire(self.spec["stats"])

    def former(self) -> dict[bytes, int]:
        """What each holder was given by the workers before this one, as far as they left word of it."""
        return dict(self.spec.get("had", ()))

    def log(self, level: str, text: str) -> None:
        """One line for the log of everyone who holds this connection; `level` as in `logging`."""
        if not self._contact.is_lost:
            self.mailbox.tell_broker(Kind.LOG, level, text)
        print(
            f"trunkline worker {os.getpid()} ({self.address.display}): {text}",
            file=sys.stderr,
            flush=True,
        )

    # the broker

    def _register(self) -> None:
        holders = [[holder, control] for holder, control in self.holders.items()]
        self.mailbox.tell_broker(
            Kind.READY,
            self.record,
            self.incarnation,
            os.getpid(),
            holders,
            self._news(),
            self._users,
        )

    def _lost_broker(self) -> None:
        """Wait for another broker at the same address, under another identity: the new broker's router must
        not take this worker for one that it knows."""
        if not self._contact.lose(time.monotonic()):
            return
        self._watch.stop()
        identity = (
            b"w" + self.record["id"] + self.incarnation.to_bytes(4, "big") + secrets.token_bytes(4)
        )
        self.mailbox.replace(identity)
        self._register()

    # messages

    def _receive(self, sender: bytes, head: bytes, body: list[bytes]) -> None:
        """Take in a message of the broker (sender b"") or of a holder."""
        try:
            kind, request_id, fields = parse(head)
            if sender == b"":
                self._hear_broker(kind, fields)
                return
            if kind in TO_WORKER:
                check(TO_WORKER[kind], fields)
            if kind in OF_HOLDERS:
                holder = self._present_name(kind, fields)
                if holder not in self.holders:
                    self.members.keep_early(holder, Message(sender, head, body))
                    return
                if kind is Kind.READ and not self.mailbox.speaks_for(sender, holder):
                    return  # the holder has closed that pipe since, and would not see the answer
            if kind is Kind.START:
                self._start(sender, messages.Start(*fields))
            elif kind is Kind.CLOSING:
                self.members.note_closing(
                    self.members.current_name(messages.Closing(*fields).holder)
                )
            elif kind is Kind.STATS:
                self._tell_figures(sender, request_id)
            else:
                self.actor.receive(sender, kind, request_id, fields, body)
        except Exception as error:  # whatever a peer sends, the others must not feel it
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        """One line about a message that was ignored, and no further one for a while."""
        if time.monotonic() - self._complained_at >= SAME_COMPLAINT_S:
            self._complained_at = time.monotonic()
            what = str(error) if isinstance(error, TrunklineError) else type(error).__name__
            self.log("error", f"a message that cannot be understood was ignored: {what}")

    def _present_name(self, kind: Kind, fields: list[Any]) -> bytes:
        """The holder that a message of OF_HOLDERS names. A former name in `fields` becomes the present one:
        the holder may have spoken before it heard of its new name."""
        message = TO_WORKER[kind](*fields)
        name = self.members.current_name(message.holder)
        if name != message.holder:
            fields[:] = message._replace(holder=name)
        return name

    def _start(self, sender: bytes, start: messages.Start) -> None:
        """A holder can be served from now on, at the end of the pipe from which its START came."""
        holder = self.members.current_name(start.holder)
        if 0 < start.serving < self.incarnation:  # the broker's word of that is on another way
            gone = messages.Gone(True, "its worker was replaced", self.incarnation)
            self.mailbox.send(sender, header(Kind.GONE, 0, *gone))
        elif self.mailbox.bind(holder, sender):
            self.actor.start(holder, start.down, start.had, start.envelopes)

    def _tell_figures(self, sender: bytes, request_id: int) -> None:
        for holder in list(self.holders):  # the figures hold what was said before the question
            self.mailbox.hear(holder)
        self.mailbox.send(sender, header(Kind.REPLY, request_id), values.pack(self.figures()))

    def _hear_broker(self, kind: Kind, fields: list[Any]) -> None:
        self._contact.hear(time.monotonic())
        if kind is Kind.BEAT:
            beat = messages.WorkerBeat(*fields)
            self._users = [int(pid) for pid in beat.users]
            self._watch.watch(int(beat.pid))
        elif kind is Kind.REREGISTER:
            self._register()
        elif kind is Kind.RECORD:
            self.record = messages.Record(*fields).record
        elif kind is Kind.CLOSE:
            self._closing.set()
        elif kind is Kind.ATTACH:
            self._let_in(messages.HolderCame(*fields))
        elif kind is Kind.DETACH:
            self._let_go(messages.HolderLeft(*fields))

    def _let_in(self, came: messages.HolderCame) -> None:
        self.mailbox.hear(came.former)
        early = self.members.come(came)
        self.mailbox.rebind(came.former, came.holder)
        self.actor.attach(*came)
        if early is not None:
            self._receive(*early)

    def _let_go(self, left: messages.HolderLeft) -> None:
        self.mailbox.hear(
            left.holder
        )  # its last acknowledgements: what it has read goes to nobody else
        self.members.leave(left)
        self.mailbox.rebind(left.holder, None)
        self.actor.detach(left.holder, left.consumed)


def _name_process(name: str) -> None:
    """The name that `ps -e` and `top` show (Linux)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            Path("/proc/self/comm").write_bytes(name.encode()[:15])


def main(spec: dict[str, Any]) -> None:
    """A worker's whole life; called in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    gc.set_threshold(*GARBAGE)
    if hasattr(faulthandler, "register"):
        faulthandler.register(signal.SIGUSR1, all_threads=True)
    _name_process(f"trunk-{spec['record']['spec'].get('scheme', '')}")
    try:
        from uvloop import new_event_loop
    except ImportError:
        from asyncio import new_event_loop  # type: ignore[assignment]
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_main(spec))


async def _main(spec: dict[str, Any]) -> None:
    try:
        worker = Worker(spec)
    except Exception as error:  # a driver's own too
        await _fail(spec, error)
        return
    await worker.run()


async def _fail(spec: dict[str, Any], error: Exception) -> None:
    """A worker that could not even be set up says why."""
    mailbox = Mailbox(spec["broker"], spec["identity"], lambda *_: None)
    mailbox.tell_broker(Kind.FAILED, to_wire(error))
    mailbox.close()
