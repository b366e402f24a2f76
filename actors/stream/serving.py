"""Serving the holders: what the buffer decides is sent to them, and what they have read is acknowledged.

Everything here runs on the worker's loop. `Buffer` collects actions; `flush` carries them out, at once after
a batch has come, else once for each turn of the loop.
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
        """`flush` will be called in this turn of the loop."""

    def flush_soon(self) -> None:
        """Carry out what the buffer decides until the end of this turn of the loop."""
        if not self._is_due:
            self._is_due = True
            self._host.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Carry out what the buffer has decided."""
        self._is_due = False
        buffer = self._buffer
        buffer.flush()
        actions, buffer.actions = buffer.actions, []
        self._figures.note()  # a holder must not have a message that is not in the ledger
        if buffer.dropped or self._counters.dropped_elsewhere:
            self._log.tell_drops()
        for action in actions:
            self._carry_out(action)
        self.hand_back()

    def hand_back(self) -> None:
        """Give the tokens of messages that were read or discarded to the link from which they came."""
        if not self._buffer.settled:
            return
        settled, self._buffer.settled = self._buffer.settled, []
        link = self._current.link
        # Tokens of a link that is gone mean nothing any more.
        tokens = [token for whose, given in settled if whose is link for token in given]
        if None in tokens:
            tokens = [token for token in tokens if token is not None]
        if link is not None and tokens:
            link.driver.settle(tokens)

    def welcome(self, holder: bytes) -> None:
        """Tell a holder that it is served."""
        self._carry_out(Welcome(holder))

    def _carry_out(self, action: Action) -> None:
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
            control = self._host.holders.get(action.holder, b"")
            send(control, header(Kind.RECALL, 0, *action))
        elif isinstance(action, Notify):
            send(action.holder, header(Kind.CANCELLED, 0, action.ask))
        elif isinstance(action, Welcome):
            send(action.holder, header(Kind.START))
        elif (link := self._current.link) is not None:
            (link.driver.pause if action.on else link.driver.resume)()


def _packed(stamps: Sequence[Stamp]) -> bytes:
    """Stamps as the proxy takes them. Envelope values that msgpack cannot encode are sent as str."""
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
