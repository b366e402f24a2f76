"""The worker process: one asyncio program for every scheme.

The worker holds the mailbox, keeps in touch with the broker, and runs one actor: a `StreamActor`
for reading and writing, or an `ExecActor` for statements. When the broker is lost, the worker keeps
its connection and its buffer. It then waits for another broker at the same address, as long as a
process lives that used the connection.

All methods of `Worker` run on the event loop. The threads of a database actor read attributes of
`Worker`, and call only those methods of the mailbox that any thread may call.
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
"""How often a worker without a broker checks whether it has to end, in seconds."""
CLOSE_S = 1.5
"""Seconds that the end of the connection may take (closing handshake, last acknowledgements)."""
SAME_COMPLAINT_S = 5.0
GARBAGE = (20_000, 20, 50)
"""Thresholds of the garbage collector. By default Python looks for cycles after 700 new objects.

A full buffer is thousands of objects without a cycle. Looking through them again and again takes a
fifth of a JetStream worker's time.
"""
OF_HOLDERS = frozenset((Kind.READ, Kind.TRANSACTION, Kind.QUERY, Kind.FETCH, Kind.END_QUERY))
"""Messages with a holder as first field. Without the holder, the message means nothing."""


class Actor(Protocol):
    """The interface between the worker and either kind of actor."""

    # Establish the first link, or raise an error in words for users.
    async def open(self, deadline: Deadline) -> None: ...
    # End the link. The worker waits for CLOSE_S seconds at most.
    async def close(self, ending: Ending) -> None: ...
    # Handle a message of a holder or of a thread of its program.
    def receive(
        self, sender: bytes, kind: Kind, request_id: int, fields: list[Any], body: list[bytes]
    ) -> None: ...
    # Handle the broker's ATTACH and DETACH: a holder comes, takes a new name, or goes.
    def attach(
        self, holder: bytes, control: bytes, old: bytes, epoch: int, consumed: int, kept: list[Any]
    ) -> None: ...
    def detach(self, holder: bytes, consumed: int | None) -> None: ...
    # A guest of the door has hung up.
    def left(self, sender: bytes) -> None: ...
    # Handle START: the holder is ready for its stream.
    def start(self, holder: bytes, down: bool, had: int, envelopes: bool) -> None: ...
    # Do periodic work; called at each beat.
    def tick(self) -> None: ...
    # Write the counters into the ledger, where the actor keeps any there.
    def note(self) -> None: ...
    def stats(self) -> Stats: ...
    # Values for the next worker, in case this worker is killed.
    def bequest(self) -> dict[str, Any]: ...


class Worker:
    """The process of one connection. `spec`: the arguments from the broker."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.record: dict[str, Any] = spec["record"]
        self.address = Address.from_wire(self.record["spec"]["address"])
        self.incarnation = int(spec["incarnation"])
        self.succeeds: bool = spec["succeeds"]
        """Whether a former worker of this connection had a link.

        The former worker has crashed, or was lost with its broker. A failed first dial then does
        not mean a wrong address, and is repeated.
        """
        self.members = Members(spec["holders"])
        if folder := self.address.extra.get(
            "cwd"
        ):  # statements may name files, too: ATTACH, VACUUM INTO
            with contextlib.suppress(OSError):
                os.chdir(folder)
        self.loop = asyncio.get_running_loop()
        self.ledger: Ledger | None = None
        # Make the actor before the mailbox: where the actor cannot be made, `_fail` opens a mailbox
        # of its own to tell the reason.
        self.actor = self._make_actor()
        self.mailbox = Mailbox(spec["broker"], spec["identity"], self._receive)
        self._contact = Contact(time.monotonic())
        self._watch = BrokerWatch(self.loop, self._lost_broker)
        self._users: list[int] = list(spec.get("users", ()))
        """Process ids of the programs whose objects have used the connection."""
        self._complained_at = -SAME_COMPLAINT_S
        self._closing = asyncio.Event()

    @property
    def holders(self) -> Mapping[bytes, bytes]:
        """Holder -> the control socket of its program."""
        return self.members.controls

    def _make_actor(self) -> Actor:
        """Make the actor for the address's driver. Imports only the modules of that actor."""
        driver: type[Driver] = driver_class(self.address.scheme)
        if issubclass(driver, StreamDriver):
            from trunkline.actors.stream.actor import StreamActor

            return StreamActor(self, driver)
        from trunkline.actors.database.actor import ExecActor

        assert issubclass(driver, ExecDriver)
        return ExecActor(self, driver)

    # life

    async def run(self) -> None:
        """Dial, and serve until told to close or orphaned; then end in good order."""
        dialing = asyncio.ensure_future(self.actor.open(Deadline.at_time(self.spec["until"])))
        # the dial waits for the peer while the worker registers with the broker
        await asyncio.sleep(0)
        self._watch.watch(int(self.spec["broker_pid"]))
        for signum in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(signum) == signal.SIG_IGN:
                continue  # `nohup trunkline broker`: the connections outlive the terminal
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
            # A living program starts another broker here, and needs the figures.
            if self._contact.is_lost and not any(map(is_alive, self._users)):
                with contextlib.suppress(TrunklineError):
                    endpoint.tidy(endpoint.folder_of(self.spec["broker"]))

    def _end_by_signal(self) -> None:
        """Handle a signal: end this process, and keep the figures for the broker.

        The connection may go on with another worker, so the figures stay like those of a killed
        worker.
        """
        self._closing.set()

    def _ending(self) -> Ending:
        """How the connection ends: in good order only if its last holder has called `close()`.

        A signal, `trunkline kill` or the end of the broker takes the connection away from a living
        holder. The driver then tells the peer of no good end.
        """
        for holder in list(self.holders):
            self.mailbox.hear(holder)
        return Ending.CLOSED if self.members.all_have_closed() else Ending.ABANDONED

    def _open_ledger(self) -> None:
        """Open the file of figures, which the broker reads after this process was killed.

        Without the file, the broker knows only the figures of the last STATE.
        """
        with contextlib.suppress(OSError, TrunklineError):
            path = endpoint.figures(self.spec["broker"], self.record["id"])
            self.ledger = Ledger(path, self.incarnation)
            self.actor.note()
            self.ledger.publish()

    def _open_door(self) -> None:
        """Open the door for proxies of this machine. Without a door, messages go by the router."""
        with contextlib.suppress(OSError, TrunklineError):
            path = endpoint.door(self.spec["broker"], self.record["id"])
            self.mailbox.door = Door(path, self._receive, self.actor.left)

    async def _dialled(self, dialing: asyncio.Future[None]) -> bool:
        """Wait for the first dial, and tell the broker the result. Returns whether a link is open.

        The replacement of a crashed worker keeps trying, as `reconnect` does.
        """
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
        """Beat, while dialling, too: a dial may take long, and a silent worker counts as hung."""
        while True:
            await asyncio.sleep(LOOK_S if self._contact.is_lost else BEAT_S)
            try:
                self._beat()
            except Exception as error:  # without its heartbeat a worker would never end
                self.log("error", f"in the heartbeat: {type(error).__name__}: {error}")

    def _beat(self) -> None:
        """One heartbeat: let the actor do its periodic work, and check the broker."""
        now = time.monotonic()
        self.actor.tick()
        if not self._contact.is_lost:
            self.mailbox.tell_broker(Kind.STATE, self._news())
            # Silence tells nothing of a broker whose process is watched: the broker, or this worker,
            # was stopped or starved. A worker that registers anew drops the requests on their way.
            if not self._watch.is_watching and self._contact.is_silent(now):
                # A hung broker counts as lost, too. Without pidfds, silence is the only sign of an
                # ended broker.
                self._lost_broker()
        elif self._contact.has_waited_long_enough(now, self._broker_may_come_back()):
            self.log("warning", "no broker came back: this worker ends")
            self._closing.set()

    def _broker_may_come_back(self) -> bool:
        """Whether a living process used this connection, or a broker is just starting."""
        return any(map(is_alive, self._users)) or endpoint.alive(self.spec["broker"])

    def say_state(self) -> None:
        """Tell the broker a new state at once."""
        if not self._contact.is_lost:
            self.mailbox.tell_broker(Kind.STATE, self._news())

    def _news(self) -> dict[str, Any]:
        """The news for the broker: the figures, and the bequest to the next worker."""
        return {**self.figures(), "bequest": self.actor.bequest()}

    def inherited(self) -> dict[str, Any]:
        """The bequest of the previous worker."""
        return dict(self.spec.get("bequest", {}))

    def figures(self) -> dict[str, Any]:
        """The statistics as they travel."""
        return self.actor.stats().to_wire()

    def base_stats(self) -> Stats:
        """The figures of earlier workers, which the counters of this one continue."""
        return Stats.from_wire(self.spec["stats"])

    def former(self) -> dict[bytes, int]:
        """The number of messages given to each holder by earlier workers, where known."""
        return dict(self.spec.get("had", ()))

    def log(self, level: str, text: str) -> None:
        """Write a line to the logs of the programs that hold this connection.

        `level`: as in `logging`.
        """
        if not self._contact.is_lost:
            self.mailbox.tell_broker(Kind.LOG, level, text)
        print(
            f"trunkline worker {os.getpid()} ({self.address.display}): {text}",
            file=sys.stderr,
            flush=True,
        )

    # the broker

    def _register(self) -> None:
        """Introduce this worker to the broker, or after a lost broker to the next."""
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
        """Wait for another broker at the same address, under a new identity.

        The ROUTER socket of the new broker must not take this worker's socket for the lost one.
        """
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
        """Handle a message of the broker (`sender` is b"") or of a holder."""
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
        except Exception as error:  # a malformed message must not affect the remaining holders
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        """Log an ignored message, and no further one for SAME_COMPLAINT_S seconds."""
        if time.monotonic() - self._complained_at >= SAME_COMPLAINT_S:
            self._complained_at = time.monotonic()
            what = str(error) if isinstance(error, TrunklineError) else type(error).__name__
            self.log("error", f"a message that cannot be understood was ignored: {what}")

    def _present_name(self, kind: Kind, fields: list[Any]) -> bytes:
        """Return the holder that a message of OF_HOLDERS names, by its present name.

        A former name in `fields` is replaced: the holder may have sent the message before the
        change of name.
        """
        message = TO_WORKER[kind](*fields)
        name = self.members.current_name(message.holder)
        if name != message.holder:
            fields[:] = message._replace(holder=name)
        return name

    def _start(self, sender: bytes, start: messages.Start) -> None:
        """Handle START: serve a holder from now on, by the way on which START came."""
        holder = self.members.current_name(start.holder)
        # the broker's GONE for the former worker is still on another way
        if 0 < start.serving < self.incarnation:
            gone = messages.Gone(True, "its worker was replaced", self.incarnation)
            self.mailbox.send(sender, header(Kind.GONE, 0, *gone))
        elif self.mailbox.bind(holder, sender):
            self.actor.start(holder, start.down, start.had, start.envelopes)

    def _tell_figures(self, sender: bytes, request_id: int) -> None:
        """Answer STATS with the figures."""
        # the figures include messages that were sent before this question
        for holder in list(self.holders):
            self.mailbox.hear(holder)
        self.mailbox.send(sender, header(Kind.REPLY, request_id), values.pack(self.figures()))

    def _hear_broker(self, kind: Kind, fields: list[Any]) -> None:
        """Handle a message of the broker. Any message shows that the broker lives."""
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
        """Handle ATTACH: a holder comes, or takes a new name."""
        # Read the holder's pipe under its former name first: the pipe may hold acknowledgements.
        self.mailbox.hear(came.former)
        early = self.members.come(came)
        self.mailbox.rebind(came.former, came.holder)
        self.actor.attach(*came)
        if early is not None:
            self._receive(*early)

    def _let_go(self, left: messages.HolderLeft) -> None:
        """Handle DETACH: a holder goes."""
        self.mailbox.hear(
            left.holder
        )  # its last acknowledgements: messages that it has read must go to no other holder
        self.members.leave(left)
        self.mailbox.rebind(left.holder, None)
        self.actor.detach(left.holder, left.consumed)


def _name_process(name: str) -> None:
    """Set the name that `ps -e` and `top` show (Linux)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            Path("/proc/self/comm").write_bytes(name.encode()[:15])


def main(spec: dict[str, Any]) -> None:
    """Run a worker from start to end, in its own process. `spec`: the broker's arguments."""
    # Ctrl-C in the terminal of `trunkline broker` reaches the workers, too. The broker ends them in
    # good order.
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
    """Set the worker up and run it; tell the broker where that fails."""
    try:
        worker = Worker(spec)
    except Exception as error:  # any error of a driver, too
        await _fail(spec, error)
        return
    await worker.run()


async def _fail(spec: dict[str, Any], error: Exception) -> None:
    """Tell the broker why this worker could not be set up."""
    mailbox = Mailbox(spec["broker"], spec["identity"], lambda *_: None)
    mailbox.tell_broker(Kind.FAILED, to_wire(error))
    mailbox.close()
