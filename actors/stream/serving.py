"""Serving the holders: sending the buffer's messages, and acknowledging messages that were read.

`Buffer` collects actions, and `Serving.flush` carries the actions out. After a batch of messages
`flush` is called at once, after other events once in each turn of the event loop. All methods run
on the worker's event loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

from trunkline.actors.stream.actions import Action, Notify, Push, Recall, Stamp, Welcome
from trunkline.actors.stream.buffer import Buffer
from trunkline.actors.stream.current import CurrentLink
from trunkline.actors.stream.figures import Counters, Figures
from trunkline.actors.stream.host import Host
from trunkline.actors.stream.user_log import UserLog
from trunkline.wire import messages, values
from trunkline.wire.envelope import Kind, header
from trunkline.wire.loss import Loss

__all__ = ["Serving"]


class Serving:
    """Carries out the actions of the buffer of one connection."""

    def __init__(
        self,
        host: Host,
        buffer: Buffer,
        current: CurrentLink,
        counters: Counters,
        figures: Figures,
        log: UserLog,
    ) -> None:
        self._host = host
        self._buffer = buffer
        self._current = current
        self._counters = counters
        self._figures = figures
        self._log = log
        self._is_due = False
        """The event loop will call `flush` soon."""

    def flush_soon(self) -> None:
        """Carry out the buffer's actions in the next turn of the event loop."""
        # Many events in one turn share one flush, so the holders get fewer and larger batches.
        if not self._is_due:
            self._is_due = True
            self._host.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Carry out the buffer's actions now."""
        self._is_due = False
        buffer = self._buffer
        buffer.flush()
        actions, buffer.actions = buffer.actions, []
        # The ledger is written before the messages are sent. If this worker is killed in between,
        # no holder has a message that the ledger does not count.
        self._figures.note()
        if buffer.dropped or self._counters.dropped_elsewhere:
            self._log.tell_drops()
        for action in actions:
            self._carry_out(action)
        self.hand_back()

    def hand_back(self) -> None:
        """Have the driver acknowledge the messages that were read or discarded."""
        if not self._buffer.settled:
            return
        settled, self._buffer.settled = self._buffer.settled, []
        link = self._current.link
        # Tokens of a former link mean nothing to the present link.
        tokens = [token for whose, given in settled if whose is link for token in given]
        # A batch may mix messages with and without tokens.
        if None in tokens:
            tokens = [token for token in tokens if token is not None]
        if link is not None and tokens:
            link.driver.settle(tokens)

    def welcome(self, holder: bytes) -> None:
        """Tell a holder that it is served."""
        self._carry_out(Welcome(holder))

    def _carry_out(self, action: Action) -> None:
        """Carry out one action of the buffer: send a message, or call the driver."""
        send = self._host.mailbox.send
        if isinstance(action, Push):
            stamped = action.stamps is not None
            entries = (
                action.entries
                if action.stamps is None
                else [*action.entries, _packed(action.stamps)]
            )
            losses = [
                [n, *e.to_wire()] for n, e in enumerate(action.entries) if isinstance(e, Loss)
            ]
            push = messages.Push(
                action.epoch,
                action.stream,
                action.more,
                action.first,
                stamped,
                losses,
                action.answer,
            )
            head = header(Kind.PUSH, 0, *push)
            send(action.holder, head, msgpack.packb(entries, use_bin_type=True))
        elif isinstance(action, Recall):
            # To the control thread of the holder's program, which answers while the program sleeps.
            control = self._host.holders.get(action.holder, b"")
            send(control, header(Kind.RECALL, 0, *action))
        elif isinstance(action, Notify):
            send(action.holder, header(Kind.CANCELLED, 0, action.ask))
        elif isinstance(action, Welcome):
            send(action.holder, header(Kind.START))
        elif (link := self._current.link) is not None:
            # A Throttle. Without a link the next link's driver is paused when the link opens.
            (link.driver.pause if action.on else link.driver.resume)()


def _packed(stamps: Sequence[Stamp]) -> bytes:
    """Stamps as msgpack rows.

    Where a header or a property cannot be encoded, all headers and properties are sent as str."""
    # Fields 1 to 9 of a Delivery are the envelope: without the data, the token and the identity.
    rows: list[list[Any]] = [
        [size, at] if delivery is None else [size, at, *delivery[1:10]]
        for size, at, delivery in stamps
    ]
    try:
        return values.pack(rows)
    except (TypeError, ValueError):
        return values.pack(
            [[_as_texts(v) if isinstance(v, dict) else v for v in row] for row in rows]
        )


def _as_texts(items: dict[Any, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in items.items()}
