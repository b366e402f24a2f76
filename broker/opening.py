"""Dials, from OPEN to the answer: a new connection, or a further holder of an existing one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from trunkline.broker.admission import Admission
from trunkline.broker.adoption import Adoption
from trunkline.broker.directory import Connection, Directory, Opening
from trunkline.broker.figures import Bequests
from trunkline.broker.holders import Holders
from trunkline.broker.incoming import Handlers, Incoming
from trunkline.broker.lives import Lives
from trunkline.broker.outbox import Outbox
from trunkline.broker.schedule import Schedule
from trunkline.errors import DialTimeout, to_wire
from trunkline.wire import endpoint, messages, values
from trunkline.wire.envelope import CONNECTION_ID_BYTES, Kind
from trunkline.wire.state import State

__all__ = ["OPEN_GRACE_S", "Dials"]

OPEN_GRACE_S = 0.5
"""Seconds that the broker waits for the worker's answer beyond the Dial's own time."""


class _Former(NamedTuple):
    """The connection that an object lost with the previous broker, as its OPEN tells."""

    connection: bytes
    """The id of the lost connection; b"" for an object without one."""
    name: bytes
    """The name of the object in the lost connection."""
    comes_again: bool
    """A message broker sends again all messages that the lost worker had."""


@dataclass(slots=True)
class Dials:
    """Handles OPEN of programs, and OPENED and FAILED of workers.

    `keep_number` writes down the number of the last connection for the next broker.
    """

    address: str
    directory: Directory
    outbox: Outbox
    lives: Lives
    holders: Holders
    admission: Admission
    adoption: Adoption
    bequests: Bequests
    keep_number: Callable[[int], None]
    schedule: Schedule

    def handlers(self) -> Handlers:
        """The kinds of messages for this module."""
        return {
            Kind.OPEN: self.take_open,
            Kind.OPENED: self.take_opened,
            Kind.FAILED: self.take_failed,
        }

    # programs

    def take_open(self, message: Incoming) -> None:
        """Handle a Dial of a program."""
        request = messages.Open(*message.fields)
        if self.admission.forget_abandoned(message.sender):
            return  # the program has given up this Dial already, by another socket
        spec = values.unpack(message.body[0])
        if not isinstance(spec, dict) or not isinstance(spec["display"], str):
            raise ValueError("no address to dial")
        former = _read_former(spec.pop("former", None))
        if self.admission.refuse_stranger(message, request.control):
            return
        deadline = self.schedule.now() + request.timeout_ms / 1000 + OPEN_GRACE_S
        opening = Opening(
            message.sender, request.control, message.request_id, deadline, former.name
        )
        heir = self.directory.heir_of(former.connection)
        if heir is not None and heir.spec["display"] == spec["display"]:
            # The objects shared one connection under the previous broker, and share one again.
            self._add_holder(heir, opening)
        elif self._has_to_wait(former, spec):
            self.adoption.put_off(message)
        elif (there := self._find_joinable(spec)) is not None:
            self._join_connection(there, opening, spec)
        else:
            self._open_anew(request, opening, former, spec)

    def _has_to_wait(self, former: _Former, spec: dict[str, Any]) -> bool:
        """Whether the Dial has to wait for a connection still to register, or for its last
        figures."""
        if former.connection and self.directory.is_heir_ending(former.connection):
            return True
        return bool(former.connection or spec.get("joins")) and self.adoption.awaits_workers()

    def _open_anew(
        self, request: messages.Open, opening: Opening, former: _Former, spec: dict[str, Any]
    ) -> None:
        """Open a new connection for a Dial, and order its first worker."""
        number = self.directory.next_number()
        self.keep_number(number)
        restart, linger_s = bool(request.restart), float(request.linger_s)
        connection = Connection(self.directory.new_id(), number, spec, restart, linger_s)
        connection.stats = {"scheme": spec.get("scheme", ""), "peer": spec.get("display", "")}
        connection.former = former.connection
        if former.connection:
            connection.former_names[opening.holder] = former.name
        bequest = self._claim_figures(former, opening.holder, connection.id)
        if bequest is not None:
            stats, connection.had = bequest
            connection.stats.update(stats)
            connection.inherits = True
        connection.holders[opening.holder] = opening.control
        connection.users.add(opening.control)
        connection.opening = opening
        self.directory.add(connection)
        self.lives.order_first_worker(connection, request.timeout_ms)

    def _claim_figures(
        self, former: _Former, holder: bytes, claimant: bytes
    ) -> tuple[dict[str, Any], dict[bytes, int]] | None:
        """Return the figures from this object's lost worker; None without a ledger to claim."""
        key = former.connection
        if (
            not key
            or key in self.directory.connections
            or endpoint.answers(endpoint.door(self.address, key))
        ):
            return None  # the former worker lives, and writes into the ledger
        return self.bequests.claim(former, holder, claimant, endpoint.figures(self.address, key))

    def _find_joinable(self, spec: dict[str, Any]) -> Connection | None:
        """The connection for a Dial with a name to join; None where the Dial has to open one.

        DETACH of a former holder uses another socket, and may arrive after this OPEN. So the OPEN
        names the departed holders (`left`), and they are dropped first.
        """
        if not spec.get("joins"):
            return None
        left = spec.pop("left", ())
        there = self.directory.joinable(spec["joins"][0])
        if there is None:
            return None
        for holder in left:
            if holder in there.holders:
                self.holders.drop_holder(there, holder, closed=True)
        self.holders.end_if_unwanted(there)
        if there.closing is not None:
            return None
        return there

    def _join_connection(
        self, connection: Connection, opening: Opening, spec: dict[str, Any]
    ) -> None:
        """Answer a Dial with an existing connection of the same name."""
        if connection.joins != spec["joins"]:
            text = (
                f"{spec['display']}: this database in memory is open already and stays as it was dialled "
                "first; the parameters of this Dial have no effect"
            )
            self.outbox.say(opening.control, Kind.LOG, 0, "warning", text)
        self._add_holder(connection, opening)

    def _add_holder(self, connection: Connection, opening: Opening) -> None:
        """Add a holder. Its Dial is answered when the connection is open."""
        connection.holders[opening.holder] = opening.control
        connection.users.add(opening.control)
        if opening.former_name:
            connection.former_names[opening.holder] = opening.former_name
        connection.lonely_since = None
        if connection.state is State.DIALING:
            connection.joining.append(opening)
        else:
            self._answer_joined(connection, opening)

    def _answer_joined(self, connection: Connection, opening: Opening) -> None:
        """Answer a Dial that joins an open connection, and tell the worker of the holder."""
        self.holders.tell_of_holder(
            connection, opening.holder, opening.control, opening.former_name
        )
        info = {**connection.figures(), "number": connection.number, "serving": connection.serving}
        self.outbox.say(opening.holder, Kind.OPENED, opening.request_id, connection.id, info)

    # workers

    def take_opened(self, message: Incoming) -> None:
        """Handle the first link of a worker: answer the waiting Dials."""
        connection = self.directory.by_worker.get(message.sender)
        if connection is None:
            return
        news = messages.Linked(*message.fields).news
        connection.note_news(news, self.schedule.now())
        connection.has_opened = True
        opening, connection.opening = connection.opening, None
        self.bequests.settle(connection.id, opened=opening is not None)
        if opening is not None:
            info = {**news, "serving": connection.serving}
            self.outbox.say(opening.holder, Kind.OPENED, opening.request_id, connection.id, info)
        elif connection.crashed_at is not None:
            outage_s = self.schedule.now() - connection.crashed_at
            peer = connection.stats.get("peer", "")
            text = f"{peer} is open again after {outage_s:.1f} s, with a new worker"
            self.outbox.log_for_users(connection, text)
        connection.crashed_at = None
        joining, connection.joining = connection.joining, []
        for each in joining:
            self._answer_joined(connection, each)

    def take_failed(self, message: Incoming) -> None:
        """Handle a worker without a first link: fail the Dials and end the connection."""
        connection = self.directory.by_worker.get(message.sender)
        if connection is not None:
            error = messages.Failed(*message.fields).error
            self.lives.fail_dials(connection, error)
            self.lives.close(connection, str(error.get("text")))

    # time

    def fail_late_joins(self, connection: Connection, now: float) -> None:
        """Fail the Dials that wait for another object's Dial beyond their own time."""
        for late in [each for each in connection.joining if now >= each.deadline]:
            error = to_wire(_timeout_error(connection))
            self.outbox.say(late.holder, Kind.FAILED, late.request_id, error)
            self.holders.drop_holder(connection, late.holder)

    def fail_if_late(self, connection: Connection, now: float) -> bool:
        """End a connection without a link in the Dial's time. Returns whether it ended."""
        if connection.opening is None or now < connection.opening.deadline:
            return False
        error = _timeout_error(connection)
        self.lives.fail_dials(connection, to_wire(error))
        self.lives.close(connection, str(error))
        return True


def _timeout_error(connection: Connection) -> DialTimeout:
    return DialTimeout(f"{connection.stats.get('peer')} could not be opened in the time allowed")


def _read_former(given: Any) -> _Former:
    """Read the `former` field of an OPEN, in which a program may send any value."""
    if isinstance(given, list) and len(given) == 3:
        key, name, comes_again = given
        if isinstance(key, bytes) and len(key) == CONNECTION_ID_BYTES and isinstance(name, bytes):
            return _Former(key, name, bool(comes_again))
    return _Former(b"", b"", False)
