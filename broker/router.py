"""The broker: a plain poll loop around one ROUTER socket. Longer than most modules here because the
whole life of a connection, from OPEN to its end, is one conversation and is best read in one place.

It forwards what is between proxies and workers without decoding it, and itself speaks about life and
death only: who is there, who starts, who holds, who is gone. It knows neither drivers nor `Connection`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from trunkline.broker import journal
from trunkline.broker.directory import Client, Connection, Directory, Opening
from trunkline.broker.figures import RETURN_S, Bequests, programs_of_workers, settled
from trunkline.broker.lifecycle import (
    Action,
    CloseWorker,
    FailDials,
    Forget,
    GiveUp,
    KillWorker,
    OrderWorker,
    TellEnd,
    WaitForNext,
)
from trunkline.broker.place import Place
from trunkline.broker.presence import is_cut_off
from trunkline.broker.process import Watch, ending_signals
from trunkline.broker.spawner import Ended, Refused, Spawner, Started
from trunkline.broker.succession import reap
from trunkline.broker.supervisor import Crashes, describe_exit
from trunkline.errors import (
    BrokerGone,
    DeadHandle,
    DialError,
    DialTimeout,
    OutcomeUnknown,
    TrunklineError,
    WorkerDied,
    to_wire,
)
from trunkline.system.limits import make_context
from trunkline.system.processes import is_alive
from trunkline.wire import endpoint, messages, values
from trunkline.wire.envelope import (
    BROKER,
    CONNECTION_ID_BYTES,
    REQUESTS,
    STATEMENTS,
    Kind,
    header,
    kind_of,
    parse,
)
from trunkline.wire.ledger import read_ledger, unpublished
from trunkline.wire.state import State

__all__ = ["Broker"]

TICK_S = 0.25
SILENT_S = 10.0
"""A worker that has said nothing for so long is killed; its second-long heartbeats come from its I/O loop."""
STALL_S = 2.0
"""A tick that comes so much too late: the broker itself was stopped, or the machine slept."""
OPEN_GRACE_S = 0.5
FIRST_CLIENT_S = 15.0
ADOPT_S = 6.0
"""How long a new broker at an old address waits for the workers that are to register again, and a connection
that has registered waits for the objects that held it."""
ABANDONED_S = 60.0
"""How long the OPEN of a Dial that was given up may take to arrive behind the word of that."""
JOURNAL_EVERY_S = 5.0
UNBIND_S = 0.05
COMPLAIN_EVERY_S = 1.0
LAST_WORDS_S = 1.0
"""How long the words of a worker that has ended in good order may take to arrive: on a busy machine, long."""
REFRESH_EVERY_S = 3600.0


class Broker:
    """See the module. `persistent`: do not end when the last client has gone. `starter`: the process that is
    to be the first client; should it die before it is, nobody else will come."""

    def __init__(
        self, address: str, spawner: Spawner, *, persistent: bool = False, starter: int | None = None
    ) -> None:
        self.address = address
        self.persistent = persistent
        self.directory = Directory()
        self.started = time.monotonic()
        self._starter = starter
        self._spawner = spawner
        self.place = Place(address)
        self.directory.number_from(self.place.last_number())
        self._spawner_ends = Crashes()
        self._spawner_heard = 0.0
        self._bequests = Bequests()
        self._awaited = self._former_workers()
        self._former_programs = programs_of_workers(address)
        self._context = make_context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.setsockopt(zmq.LINGER, 200)
        self._router.setsockopt(zmq.SNDHWM, 100_000)
        self._router.setsockopt(zmq.RCVHWM, 0)
        self._router.setsockopt(zmq.BACKLOG, 1024)
        self._router.bind(address)
        self._selector = selectors.DefaultSelector()
        self._told_to_stop = False
        self._stopping: float | None = None
        self._idle_stop = False
        self.ended_early = False
        """It was stopped when programs of the broker before it had yet to come: they start another one."""
        self._had_client = False
        self._waiting: list[list[bytes]] = []
        self._abandoned: dict[bytes, float] = {}
        self._left: set[int] = set()
        self._speaking: set[Watch] = set()
        self._endings: list[tuple[float, Connection, Watch]] = []
        self._journal_at = 0.0
        self._complained_at = 0.0
        self._refresh_at = 0.0
        self._exits: dict[int, int] = {}
        self._children: set[int] = set()
        self._next_tick = 0.0
        self._handlers: dict[Kind, Callable[[bytes, int, list[Any], list[bytes]], None]] = {
            Kind.HELLO: self._hello,
            Kind.BEAT: self._beat,
            Kind.BYE: self._bye,
            Kind.OPEN: self._open,
            Kind.OPENED: self._opened,
            Kind.FAILED: self._open_failed,
            Kind.ATTACH: self._attach,
            Kind.DETACH: self._detach,
            Kind.HANDLE: self._handle,
            Kind.LIST: self._list,
            Kind.KILL: self._kill,
            Kind.READY: self._ready,
            Kind.STATE: self._state,
            Kind.LOG: self._log,
        }

    def _former_workers(self) -> set[bytes]:
        """The connections whose workers wait here for a broker, after the last one was killed."""
        found = set()
        for path in endpoint.doors(endpoint.folder_of(self.address)):
            with contextlib.suppress(OSError, ValueError):
                if endpoint.answers(path):
                    found.add(bytes.fromhex(path.name.removeprefix("w-")))
                else:
                    path.unlink()
        return found

    def _awaits_programs(self) -> bool:
        """Whether one of them lives and may yet come."""
        return time.monotonic() - self.started < RETURN_S and any(map(is_alive, self._former_programs))

    # the loop

    def run(self, ready: Callable[[], None]) -> None:
        """Serve until the last client is gone (or, when persistent, until SIGTERM). `ready` is called when
        signals are heeded: whoever is told may send one at once."""
        wake_r, wake_w = os.pipe()
        os.set_blocking(wake_r, False)
        os.set_blocking(wake_w, False)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        # A handler may interrupt the loop between two frames of a message, so it sends nothing itself.
        for number in ending_signals():
            signal.signal(number, self._note_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only to wake the loop
        self._selector.register(int(self._router.getsockopt(zmq.FD)), selectors.EVENT_READ, None)
        self._selector.register(self._spawner.fileno(), selectors.EVENT_READ, self._take_spawner_events)
        self._selector.register(wake_r, selectors.EVENT_READ, lambda: self._woken(wake_r))
        try:
            ready()
            while self._stopping is None or self.directory.connections:
                # The router is drained last: its descriptor tells of new messages only once.
                self._drain_router()
                now = time.monotonic()
                for key, _ in self._selector.select(max(0.0, self._next_tick - now)):
                    if key.data is not None:
                        key.data()
                if time.monotonic() >= self._next_tick:
                    self._tick(time.monotonic())
        finally:
            self._end()
            os.close(wake_r)
            os.close(wake_w)

    def _note_signal(self, number: int, frame: object) -> None:
        self._told_to_stop = True

    def _woken(self, wake: int) -> None:
        """A signal came: an order to stop, or the end of a child (the zygote, or, where we are process 1,
        anybody's)."""
        with contextlib.suppress(BlockingIOError):
            os.read(wake, 4096)
        if self._told_to_stop:
            self.stop()
        for pid in reap():
            self._spawner.has_ended(pid)

    def stop(self) -> None:
        """End all connections in good order, then the broker."""
        if self._stopping is None:
            self._stopping = time.monotonic()
            starter_lives = self._starter is not None and is_alive(self._starter)
            self.ended_early = (
                not self._idle_stop
                and self._stopping - self.started < ADOPT_S
                and (starter_lives or bool(self.directory.clients) or self._awaits_programs())
            )
            for connection in self.directory:
                if connection.closing is None:
                    peer = connection.stats.get("peer", "")
                    text = f"the connection to {peer} has ended: the broker was stopped; dial again"
                    self._tell_log(connection, text, level="error")
                self._close(connection, "the broker was stopped")

    def _end(self) -> None:
        for connection in self.directory:
            if connection.watch is not None:
                connection.watch.kill()
        self._spawner.close(stays=self.ended_early)
        self._selector.close()
        self._router.close()
        self._context.term()

    def _drain_router(self) -> None:
        receive = self._router.recv_multipart
        while True:
            try:
                frames = receive(zmq.NOBLOCK)
            except zmq.Again:
                return
            if len(frames) < 3:
                continue
            try:
                self._forward(frames) if frames[1] else self._own(frames)
            except Exception as error:
                # Whatever a peer sends, the others must not feel it, and its words stay out of the log.
                self._complain(frames[0], error)

    def _forward(self, frames: list[bytes]) -> None:
        """[from][to][header][body...] -> [to's socket][from][header][body...]."""
        sender, to = frames[0], frames[1]
        connection = self.directory.by_worker.get(sender)
        if connection is not None:  # from a worker, so `to` is a socket of a client
            if kind_of(frames[2]) != Kind.PART:
                connection.inflight.pop(to, None)
            frames[0], frames[1] = to, connection.id
        elif len(to) == CONNECTION_ID_BYTES:
            connection = self.directory.connections.get(to)
            if connection is None or connection.worker is None:
                self._answer_for(connection, sender, frames[2], self.directory.why_ended(to))
                return
            head = frames[2]
            frames[0], frames[1] = connection.worker, sender
            if not self._send(frames):  # it is starting, or just gone, and will not answer
                self._answer_for(connection, sender, head)
            elif kind_of(head) in REQUESTS:
                connection.inflight[sender] = head
            return
        else:
            return  # from a worker we do not know (yet): it will register
        self._send(frames)

    def _send(self, frames: list[bytes]) -> bool:
        try:
            self._router.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            print(f"trunkline broker: a peer does not take its messages, one was refused: {frames[0].hex()}")
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return False
        return True

    def _say(self, to: bytes, kind: Kind, request_id: int = 0, *fields: Any, sender: bytes = BROKER) -> bool:
        return self._send([to, sender, header(kind, request_id, *fields)])

    def _own(self, frames: list[bytes]) -> None:
        kind, request_id, fields = parse(frames[2])
        handler = self._handlers[kind]
        handler(frames[0], request_id, fields, frames[3:])

    def _complain(self, sender: bytes, error: Exception) -> None:
        if isinstance(error, TrunklineError):  # another version: say so
            self._say(sender, Kind.ERROR, 0, to_wire(error))
            return
        if time.monotonic() >= self._complained_at:
            self._complained_at = time.monotonic() + COMPLAIN_EVERY_S
            what = type(error).__name__
            print(f"trunkline broker: a malformed message was ignored: {what}", file=sys.stderr)

    # clients

    def _hello(self, sender: bytes, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        pid = int(messages.Hello(*fields).pid)
        self._former_programs.discard(pid)
        if sender not in self.directory.clients:
            for former in [c.id for c in self.directory.clients.values() if c.pid == pid]:
                if self.directory.clients[former].watch.is_replaced():
                    self._let_go(former)
                    for connection in self.directory:
                        if former in connection.users:
                            connection.users.add(sender)
                    self._client_gone(former)
            watch = Watch(pid)
            self.directory.clients[sender] = Client(sender, pid, watch, time.monotonic())
            self._watch(watch, lambda: self._client_gone(sender))
            self._had_client = True
            self._left.discard(pid)
            if self._idle_stop:  # it came before the last worker had ended: so we stay
                self._idle_stop, self._stopping = False, None
            self._returned(sender, pid)
        self._say(sender, Kind.WELCOME, request_id, os.getpid())

    def _is_succeeded(self, key: bytes, users: Sequence[int]) -> bool:
        """Whether all living programs that used this connection have dialled it anew at this broker.

        Its worker (which was stopped meanwhile, say) would only take messages that nobody reads: those of a
        queue or a durable consumer are the new worker's.
        """
        heir = self.directory.heir_of(key)
        if heir is None:
            return False
        here = {self.directory.clients[each].pid for each in heir.users if each in self.directory.clients}
        return all(int(pid) in here for pid in users if is_alive(int(pid)))

    def _returned(self, control: bytes, pid: int) -> None:
        """A process that used connections of the broker before us is here; its objects come next."""
        for connection in self.directory:
            if pid in connection.expected:
                connection.users.add(control)
                connection.adopted_at = time.monotonic()
                if connection.lonely_since is not None:
                    connection.lonely_since = time.monotonic()

    def _beat(self, sender: bytes, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        client = self.directory.clients.get(sender)
        if client is not None:
            client.heard = time.monotonic()
        self._say(sender, Kind.REREGISTER if client is None else Kind.BEAT, 0, os.getpid())

    def _bye(self, sender: bytes, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        client = self.directory.clients.get(sender)
        if client is not None:
            self._left.add(client.pid)  # it lives, but need not be waited for
            for connection in self.directory:
                connection.expected = [pid for pid in connection.expected if pid != client.pid]
            # all that it goes by: while we were stopped it may have taken us for lost, and have come anew
            for each in [other.id for other in self.directory.clients.values() if other.pid == client.pid]:
                self._client_gone(each)

    def _client_gone(self, control: bytes) -> None:
        client = self.directory.clients.pop(control, None)
        if client is None:
            return
        self._unwatch(client.watch)
        for connection in self.directory:
            for holder in [h for h, c in connection.holders.items() if c == control]:
                self._drop_holder(connection, holder, None)
            if control in connection.users:
                connection.users.discard(control)
                self._still_wanted(connection)

    def _let_go(self, control: bytes) -> None:
        """The process has gone over to another program by `exec`, which knows nothing of its objects; it may
        have been given a handle."""
        for connection in self.directory:
            for holder in [h for h, c in connection.holders.items() if c == control]:
                self._drop_holder(connection, holder, None)
            if control in connection.users:
                if connection.handle is None:
                    connection.users.discard(control)
                self._still_wanted(connection)

    # opening

    def _open(self, sender: bytes, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        control, timeout_ms, restart, linger_s = messages.Open(*fields)
        if self._abandoned.pop(sender, None) is not None:
            return
        spec = values.unpack(body[0])
        if not isinstance(spec, dict) or not isinstance(spec["display"], str):
            raise ValueError("no address to dial")
        key, name, comes_again = _former(spec.pop("former", None))
        if self._stranger(sender, request_id, control):
            return
        deadline = time.monotonic() + timeout_ms / 1000 + OPEN_GRACE_S
        opening = Opening(sender, control, request_id, deadline, name)
        heir = self.directory.heir_of(key)
        if heir is not None and heir.spec["display"] == spec["display"]:
            self._share(heir, opening)  # its objects shared one connection, and do so again
            return
        # An heir may be about to end, or its worker may have yet to register here.
        if key and (self.directory.is_heir_ending(key) or self._adopting()):
            self._waiting.append([sender, BROKER, header(Kind.OPEN, request_id, *fields), *body])
            return
        if spec.get("joins"):
            if self._adopting():  # the one to join may have yet to register
                self._waiting.append([sender, BROKER, header(Kind.OPEN, request_id, *fields), *body])
                return
            there = self._joinable(spec)
            if there is not None:
                self._join(there, opening, spec)
                return
        number = self.directory.next_number()
        self.place.keep_number(number)
        connection = Connection(self.directory.new_id(), number, spec, bool(restart), float(linger_s))
        connection.stats = {"scheme": spec.get("scheme", ""), "peer": spec.get("display", "")}
        connection.former = key
        if key:
            connection.former_names[sender] = name
        bequest = self._bequest(key, name, comes_again, sender, connection.id)
        if bequest is not None:
            connection.stats.update(bequest[0])
            connection.had = bequest[1]
            connection.inherits = True
        connection.holders[sender] = control
        connection.users.add(control)
        connection.opening = opening
        self.directory.add(connection)
        self._carry_out(connection, connection.life.order_worker(), timeout_ms)

    def _bequest(
        self, key: bytes, name: bytes, comes_again: bool, holder: bytes, claimant: bytes
    ) -> tuple[dict[str, Any], dict[bytes, int]] | None:
        """What the worker left that this object had under the broker before us."""
        if not key or key in self.directory.connections or endpoint.answers(endpoint.door(self.address, key)):
            return None  # its worker lives, and writes there
        path = endpoint.figures(self.address, key)
        return self._bequests.claim((key, name, comes_again), holder, claimant, path)

    def _joinable(self, spec: dict[str, Any]) -> Connection | None:
        """The connection that a Dial of a name is to have, unless those who held it have all left: the word
        of that may come after the Dial, by another socket, so that the Dial brings it too."""
        left = spec.pop("left", ())
        there = self.directory.joinable(spec["joins"][0])
        if there is None:
            return None
        for holder in left:
            if holder in there.holders:
                self._drop_holder(there, holder, None, closed=True)
        self._still_wanted(there)
        return there if there.closing is None else None

    def _join(self, connection: Connection, opening: Opening, spec: dict[str, Any]) -> None:
        """Let a Dial have a connection that is there already, and that is the same one by its name."""
        if connection.joins != spec["joins"]:
            text = (
                f"{spec['display']}: this database in memory is open already and stays as it was dialled "
                "first; the parameters of this Dial have no effect"
            )
            self._say(opening.control, Kind.LOG, 0, "warning", text)
        self._share(connection, opening)

    def _share(self, connection: Connection, opening: Opening) -> None:
        """A further holder, whose Dial is answered when the connection is open."""
        connection.holders[opening.holder] = opening.control
        connection.users.add(opening.control)
        if opening.former_name:
            connection.former_names[opening.holder] = opening.former_name
        connection.lonely_since = None
        if connection.state is State.DIALING:
            connection.joining.append(opening)
        else:
            self._joined(connection, opening)

    def _joined(self, connection: Connection, opening: Opening) -> None:
        self._tell_of_holder(connection, opening.holder, opening.control, opening.former_name)
        info = {**connection.figures(), "number": connection.number, "serving": connection.serving}
        self._say(opening.holder, Kind.OPENED, opening.request_id, connection.id, info)

    def _stranger(self, sender: bytes, request_id: int, control: bytes) -> bool:
        """Whether the process has yet to introduce itself (to us: we may have taken over from a broker that
        it knew). A connection held by nobody we can watch would never end."""
        if control in self.directory.clients:
            return False
        error = BrokerGone("the broker was replaced meanwhile; try again")
        self._say(sender, Kind.FAILED, request_id, to_wire(error))
        return True

    def _carry_out(
        self, connection: Connection, actions: list[Action], timeout_ms: float | None = None
    ) -> None:
        """Do what the life of a connection wants. `timeout_ms`: the time that a worker has for its first
        link, where it is ordered for a Dial."""
        for action in actions:
            match action:
                case OrderWorker(incarnation):
                    self._order_worker(connection, incarnation, timeout_ms)
                case CloseWorker():
                    if connection.worker is not None:
                        self._say(connection.worker, Kind.CLOSE)
                case KillWorker():
                    if connection.watch is not None:
                        connection.watch.kill()
                case FailDials(error):
                    self._answer_dials(connection, error)
                case WaitForNext(due, how):
                    self._announce_next(connection, due, how)
                case GiveUp(why):
                    self._give_up(connection, why)
                case TellEnd():
                    self._tell_holders(connection, final=True)
                case Forget():
                    self._forget(connection)

    def _order_worker(self, connection: Connection, incarnation: int, timeout_ms: float | None) -> None:
        identity = b"w" + connection.id + incarnation.to_bytes(4, "big") + secrets.token_bytes(4)
        self.directory.set_worker(connection, identity)
        connection.heard = time.monotonic()
        self._spawner.start(
            connection.id.hex(),
            {
                "identity": identity,
                "broker": self.address,
                "broker_pid": os.getpid(),
                "incarnation": incarnation,
                # not where the one before it has never opened: a Dial waits for the first link
                "succeeds": (incarnation > 1 and connection.opening is None) or bool(connection.former),
                "until": None if timeout_ms is None else time.monotonic() + timeout_ms / 1000,
                "holders": [[h, c] for h, c in connection.holders.items()],
                "users": self._user_pids(connection),
                "stats": connection.figures() if incarnation > 1 or connection.inherits else {},
                "had": list(connection.had.items()),
                "bequest": connection.bequest,
                "record": connection.record(),
            },
        )

    def _opened(self, sender: bytes, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        connection = self.directory.by_worker.get(sender)
        if connection is None:
            return
        news = messages.Linked(*fields).news
        self._note(connection, news)
        connection.has_opened = True
        opening, connection.opening = connection.opening, None
        self._bequests.settle(connection.id, opened=opening is not None)
        if opening is not None:
            info = {**news, "serving": connection.serving}
            self._say(opening.holder, Kind.OPENED, opening.request_id, connection.id, info)
        elif connection.crashed_at is not None:
            outage_s = time.monotonic() - connection.crashed_at
            peer = connection.stats.get("peer", "")
            self._tell_log(connection, f"{peer} is open again after {outage_s:.1f} s, with a new worker")
        connection.crashed_at = None
        joining, connection.joining = connection.joining, []
        for each in joining:
            self._joined(connection, each)

    def _open_failed(self, sender: bytes, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        connection = self.directory.by_worker.get(sender)
        if connection is not None:
            error = messages.Failed(*fields).error
            self._carry_out(connection, connection.life.fail_dials(error))
            self._close(connection, str(error.get("text")))

    def _answer_dials(self, connection: Connection, error: dict[str, Any] | None) -> None:
        """Tell the Dials that wait for a connection why it could not be opened."""
        if error is None:
            peer = connection.stats.get("peer", "")
            text = f"the connection to {peer} could not be opened: {connection.reason}"
            error = to_wire(WorkerDied(text))
        waiting = connection.all_opening()
        connection.opening, connection.joining = None, []
        self._bequests.settle(connection.id, opened=False)  # for the next attempt
        for opening in waiting:
            self._say(opening.holder, Kind.FAILED, opening.request_id, error)

    # holders

    def _attach(self, sender: bytes, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        attach = messages.Attach(*fields)
        handle, control = attach.handle, attach.control
        if self._abandoned.pop(sender, None) is not None:
            return
        by_handle, by_id = self.directory.by_handle, self.directory.connections
        found = by_handle.get(handle) if handle else by_id.get(attach.connection)
        if self._stranger(sender, request_id, control) or (
            found is None and self._later(sender, Kind.ATTACH, request_id, fields)
        ):
            return
        if found is None or found.closing is not None or found.state is State.FAILED:
            why = self.directory.why_ended(handle or attach.connection)
            if found is not None and found.reason:
                why = f": {found.reason}"
            text = (
                f"the connection{' of this handle' if handle else ''} has ended{why}; dial its address again"
            )
            if handle and found is None and not why:
                text = (
                    f"no connection of this handle is known at this broker ({self.address}): it has "
                    "ended, or belongs to another broker; set TRUNKLINE_BROKER to that one, or "
                    "dial its address again"
                )
            self._say(sender, Kind.FAILED, request_id, to_wire(DeadHandle(text)))
            return
        found.holders.pop(attach.former, None)
        found.ghosts.discard(attach.former)
        found.holders[sender] = control
        found.users.add(control)
        found.lonely_since = None
        if attach.former in found.had:
            found.had[sender] = found.had.pop(attach.former)
        if attach.former in found.former_names:
            found.former_names[sender] = found.former_names.pop(attach.former)
        if attach.serving < found.serving:  # what it says is of a worker whose end it has not heard of
            attach = attach._replace(epoch=0, consumed=0, kept=[])
        told = (attach.former, attach.epoch, attach.consumed, attach.kept)
        self._tell_of_holder(found, sender, control, *told)
        info = {
            **found.figures(),
            "number": found.number,
            "scheme": found.spec.get("scheme", ""),
            "serving": found.serving,
        }
        self._say(sender, Kind.ATTACHED, request_id, found.id, info)

    def _tell_of_holder(
        self, connection: Connection, holder: bytes, control: bytes, old: bytes = b"", epoch: int = 0,
        consumed: int = 0, kept: Sequence[Any] = (),
    ) -> None:  # fmt: skip
        """Tell the worker of a further holder; one that cannot hear it now is told when it registers."""
        rest = (old, epoch, consumed, list(kept))
        connection.changes.attached(time.monotonic(), holder, *rest)
        if connection.worker is not None:
            self._say(connection.worker, Kind.ATTACH, 0, holder, control, *rest)

    def _tell_of_leaving(
        self, connection: Connection, holder: bytes, consumed: int | None, closed: bool
    ) -> None:
        connection.changes.left(time.monotonic(), holder, consumed, closed)
        if connection.worker is not None:
            self._say(connection.worker, Kind.DETACH, 0, holder, consumed, closed)

    def _adopting(self) -> bool:
        """Whether workers of the broker before us have yet to register."""
        return bool(self._awaited) and time.monotonic() - self.started < ADOPT_S

    def _later(self, sender: bytes, kind: Kind, request_id: int, fields: list[Any]) -> bool:
        """Put off a question about a connection that may have yet to register here; False when all have."""
        if self._adopting():
            self._waiting.append([sender, BROKER, header(kind, request_id, *fields)])
            return True
        return False

    def _ask_again(self) -> None:
        waiting, self._waiting = self._waiting, []
        for frames in waiting:
            self._own(frames)

    def _detach(self, sender: bytes, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        key, holder, consumed, closed = messages.Detach(*fields)
        connection = self._held_by(holder) if not key else self.directory.connections.get(key)
        if connection is None and not key:
            if not self._later(sender, Kind.DETACH, request_id, fields):
                self._abandon(holder)
        elif connection is None:
            self._later(sender, Kind.DETACH, request_id, fields)
        elif holder in connection.ghosts:  # it was closed while there was no broker to hear it
            self._lay_ghost(connection, holder, consumed, bool(closed))
            self._still_wanted(connection)
        elif holder in connection.holders:
            self._drop_holder(connection, holder, consumed, bool(closed))
            self._say(holder, Kind.GONE, 0, False, "closed", 0)  # wakes whoever still waits there
            self._still_wanted(connection)

    def _held_by(self, holder: bytes) -> Connection | None:
        """The connection that this object holds, or held under the broker before us."""
        return next((c for c in self.directory if holder in c.holders or holder in c.ghosts), None)

    def _abandon(self, holder: bytes) -> None:
        """Its OPEN or ATTACH, which comes another way, may yet be on it: it is for nobody then."""
        now = time.monotonic()
        self._abandoned = {h: at for h, at in self._abandoned.items() if now - at < ABANDONED_S}
        self._abandoned[holder] = now

    def _lay_ghost(
        self, connection: Connection, holder: bytes, consumed: int | None, closed: bool = False
    ) -> None:
        """Its worker must not go on sending to an object that is gone."""
        connection.ghosts.discard(holder)
        self._tell_of_leaving(connection, holder, consumed, closed)

    def _drop_holder(
        self, connection: Connection, holder: bytes, consumed: int | None, closed: bool = False
    ) -> None:
        """`closed`: the program called `close()`; False: it died, or the object was collected."""
        del connection.holders[holder]
        connection.joining = [each for each in connection.joining if each.holder != holder]
        if connection.opening is not None and connection.opening.holder == holder:
            connection.opening = None
            self._bequests.settle(connection.id, opened=False)
        self._tell_of_leaving(connection, holder, consumed, closed)

    def _still_wanted(self, connection: Connection) -> None:
        """End a connection that nobody holds and nobody may come back to."""
        if connection.holders or connection.closing is not None:
            return
        if not connection.kept and not self._may_return(connection):
            self._close(connection, "its last holder has closed it")
        elif connection.lonely_since is None:
            connection.lonely_since = time.monotonic()

    def _handle(self, sender: bytes, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        connection = self.directory.connections.get(messages.Handle(*fields).connection)
        if connection is None and self._later(sender, Kind.HANDLE, request_id, fields):
            return
        if connection is None or connection.closing is not None:
            error = DeadHandle("the connection has ended; dial its address again")
            self._say(sender, Kind.ERROR, request_id, to_wire(error))
            return
        handle = self.directory.name(connection)
        if connection.worker is not None:
            self._say(connection.worker, Kind.RECORD, 0, connection.record())
        self._send([sender, BROKER, header(Kind.REPLY, request_id), values.pack(handle)])

    # workers

    def _ready(self, sender: bytes, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        """A worker is there: one we started, or one that lost its broker and comes to us."""
        record, incarnation, pid, holders, stats, users = messages.Ready(*fields)
        if sender[: 1 + CONNECTION_ID_BYTES] != b"w" + record["id"]:
            raise ValueError("a worker that names another connection than its own")
        connection = self.directory.connections.get(record["id"])
        if connection is None:
            if self._stopping is not None or self._is_succeeded(record["id"], users):
                self._say(sender, Kind.CLOSE)
                return
            connection = Connection(
                record["id"], record["number"], record["spec"], record["restart"], record["linger_s"],
                record["handle"], former=record["former"], has_opened=True,
                expected=[int(user) for user in users if user not in self._left],
                former_incarnation=incarnation,
            )  # fmt: skip
            for client in list(self.directory.clients.values()):
                if client.pid in connection.expected:
                    connection.users.add(client.id)
            self.directory.add(connection)
            connection.lonely_since = time.monotonic()
            connection.adopted_at = time.monotonic()
            connection.ghosts = {holder for holder, _ in holders}
        if incarnation < connection.incarnation:
            self._say(sender, Kind.CLOSE)  # it was replaced while it was silent
            return
        self.directory.set_worker(connection, sender)
        self._note(connection, stats)
        self._watch_worker(connection, pid, ours=False)
        known = [holder for holder, _ in holders if holder not in connection.ghosts]
        for kind, missed in connection.changes.missed(known, connection.holders):
            self._say(sender, kind, 0, *missed)
        if record["handle"] != connection.handle:
            self._say(sender, Kind.RECORD, 0, connection.record())
        if connection.closing is not None:
            self._say(sender, Kind.CLOSE)
        self._awaited.discard(connection.id)
        self._ask_again()

    def _watch_worker(self, connection: Connection, pid: int, *, ours: bool) -> None:
        """Follow a worker's life. Of our own spawner's children the spawner tells the end, and how it was."""
        connection.life.note_worker()
        if connection.watch is not None and connection.watch.pid == pid:
            return
        if connection.watch is not None:
            self._unwatch(connection.watch)
        connection.pid = pid
        watch = connection.watch = Watch(pid)
        if not ours and pid not in self._children:
            self._watch(watch, lambda: self._worker_ended(connection, watch))

    def _state(self, sender: bytes, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        connection = self.directory.by_worker.get(sender)
        if connection is None:
            self._say(sender, Kind.REREGISTER)
            return
        self._note(connection, messages.State(*fields).news)
        self._say(sender, Kind.BEAT, 0, os.getpid(), self._user_pids(connection))

    def _user_pids(self, connection: Connection) -> list[int]:
        """The living processes that use a connection. Its worker keeps them, to know whom to wait for should
        we be killed."""
        clients = self.directory.clients
        return sorted({clients[control].pid for control in connection.users if control in clients})

    def _note(self, connection: Connection, stats: dict[str, Any]) -> None:
        if not isinstance(stats, dict):
            raise ValueError("no figures")
        connection.heard = time.monotonic()
        bequest = stats.pop("bequest", None)
        if isinstance(bequest, dict):
            connection.bequest = bequest
        connection.stats = stats
        if (reported := stats.get("state")) in list(State):
            connection.life.note_report(State(reported))

    def _log(self, sender: bytes, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        connection = self.directory.by_worker.get(sender)
        if connection is not None and connection.closing is None:  # its end was asked for: no news
            for control in set(connection.holders.values()) or connection.users:
                self._say(control, Kind.LOG, 0, *fields)

    def _take_spawner_events(self) -> None:
        events = self._spawner.events()
        if events is None:
            self._replace_spawner()
            return
        self._spawner_heard = time.monotonic()
        for event in events:
            if isinstance(event, Ended):
                self._note_exit(event)
            elif isinstance(event, Started):
                self._note_start(event)
            else:
                self._note_refusal(event)

    def _note_exit(self, event: Ended) -> None:
        """A worker that our spawner has started is gone."""
        self._children.discard(event.pid)
        self._exits[event.pid] = event.status
        for connection in self.directory:
            if connection.pid == event.pid and connection.watch is not None:
                self._worker_ended(connection, connection.watch)
        self._exits = {pid: status for pid, status in self._exits.items() if self._is_ending(pid)}

    def _is_ending(self, pid: int) -> bool:
        return any(watch.pid == pid for watch in self._speaking)

    def _note_start(self, event: Started) -> None:
        """An order for a worker has been carried out."""
        connection = self.directory.connections.get(bytes.fromhex(event.key))
        self._children.add(event.pid)
        if connection is None:  # given up meanwhile
            Watch(event.pid).kill()
        else:
            self._watch_worker(connection, event.pid, ours=True)

    def _note_refusal(self, event: Refused) -> None:
        """An order for a worker could not be carried out."""
        connection = self.directory.connections.get(bytes.fromhex(event.key))
        if connection is not None:
            self.directory.set_worker(connection, None)
            how = f"could not be started ({event.why})"
            self._note_crash(connection, how)
            is_dialled = bool(connection.all_opening())
            actions = connection.life.refuse_worker(time.monotonic(), how, is_dialled=is_dialled)
            self._carry_out(connection, actions)

    def _is_owed(self, connection: Connection, now: float) -> bool:
        """Whether the spawner owes word of this connection for long: of its start, or of its worker's end."""
        watch = connection.watch
        ended = watch is not None and watch.pid in self._children and watch.ended()
        return (connection.life.is_ordered or ended) and now - connection.heard > SILENT_S

    def _replace_spawner(self) -> None:
        """The template was killed. Its workers live on; what it was asked for last may not have been done."""
        self._selector.unregister(self._spawner.fileno())
        if not self._spawner_ends.may_restart(time.monotonic()):
            print("trunkline broker: the zygote ends again and again; so does the broker", file=sys.stderr)
            self.stop()
            return
        print("trunkline broker: the zygote is gone; another one takes over", file=sys.stderr)
        self._spawner.restart()
        self._selector.register(self._spawner.fileno(), selectors.EVENT_READ, self._take_spawner_events)
        orphans, self._children = self._children, set()
        for connection in self.directory:
            watch = connection.watch
            if watch is not None and watch.pid in orphans:
                self._watch(watch, lambda c=connection, w=watch: self._worker_ended(c, w))  # type: ignore[misc]
            else:
                opening = connection.opening
                left = None if opening is None else max(1.0, (opening.deadline - time.monotonic()) * 1000)
                self._carry_out(connection, connection.life.order_again(), left)

    def _worker_ended(self, connection: Connection, watch: Watch) -> None:
        if connection.watch is not watch:
            return
        if self._exits.get(watch.pid) == 0 and connection.closing is None and watch not in self._speaking:
            # It ended in good order, so it has said why; that may yet be on its way through ZeroMQ.
            self._speaking.add(watch)
            self._endings.append((time.monotonic() + LAST_WORDS_S, connection, watch))
            self._next_tick = min(self._next_tick, time.monotonic() + LAST_WORDS_S)
            return
        self._speaking.discard(watch)
        self._drain_router()  # its last words come first
        self._unwatch(watch)
        connection.watch = None
        self.directory.set_worker(connection, None)
        status = self._exits.pop(watch.pid, None)
        self._answer_inflight(connection)
        how = describe_exit(status)
        if connection.closing is None:
            self._note_crash(connection, how)
        is_dialled = bool(connection.all_opening())
        self._carry_out(connection, connection.life.lose_worker(time.monotonic(), how, is_dialled=is_dialled))

    def _note_crash(self, connection: Connection, how: str) -> None:
        connection.reason = f"its worker {how}"
        connection.stats = {**connection.stats, "last_error": connection.reason}
        self._settle(connection)

    def _announce_next(self, connection: Connection, due: float, how: str) -> None:
        """Another worker is to take over from one that has crashed."""
        connection.crashed_at = connection.crashed_at or time.monotonic()
        peer = connection.stats.get("peer", "")
        self._tell_log(connection, f"the worker of {peer} {how}; a new one takes over")
        self._tell_holders(connection, final=False)
        self._next_tick = min(self._next_tick, due)

    def _give_up(self, connection: Connection, why: str) -> None:
        """No worker takes over from one that has crashed."""
        self._remove_files(connection)
        connection.reason = f"{connection.reason}{why}"
        peer = connection.stats.get("peer", "")
        self._tell_log(connection, f"the connection to {peer} has ended: {connection.reason}; dial again")
        self._tell_holders(connection, final=True)

    def _settle(self, connection: Connection) -> None:
        """The figures of a worker that has crashed: what was with it is lost (or comes again from a
        message broker that keeps it), what it had sent will be read.

        Its ledger has them as they were in its last moment; its last STATE, when there is no ledger.
        """
        stats = connection.stats
        entry = read_ledger(endpoint.figures(self.address, connection.id))
        if entry is not None and entry.incarnation == connection.incarnation:
            stats.update(entry.counters)
            connection.had = {connection.changes.name_now(h): had for h, had in entry.holders.items()}
        elif stats.get("incarnation") == connection.incarnation:  # it was there, but left nothing
            connection.had = {}
        connection.stats = settled(stats)
        # The ledger stays until the next worker has one: broker and worker may both be killed before that.
        with contextlib.suppress(OSError):
            endpoint.door(self.address, connection.id).unlink()

    def _tell_holders(self, connection: Connection, *, final: bool) -> None:
        for holder in connection.holders:
            fields = (not final, connection.reason, connection.serving)
            self._say(holder, Kind.GONE, 0, *fields, sender=connection.id)

    def _tell_log(self, connection: Connection, text: str, *, level: str = "warning") -> None:
        for control in set(connection.holders.values()) or connection.users:
            self._say(control, Kind.LOG, 0, level, text)

    def _answer_inflight(self, connection: Connection) -> None:
        for who, head in list(connection.inflight.items()):
            self._answer_for(connection, who, head)
        connection.inflight.clear()

    def _answer_for(
        self, connection: Connection | None, who: bytes, head: bytes, why_ended: str = ""
    ) -> None:
        """Answer a request in place of a worker that is not there. `why_ended`: the reason where the
        connection is gone altogether, with a colon in front."""
        try:
            kind, request_id, _ = parse(head)
        except TrunklineError:
            return  # nobody of ours waits for an answer to it
        error: TrunklineError
        if connection is None:
            error = DeadHandle(f"the connection has ended{why_ended}; dial its address again")
        elif kind in STATEMENTS and who in connection.inflight:
            error = OutcomeUnknown(
                f"{connection.reason or 'the worker is gone'} while the statement ran: it may or may not "
                "have taken effect; look before you run it again"
            )
        else:
            error = WorkerDied(connection.reason or "the worker of this connection is being replaced")
        if kind in REQUESTS:
            self._say(who, Kind.ERROR, request_id, to_wire(error))
        elif kind is Kind.READ:
            # An object that asks for a connection that we do not know may have asked the broker before us.
            goes_on = connection is None or connection.has_future()
            self._say(who, Kind.GONE, 0, goes_on, str(error), connection.serving if connection else 0)

    # the end of a connection

    def _close(self, connection: Connection, reason: str) -> None:
        actions = connection.life.end(time.monotonic())
        if actions:
            connection.reason = connection.reason or reason
        self._carry_out(connection, actions)

    def _forget(self, connection: Connection) -> None:
        self.directory.remove(connection)
        self._bequests.settle(connection.id, opened=False)
        if connection.former and connection.has_opened:
            self._bequests.leave(connection.former, connection.stats, connection.had_by_former_names())
        if self._waiting:  # perhaps for this end
            self._next_tick = min(self._next_tick, time.monotonic())
        self._remove_files(connection)

    def _remove_files(self, connection: Connection) -> None:
        """What a worker that was killed has left."""
        figures = endpoint.figures(self.address, connection.id)
        for path in (endpoint.door(self.address, connection.id), figures, unpublished(figures)):
            with contextlib.suppress(OSError):
                path.unlink()

    def _list(self, sender: bytes, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        info = {
            "pid": os.getpid(),
            "zygote": self._spawner.pid,
            "address": self.address,
            "connections": [{**c.shown(), "users": self._user_pids(c)} for c in self.directory],
            "clients": [client.pid for client in self.directory.clients.values()],
        }
        self._send([sender, BROKER, header(Kind.REPLY, request_id), values.pack(info)])

    def _kill(self, sender: bytes, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        connection = self.directory.by_number(str(messages.Kill(*fields).number))
        if connection is not None and connection.closing is None:
            self._end_by_order(connection)
        self._send([sender, BROKER, header(Kind.REPLY, request_id), values.pack(connection is not None)])

    def _end_by_order(self, connection: Connection) -> None:
        """End a connection whose holders want to keep it: they are told why, a Dial that waits at once."""
        connection.reason = "it was ended by `trunkline kill`"
        peer = connection.stats.get("peer", "")
        if connection.all_opening():
            error = DialError(f"{peer} was not opened: {connection.reason}")
            self._carry_out(connection, connection.life.fail_dials(to_wire(error)))
        else:
            text = f"the connection to {peer} has ended: {connection.reason}; dial again"
            self._tell_log(connection, text, level="error")
        self._tell_holders(connection, final=True)
        self._close(connection, connection.reason)

    # time

    def _watch(self, watch: Watch, callback: Callable[[], None]) -> None:
        if watch.fileno() >= 0:
            self._selector.register(watch.fileno(), selectors.EVENT_READ, callback)
        elif watch.ended():
            callback()

    def _unwatch(self, watch: Watch) -> None:
        if watch.fileno() >= 0:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(watch.fileno())
        watch.close()

    def _tick(self, now: float) -> None:
        if now - self._next_tick > STALL_S:  # it was we who heard nothing: their beats are still in the queue
            for connection in self.directory:
                connection.heard = now
            self._spawner_heard = now
            for client in self.directory.clients.values():
                client.heard, client.cut_since = now, None
        self._next_tick = now + TICK_S
        for client in list(self.directory.clients.values()):
            if (client.watch.fileno() < 0 and client.watch.ended()) or self._is_cut_off(client, now):
                self._client_gone(client.id)
        for due, connection, watch in self._endings[:]:
            if now >= due:
                self._endings.remove((due, connection, watch))
                self._worker_ended(connection, watch)
                self._speaking.discard(watch)
            else:
                self._next_tick = min(self._next_tick, due)
        for connection in self.directory:
            self._tick_connection(connection, now)
        if now - self._spawner_heard > SILENT_S and any(self._is_owed(c, now) for c in self.directory):
            print(f"trunkline broker: the zygote said nothing for {SILENT_S:.0f} s", file=sys.stderr)
            self._spawner_heard = now
            self._spawner.kill()
        if self._waiting and not self._adopting():
            self._ask_again()
        if now >= self._journal_at:
            self._journal_at = now + JOURNAL_EVERY_S
            journal.trim(sys.stderr.fileno())
        if self.place.is_gone(now):
            self._take_place_again(now)
        if now >= self._refresh_at:
            self._refresh_at = now + REFRESH_EVERY_S
            endpoint.refresh(endpoint.folder_of(self.address))
        self._maybe_end(now)

    def _is_cut_off(self, client: Client, now: float) -> bool:
        """Whether this client has no socket any more. Objects that it holds may yet come back by another one:
        then it is waited for as one that used them under the broker before us."""
        if not is_cut_off(client, now, lambda to: self._say(to, Kind.BEAT, 0, os.getpid())):
            return False
        replaced = client.watch.is_replaced()
        if replaced:
            self._let_go(client.id)
        holds = any(client.id in c.users or client.id in c.holders.values() for c in self.directory)
        return not holds or (now - client.heard > RETURN_S and not replaced)

    def _take_place_again(self, now: float) -> None:
        """The folder was removed. Connections of now go on as they are; new requests need a socket there."""
        try:
            if not self.place.take_again():
                print(f"trunkline broker: another broker has taken {self.address}", file=sys.stderr)
                return
            with contextlib.suppress(zmq.ZMQError):
                self._router.unbind(self.address)
            # ZeroMQ's thread removes the old socket's name a moment later, which must not be the new one.
            time.sleep(UNBIND_S)
            self._router.bind(self.address)
        except (BrokerGone, OSError, zmq.ZMQError) as error:
            if self.place.may_complain(now):
                print(f"trunkline broker: its folder is gone and cannot be made: {error}", file=sys.stderr)
            return
        print("trunkline broker: its folder was removed and has been made anew", file=sys.stderr)

    def _tick_connection(self, connection: Connection, now: float) -> None:
        watch = connection.watch
        for late in [each for each in connection.joining if now >= each.deadline]:
            error = DialTimeout(f"{connection.stats.get('peer')} could not be opened in the time allowed")
            self._say(late.holder, Kind.FAILED, late.request_id, to_wire(error))
            self._drop_holder(connection, late.holder, None)
        if connection.ghosts and self._are_gone(connection, now):
            for holder in list(connection.ghosts):
                self._lay_ghost(connection, holder, None)
        if watch is not None and watch.fileno() < 0 and watch.ended():
            self._worker_ended(connection, watch)
        elif actions := connection.life.look_at_time(now):
            self._carry_out(connection, actions)
        elif connection.closing is not None:
            return
        elif connection.opening is not None and now >= connection.opening.deadline:
            error = DialTimeout(f"{connection.stats.get('peer')} could not be opened in the time allowed")
            self._carry_out(connection, connection.life.fail_dials(to_wire(error)))
            self._close(connection, str(error))
        elif connection.lonely_since is not None and not connection.holders:
            if now - connection.lonely_since >= self._patience_s(connection):
                self._close(connection, "nobody held it any more")
        elif watch is not None and now - connection.heard > SILENT_S:
            connection.reason = f"its worker said nothing for {SILENT_S:.0f} s"
            watch.kill()

    def _are_gone(self, connection: Connection, now: float) -> bool:
        """Whether the objects that have not come back to us from the broker before will not any more."""
        if not any(map(is_alive, connection.expected)):
            return True
        waited_s = now - connection.adopted_at
        return waited_s > RETURN_S or (waited_s > ADOPT_S and not self._is_awaited(connection))

    def _patience_s(self, connection: Connection) -> float:
        """How long a connection without holders waits for one."""
        if connection.kept and not self._may_return(connection):
            return connection.linger_s
        patience = RETURN_S if self._is_awaited(connection) else ADOPT_S
        return max(patience, connection.linger_s) if connection.kept else patience

    def _may_return(self, connection: Connection) -> bool:
        """Whether objects that held it under the broker before us have yet to come back, or may."""
        return bool(connection.ghosts) or self._is_awaited(connection)

    def _is_awaited(self, connection: Connection) -> bool:
        """Whether a process that used it under the broker before us lives and has not come back."""
        here = {client.pid for client in self.directory.clients.values()}
        return any(pid not in here and is_alive(pid) for pid in connection.expected)

    def _maybe_end(self, now: float) -> None:
        if self._stopping is not None or self.persistent or self.directory.clients:
            return
        if self._awaits_programs():
            return
        if self._had_client:
            waited_for = any(
                c.lonely_since is not None and self._patience_s(c) > ADOPT_S for c in self.directory
            )
            over = not waited_for and not self._adopting()
        elif self._starter is not None and not is_alive(self._starter):
            over = not self._adopting() and not any(c.closing is None for c in self.directory)
        else:
            over = now - self.started > FIRST_CLIENT_S
        if over:
            self._idle_stop = True
            self.stop()


def _former(given: Any) -> tuple[bytes, bytes, bool]:
    """Of a connection that was lost with the broker before this one: its id, what the object that dials it
    anew was called, and whether its messages come again. The id is b"" where there was none."""
    if isinstance(given, list) and len(given) == 3:
        key, name, comes_again = given
        if isinstance(key, bytes) and len(key) == CONNECTION_ID_BYTES and isinstance(name, bytes):
            return key, name, bool(comes_again)
    return b"", b"", False
