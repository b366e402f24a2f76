"""Objects that attach to a connection, by its handle or after a lost broker, or that detach."""

from __future__ import annotations

from dataclasses import dataclass

from trunkline.broker.admission import Admission
from trunkline.broker.adoption import Adoption
from trunkline.broker.directory import Connection, Directory
from trunkline.broker.holders import Holders
from trunkline.broker.incoming import Handlers, Incoming
from trunkline.broker.outbox import Outbox
from trunkline.errors import DeadHandle
from trunkline.wire import messages
from trunkline.wire.envelope import Kind
from trunkline.wire.state import State

__all__ = ["Attachments"]


@dataclass(slots=True)
class Attachments:
    """Handles ATTACH, DETACH and HANDLE. `address`: that of the broker."""

    address: str
    directory: Directory
    outbox: Outbox
    holders: Holders
    admission: Admission
    adoption: Adoption

    def handlers(self) -> Handlers:
        """The kinds of messages for this module."""
        return {
            Kind.ATTACH: self.take_attach,
            Kind.DETACH: self.take_detach,
            Kind.HANDLE: self.take_handle,
        }

    def take_attach(self, message: Incoming) -> None:
        """Handle ATTACH: an object becomes a holder, or is a holder again after a lost broker."""
        attach = messages.Attach(*message.fields)
        if self.admission.forget_abandoned(message.sender):
            return
        if attach.handle:
            found = self.directory.by_handle.get(attach.handle)
        else:
            found = self.directory.connections.get(attach.connection)
        if self.admission.refuse_stranger(message, attach.control):
            return
        if found is None and self.adoption.put_off_while_awaiting(message):
            return
        if found is None or found.closing is not None or found.state is State.FAILED:
            self.outbox.refuse(message, Kind.FAILED, self._dead_handle(attach, found))
            return
        self._add_holder(found, message.sender, attach)
        info = {
            **found.figures(),
            "number": found.number,
            "scheme": found.spec.get("scheme", ""),
            "serving": found.serving,
        }
        self.outbox.say(message.sender, Kind.ATTACHED, message.request_id, found.id, info)

    def _add_holder(self, connection: Connection, holder: bytes, attach: messages.Attach) -> None:
        """Add a holder under its present name, and move the entries of its former name."""
        connection.holders.pop(attach.former, None)
        connection.ghosts.discard(attach.former)
        connection.holders[holder] = attach.control
        connection.users.add(attach.control)
        connection.lonely_since = None
        if attach.former in connection.had:
            connection.had[holder] = connection.had.pop(attach.former)
        if attach.former in connection.former_names:
            connection.former_names[holder] = connection.former_names.pop(attach.former)
        # `epoch`, `consumed` and `kept` count what one worker has sent. A holder that has not yet
        # heard of its worker's end still counts for that worker.
        if attach.serving < connection.serving:
            attach = attach._replace(epoch=0, consumed=0, kept=[])
        told = (attach.former, attach.epoch, attach.consumed, attach.kept)
        self.holders.tell_of_holder(connection, holder, attach.control, *told)

    def _dead_handle(self, attach: messages.Attach, found: Connection | None) -> DeadHandle:
        """The error for an object that cannot attach, with the reason if known."""
        why = self.directory.why_ended(attach.handle or attach.connection)
        if found is not None and found.reason:
            why = f": {found.reason}"
        if not attach.handle:
            return DeadHandle(f"the connection has ended{why}; dial its address again")
        if found is None and not why:
            return DeadHandle(
                f"no connection of this handle is known at this broker ({self.address}): it has "
                "ended, or belongs to another broker; set TRUNKLINE_BROKER to that one, or "
                "dial its address again"
            )
        return DeadHandle(f"the connection of this handle has ended{why}; dial its address again")

    def take_detach(self, message: Incoming) -> None:
        """Handle DETACH: a holder goes, or a program has given up a Dial."""
        detach = messages.Detach(*message.fields)
        holder, closed = detach.holder, bool(detach.closed)
        if detach.connection:
            connection = self.directory.connections.get(detach.connection)
        else:
            connection = self.directory.held_by(holder)
        if connection is None:
            # The connection's worker may have yet to register. Without a connection id, a Dial was
            # given up, whose OPEN may come later.
            if not self.adoption.put_off_while_awaiting(message) and not detach.connection:
                self.admission.abandon(holder)
        elif holder in connection.ghosts:  # the holder was closed while no broker could hear it
            self.holders.drop_ghost(connection, holder, detach.consumed, closed)
            self.holders.end_if_unwanted(connection)
        elif holder in connection.holders:
            self.holders.drop_holder(connection, holder, detach.consumed, closed)
            self.outbox.say(
                holder, Kind.GONE, 0, False, "closed", 0
            )  # wakes a thread that still waits on this socket
            self.holders.end_if_unwanted(connection)

    def take_handle(self, message: Incoming) -> None:
        """Answer HANDLE with a handle. The connection then outlives its last holder."""
        connection = self.directory.connections.get(messages.Handle(*message.fields).connection)
        if connection is None and self.adoption.put_off_while_awaiting(message):
            return
        if connection is None or connection.closing is not None:
            error = DeadHandle("the connection has ended; dial its address again")
            self.outbox.refuse(message, Kind.ERROR, error)
            return
        handle = self.directory.name(connection)
        if connection.worker is not None:
            self.outbox.say(connection.worker, Kind.RECORD, 0, connection.record())
        self.outbox.reply(message, handle)
