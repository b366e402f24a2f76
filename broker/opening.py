"""Dials, from OPEN to the answer: a new connection, or a further holder of one that is there already."""

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
"""How much longer than a Dial's own time the broker waits for the worker's answer."""


class _Former(NamedTuple):
    """What an object says of its connection that was lost with the broker before this one."""

    connection: bytes
    """The id of that connection; b"" where there was none."""
    name: bytes
    """What the object was called in that connection."""
    comes_again: bool
    """A message broker sends again what the lost worker had."""


@dataclass(slots=True)
class Dials:
    """Handles OPEN of programs, and OPENED and FAILED of workers. `keep_number` writes down the number of the
    last connection, for the broker after this one."""

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
        """The kinds of messages that belong here."""
        return {
            Kind.OPEN: self.take_open,
            Kind.OPENED: self.take_opened,
            Kind.FAILED: self.take_failed,
        }

    # programs

    def take_open(self, message: Incoming) -> None:
        """A program dials."""
        request = messages.Open(*message.fields)
        if self.admission.forget_abandoned(message.sender):
            return
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
            self._add_holder(heir, opening)  # its objects shared one connection, and do so again
        elif self._has_to_wait(former, spec):
            self.adoption.put_off(message)
        elif (there := self._find_joinable(spec)) is not None:
            self._join_connection(there, opening, spec)
        else:
            self._open_anew(request, opening, former, spec)

    def _has_to_wait(self, former: _Former, spec: dict[str, Any]) -> bool:
        """Whether the connection that the Dial is to have may yet come, or has yet to leave its figures."""
        if former.connection and self.directory.is_heir_ending(former.connection):
            return True
        return bool(former.connection or spec.get("joins")) and self.adoption.awaits_workers()

    def _open_anew(
        self, request: messages.Open, opening: Opening, former: _Former, spec: dict[str, Any]
    ) -> None:
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
        """The figures that the lost worker of this object has left."""
        key = former.connection
        if (
            not key
            or key in self.directory.connections
            or endpoint.answers(endpoint.door(self.address, key))
        ):
            return None  # its worker lives, and writes there
        return self.bequests.claim(former, holder, claimant, endpoint.figures(self.address, key))

    def _find_joinable(self, spec: dict[str, Any]) -> Connection | None:
        """The connection that a Dial of a name is to have, unless those that held it have all left: the word
        of that may come after the Dial, by another socket, so that the Dial brings it too."""
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
        """Let a Dial have a connection that is there already, and that is the same one by its name."""
        if connection.joins != spec["joins"]:
            text = (
                f"{spec['display']}: this database in memory is open already and stays as it was dialled "
                "first; the parameters of this Dial have no effect"
            )
            self.outbox.say(opening.control, Kind.LOG, 0, "warning", text)
        self._add_holder(connection, opening)

    def _add_holder(self, connection: Connection, opening: Opening) -> None:
        """Add a holder, whose Dial is answered when the connection is open."""
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
        self.holders.tell_of_holder(
            connection, opening.holder, opening.control, opening.former_name
        )
        info = {**connection.figures(), "number": connection.number, "serving": connection.serving}
        self.outbox.say(opening.holder, Kind.OPENED, opening.request_id, connection.id, info)

    # workers

    def take_opened(self, message: Incoming) -> None:
        """A worker has its first link."""
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
        """A worker cannot have its first link."""
        connection = self.directory.by_worker.get(message.sender)
        if connection is not None:
            error = messages.Failed(*message.fields).error
            self.lives.fail_dials(connection, error)
            self.lives.close(connection, str(error.get("text")))

    # time

    def fail_late_joins(self, connection: Connection, now: float) -> None:
        """Answer the Dials that wait for the Dial of another object and whose own time is over."""
        for late in [each for each in connection.joining if now >= each.deadline]:
            error = to_wire(_timeout_error(connection))
            self.outbox.say(late.holder, Kind.FAILED, late.request_id, error)
            self.holders.drop_holder(connection, late.holder)

    def fail_if_late(self, connection: Connection, now: float) -> bool:
        """End a connection whose worker has had no link in the Dial's time. Returns whether that is so."""
        if connection.opening is None or now < connection.opening.deadline:
            return False
        error = _timeout_error(connection)
        self.lives.fail_dials(connection, to_wire(error))
        self.lives.close(connection, str(error))
        return True


def _timeout_error(connection: Connection) -> DialTimeout:
    return DialTimeout(f"{connection.stats.get('peer')} could not be opened in the time allowed")


def _read_former(given: Any) -> _Former:
    """`given` as an OPEN brings it, which may be anything."""
    if isinstance(given, list) and len(given) == 3:
        key, name, comes_again = given
        if isinstance(key, bytes) and len(key) == CONNECTION_ID_BYTES and isinstance(name, bytes):
            return _Former(key, name, bool(comes_again))
    return _Former(b"", b"", False)
