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
from collections.abc import Callable
from typing import Any

import zmq

from trunkline import runtime
from trunkline.broker.directory import Client, Connection, Directory, Opening
from trunkline.broker.process import Watch
from trunkline.broker.supervisor import CRASHES, WINDOW_S, describe_exit
from trunkline.broker.zygote import Zygote
from trunkline.errors import DeadHandle, DialTimeout, OutcomeUnknown, TrunklineError, WorkerDied, to_wire
from trunkline.wire import values
from trunkline.wire.envelope import BROKER, CONNECTION_ID_BYTES, REQUESTS, Kind, header, kind_of, parse
from trunkline.wire.state import State

__all__ = ["Broker"]

TICK_S = 0.25
CLOSE_S = 2.0
SILENT_S = 15.0
"""A worker that has said nothing for so long is killed; its second-long heartbeats come from its I/O loop."""
OPEN_GRACE_S = 0.5
FIRST_CLIENT_S = 15.0
ADOPT_S = 6.0
"""How long a new broker at an old address waits for the workers that are to register again."""


class Broker:
    """See the module. `persistent`: do not end when the last client has gone."""

    def __init__(self, address: str, zygote: Zygote, *, persistent: bool = False) -> None:
        self.address = address
        self.instance = secrets.token_hex(8)
        self.persistent = persistent
        self.directory = Directory()
        self.started = time.monotonic()
        self._zygote = zygote
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.setsockopt(zmq.LINGER, 200)
        self._router.setsockopt(zmq.SNDHWM, 100_000)
        self._router.setsockopt(zmq.RCVHWM, 0)
        self._router.setsockopt(zmq.BACKLOG, 1024)
        self._router.bind(address)
        self._selector = selectors.DefaultSelector()
        self._stopping: float | None = None
        self._had_client = False
        self._waiting: list[tuple[float, bytes, list[bytes]]] = []
        self._exits: dict[int, int] = {}
        self._children: set[int] = set()
        self._next_tick = 0.0
        self._handlers: dict[Kind, Callable[[bytes, int, list[Any], list[bytes]], None]] = {
            Kind.HELLO: self._hello,
            Kind.BEAT: self._beat,
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

    # the loop

    def run(self) -> None:
        """Serve until the last client is gone (or, when persistent, until SIGTERM)."""
        wake_r, wake_w = os.pipe()
        os.set_blocking(wake_r, False)
        os.set_blocking(wake_w, False)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: self.stop())
        signal.signal(signal.SIGINT, lambda *_: self.stop())
        self._selector.register(self._router.getsockopt(zmq.FD), selectors.EVENT_READ, None)
        self._selector.register(self._zygote.fileno(), selectors.EVENT_READ, self._zygote_spoke)
        self._selector.register(wake_r, selectors.EVENT_READ, lambda: _drain(wake_r))
        try:
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

    def stop(self) -> None:
        """End all connections in good order, then the broker."""
        if self._stopping is None:
            self._stopping = time.monotonic()
            for connection in self.directory:
                self._close(connection, "the broker was stopped")

    def _end(self) -> None:
        for connection in self.directory:
            if connection.watch is not None:
                connection.watch.kill()
        self._zygote.close()
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
            if frames[1]:
                self._forward(frames)
            else:
                self._own(frames)

    def _forward(self, frames: list[bytes]) -> None:
        """[from][to][header][body...] -> [to's socket][from][header][body...]."""
        sender, to = frames[0], frames[1]
        connection = self.directory.by_worker.get(sender)
        if connection is not None:  # from a worker, so `to` is a socket of a client
            connection.inflight.pop(to, None)
            frames[0], frames[1] = to, connection.id
        elif len(to) == CONNECTION_ID_BYTES:
            connection = self.directory.connections.get(to)
            if connection is None or connection.worker is None:
                self._answer_for(connection, sender, frames[2])
                return
            if kind_of(frames[2]) in REQUESTS:
                connection.inflight[sender] = frames[2]
            frames[0], frames[1] = connection.worker, sender
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
        try:
            kind, request_id, fields = parse(frames[2])
            handler = self._handlers[kind]
            handler(frames[0], request_id, fields, frames[3:])
        except TrunklineError as error:
            self._say(frames[0], Kind.ERROR, 0, to_wire(error))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            print(f"trunkline broker: a malformed message was ignored: {type(error).__name__}", file=sys.stderr)

    # clients

    def _hello(self, sender: bytes, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        pid = int(fields[0])
        if sender not in self.directory.clients:
            watch = Watch(pid)
            self.directory.clients[sender] = Client(sender, pid, watch)
            self._watch(watch, lambda: self._client_gone(sender))
            self._had_client = True
        self._say(sender, Kind.WELCOME, request_id, os.getpid(), self.instance)

    def _beat(self, sender: bytes, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        known = sender in self.directory.clients
        self._say(sender, Kind.BEAT if known else Kind.REREGISTER, 0, os.getpid())

    def _client_gone(self, control: bytes) -> None:
        client = self.directory.clients.pop(control, None)
        if client is None:
            return
        self._unwatch(client.watch)
        for connection in self.directory:
            for holder in [h for h, c in connection.holders.items() if c == control]:
                self._drop_holder(connection, holder, None)
            connection.users.discard(control)
            self._still_wanted(connection)

    # opening

    def _open(self, sender: bytes, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        control, timeout_ms, restart, linger_s = fields
        spec = values.unpack(body[0])
        connection = Connection(
            self.directory.new_id(), self.directory.next_number(), spec, bool(restart), float(linger_s)
        )
        connection.stats = {"scheme": spec.get("scheme", ""), "peer": spec.get("display", "")}
        connection.holders[sender] = control
        connection.users.add(control)
        connection.opening = Opening(sender, request_id, time.monotonic() + timeout_ms / 1000 + OPEN_GRACE_S)
        self.directory.add(connection)
        self._start_worker(connection, timeout_ms)

    def _start_worker(self, connection: Connection, timeout_ms: float | None = None) -> None:
        connection.incarnation += 1
        connection.restart_at = None
        identity = b"w" + connection.id + connection.incarnation.to_bytes(4, "big") + secrets.token_bytes(4)
        self.directory.set_worker(connection, identity)
        connection.heard = time.monotonic()
        self._zygote.start(
            connection.id.hex(),
            {
                "identity": identity,
                "broker": self.address,
                "broker_pid": os.getpid(),
                "incarnation": connection.incarnation,
                "timeout_ms": timeout_ms,
                "holders": [[h, c] for h, c in connection.holders.items()],
                "stats": connection.stats if connection.incarnation > 1 else {},
                "record": connection.record(),
            },
        )

    def _opened(self, sender: bytes, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        connection = self.directory.by_worker.get(sender)
        if connection is None:
            return
        self._note(connection, fields[0])
        opening, connection.opening = connection.opening, None
        if opening is not None:
            self._say(opening.holder, Kind.OPENED, opening.request_id, connection.id, fields[0])

    def _open_failed(self, sender: bytes, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        connection = self.directory.by_worker.get(sender)
        if connection is not None:
            self._fail_opening(connection, fields[0])
            self._close(connection, str(fields[0].get("text")))

    def _fail_opening(self, connection: Connection, error: dict[str, Any]) -> None:
        opening, connection.opening = connection.opening, None
        connection.state = State.FAILED
        if opening is not None:
            self._say(opening.holder, Kind.FAILED, opening.request_id, error)

    # holders

    def _attach(self, sender: bytes, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        control, handle, key, old, epoch, consumed = fields
        found = self.directory.by_handle.get(handle) if handle else self.directory.connections.get(key)
        if found is None and time.monotonic() - self.started < ADOPT_S:
            # Perhaps its worker has yet to register with this broker, which took over from another.
            frames = [sender, BROKER, header(Kind.ATTACH, request_id, *fields)]
            self._waiting.append((time.monotonic() + ADOPT_S, sender, frames))
            return
        if found is None or found.closing is not None or found.state is State.FAILED:
            why = f": {found.reason}" if found is not None and found.reason else ""
            error = DeadHandle(
                f"the connection of this handle has ended{why}; dial its address again" if handle else
                f"the connection has ended{why}; dial its address again"
            )
            self._say(sender, Kind.FAILED, request_id, to_wire(error))
            return
        found.holders.pop(old, None)
        found.holders[sender] = control
        found.users.add(control)
        found.lonely_since = None
        info = {**found.stats, "number": found.number, "scheme": found.spec.get("scheme", "")}
        if found.worker is not None:
            self._say(found.worker, Kind.ATTACH, request_id, sender, control, old, epoch, consumed)
        self._say(sender, Kind.ATTACHED, request_id, found.id, info, found.worker is not None)

    def _detach(self, sender: bytes, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        key, holder, consumed = fields
        connection = self.directory.connections.get(key)
        if connection is not None and holder in connection.holders:
            self._drop_holder(connection, holder, consumed)
            self._say(holder, Kind.GONE, 0, False, "closed")  # wakes whoever still waits there
            self._still_wanted(connection)

    def _drop_holder(self, connection: Connection, holder: bytes, consumed: int | None) -> None:
        del connection.holders[holder]
        if connection.opening is not None and connection.opening.holder == holder:
            connection.opening = None
        if connection.worker is not None:
            self._say(connection.worker, Kind.DETACH, 0, holder, consumed)

    def _still_wanted(self, connection: Connection) -> None:
        """End a connection that nobody holds and nobody may come back to."""
        if connection.holders or connection.closing is not None:
            return
        if connection.handle is None or not connection.users:
            self._close(connection, "its last holder has closed it")
        elif connection.lonely_since is None:
            connection.lonely_since = time.monotonic()

    def _handle(self, sender: bytes, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        connection = self.directory.connections.get(fields[0])
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
        record, incarnation, pid, holders, stats = fields
        connection = self.directory.connections.get(record["id"])
        if connection is None:
            if self._stopping is not None:
                self._say(sender, Kind.CLOSE)
                return
            connection = Connection(
                record["id"], record["number"], record["spec"], record["restart"], record["linger_s"],
                record["handle"], incarnation=incarnation,
            )  # fmt: skip
            self.directory.add(connection)
            connection.lonely_since = time.monotonic()
        if incarnation < connection.incarnation:
            self._say(sender, Kind.CLOSE)  # it was replaced while it was silent
            return
        self.directory.set_worker(connection, sender)
        self._note(connection, stats)
        self._watch_worker(connection, pid, ours=False)
        if connection.closing is not None:
            self._say(sender, Kind.CLOSE)
        waiting, self._waiting = self._waiting, []
        for _, who, frames in waiting:
            kind, rid, rest = parse(frames[2])
            self._attach(who, rid, rest, [])

    def _watch_worker(self, connection: Connection, pid: int, *, ours: bool) -> None:
        """Follow a worker's life. Of our own zygote's children the zygote tells the end, and how it was."""
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
        self._note(connection, fields[0])
        self._say(sender, Kind.BEAT, 0, os.getpid())

    def _note(self, connection: Connection, stats: dict[str, Any]) -> None:
        connection.heard = time.monotonic()
        connection.stats = stats
        with contextlib.suppress(ValueError):
            connection.state = State(stats.get("state", connection.state))

    def _log(self, sender: bytes, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        connection = self.directory.by_worker.get(sender)
        if connection is not None:
            for control in set(connection.holders.values()) or connection.users:
                self._say(control, Kind.LOG, 0, *fields)

    def _zygote_spoke(self) -> None:
        events = self._zygote.events()
        if events is None:
            print("trunkline broker: the zygote is gone; the broker ends", file=sys.stderr)
            self._selector.unregister(self._zygote.fileno())
            self.stop()
            return
        for event in events:
            if event[0] == "started":
                self._children.add(event[2])
                connection = self.directory.connections.get(bytes.fromhex(event[1]))
                if connection is not None:
                    self._watch_worker(connection, event[2], ours=True)
            else:
                self._children.discard(event[1])
                self._exits[event[1]] = event[2]
                for connection in self.directory:
                    if connection.pid == event[1] and connection.watch is not None:
                        self._worker_ended(connection, connection.watch)

    def _worker_ended(self, connection: Connection, watch: Watch) -> None:
        if connection.watch is not watch:
            return
        self._drain_router()  # its last words come first
        self._unwatch(watch)
        connection.watch = None
        self.directory.set_worker(connection, None)
        status = self._exits.pop(watch.pid, None)
        self._answer_inflight(connection)
        if connection.closing is not None:
            self._tell_holders(connection, final=True)
            self._forget(connection)
            return
        self._crashed(connection, describe_exit(status))

    def _crashed(self, connection: Connection, how: str) -> None:
        now = time.monotonic()
        connection.reason = f"its worker {how}"
        connection.stats = {**connection.stats, "last_error": connection.reason}
        lost = int(connection.stats.get("queued", 0))
        connection.stats["dropped"] = int(connection.stats.get("dropped", 0)) + lost
        peer = connection.stats.get("peer", "")
        if connection.opening is not None:
            error = WorkerDied(f"the connection to {peer} could not be opened: {connection.reason}")
            self._fail_opening(connection, to_wire(error))
            self._close(connection, connection.reason)
        elif connection.restart and connection.crashes.may_restart(now):
            connection.state = State.DOWN
            connection.restart_at = now + connection.crashes.wait_s()
            self._tell_log(connection, f"the worker of {peer} {how}; a new one takes over")
            self._tell_holders(connection, final=False)
            self._next_tick = min(self._next_tick, connection.restart_at)
        else:
            connection.state = State.FAILED
            if connection.restart:
                connection.reason += f", {CRASHES} crashes within {WINDOW_S:.0f} s were too many"
            self._tell_log(connection, f"the connection to {peer} has ended: {connection.reason}; dial again")
            self._tell_holders(connection, final=True)
        connection.stats["state"] = connection.state.value

    def _tell_holders(self, connection: Connection, *, final: bool) -> None:
        for holder in connection.holders:
            self._say(holder, Kind.GONE, 0, not final, connection.reason, sender=connection.id)

    def _tell_log(self, connection: Connection, text: str) -> None:
        for control in set(connection.holders.values()) or connection.users:
            self._say(control, Kind.LOG, 0, "warning", text)

    def _answer_inflight(self, connection: Connection) -> None:
        for who, head in list(connection.inflight.items()):
            self._answer_for(connection, who, head)
        connection.inflight.clear()

    def _answer_for(self, connection: Connection | None, who: bytes, head: bytes) -> None:
        """Answer a request in place of a worker that is not there."""
        kind, request_id, _ = parse(head)
        error: TrunklineError
        if connection is None:
            error = DeadHandle("the connection has ended; dial its address again")
        elif kind is Kind.EXEC and who in connection.inflight:
            error = OutcomeUnknown(
                f"{connection.reason or 'the worker is gone'} while the statement ran: it may or may not have taken "
                "effect; look before you run it again"
            )
        else:
            error = WorkerDied(connection.reason or "the worker of this connection is being replaced")
        if kind in REQUESTS:
            self._say(who, Kind.ERROR, request_id, to_wire(error))
        elif kind is Kind.READ:
            self._say(who, Kind.GONE, 0, connection is not None and connection.restart_at is not None, str(error))

    # the end of a connection

    def _close(self, connection: Connection, reason: str) -> None:
        if connection.closing is not None:
            return
        connection.closing = time.monotonic() + CLOSE_S
        connection.reason = connection.reason or reason
        connection.restart_at = None
        if connection.worker is not None:
            self._say(connection.worker, Kind.CLOSE)
        if connection.watch is None and connection.pid:
            self._tell_holders(connection, final=True)
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        self.directory.remove(connection)
        with contextlib.suppress(OSError):  # a worker that was killed has left its door
            runtime.door(self.address, connection.id).unlink()

    def _list(self, sender: bytes, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        rows = []
        for connection in self.directory:
            pids = {self.directory.clients[c].pid for c in connection.users if c in self.directory.clients}
            rows.append({**connection.shown(), "users": sorted(pids)})
        info = {"pid": os.getpid(), "zygote": self._zygote.pid, "address": self.address, "connections": rows,
                "clients": [c.pid for c in self.directory.clients.values()]}  # fmt: skip
        self._send([sender, BROKER, header(Kind.REPLY, request_id), values.pack(info)])

    def _kill(self, sender: bytes, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        connection = self.directory.by_number(str(fields[0]))
        if connection is not None:
            connection.reason = "it was ended by `trunkline kill`"
            self._tell_holders(connection, final=True)
            self._close(connection, connection.reason)
        self._send([sender, BROKER, header(Kind.REPLY, request_id), values.pack(connection is not None)])

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
        self._next_tick = now + TICK_S
        for client in list(self.directory.clients.values()):
            if client.watch.fileno() < 0 and client.watch.ended():
                self._client_gone(client.id)
        for connection in self.directory:
            self._tick_connection(connection, now)
        for due, who, frames in self._waiting[:]:
            if now >= due:
                self._waiting.remove((due, who, frames))
                _, rid, rest = parse(frames[2])
                self._attach(who, rid, rest, [])
        self._maybe_end(now)

    def _tick_connection(self, connection: Connection, now: float) -> None:
        watch = connection.watch
        if watch is not None and watch.fileno() < 0 and watch.ended():
            self._worker_ended(connection, watch)
        elif connection.closing is not None:
            if now >= connection.closing:
                if watch is not None:
                    watch.kill()
                elif not connection.pid or now >= connection.closing + CLOSE_S:
                    self._forget(connection)
        elif connection.opening is not None and now >= connection.opening.deadline:
            error = DialTimeout(f"{connection.stats.get('peer')} could not be opened in the time allowed")
            self._fail_opening(connection, to_wire(error))
            self._close(connection, str(error))
        elif connection.restart_at is not None and now >= connection.restart_at:
            self._start_worker(connection)
        elif connection.lonely_since is not None and not connection.holders:
            limit = connection.linger_s if connection.users else ADOPT_S
            if now - connection.lonely_since >= limit:
                self._close(connection, "nobody held it any more")
        elif watch is not None and now - connection.heard > SILENT_S:
            connection.reason = f"its worker said nothing for {SILENT_S:.0f} s"
            watch.kill()

    def _maybe_end(self, now: float) -> None:
        if self._stopping is not None or self.persistent or self.directory.clients:
            return
        if self._had_client or now - self.started > FIRST_CLIENT_S:
            self.stop()


def _drain(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(fd, 4096)
