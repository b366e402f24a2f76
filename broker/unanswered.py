"""Answers in place of a lost worker: without them, programs would wait for ever."""

from __future__ import annotations

from trunkline.broker.directory import Connection
from trunkline.broker.outbox import Outbox
from trunkline.errors import DeadHandle, OutcomeUnknown, TrunklineError, WorkerDied, to_wire
from trunkline.wire.envelope import REQUESTS, STATEMENTS, Kind, parse

__all__ = ["answer_in_place_of_worker", "answer_inflight"]


def answer_inflight(outbox: Outbox, connection: Connection) -> None:
    """Answer the requests that a worker has taken and has left without an answer."""
    for sender, head in list(connection.inflight.items()):
        answer_in_place_of_worker(outbox, connection, sender, head)
    connection.inflight.clear()


def answer_in_place_of_worker(
    outbox: Outbox, connection: Connection | None, sender: bytes, head: bytes, why_ended: str = ""
) -> None:
    """Answer a message of `sender` with the header `head`, if the message wants an answer.

    `connection`: None where the broker knows no such connection; `why_ended` is then the reason,
    with a colon in front, or "".
    """
    try:
        kind, request_id, _ = parse(head)
    except TrunklineError:
        return  # no program of this version waits for the answer
    error = _reason(connection, sender, kind, why_ended)
    if kind in REQUESTS:
        outbox.say(sender, Kind.ERROR, request_id, to_wire(error))
    elif kind is Kind.READ and connection is None:
        # The object may have asked the previous broker. GONE with `serving` 0 makes it attach
        # again.
        outbox.say(sender, Kind.GONE, 0, True, str(error), 0)
    elif kind is Kind.READ and connection is not None:
        outbox.say(sender, Kind.GONE, 0, connection.has_future(), str(error), connection.serving)


def _reason(
    connection: Connection | None, sender: bytes, kind: Kind, why_ended: str
) -> TrunklineError:
    """The error in place of the answer, by what the lost worker may have done."""
    if connection is None:
        return DeadHandle(f"the connection has ended{why_ended}; dial its address again")
    if kind in STATEMENTS and sender in connection.inflight:
        return OutcomeUnknown(
            f"{connection.reason or 'the worker is gone'} while the statement ran: it may or may not "
            "have taken effect; look before you run it again"
        )
    return WorkerDied(connection.reason or "the worker of this connection is being replaced")
