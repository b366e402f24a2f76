"""Requests for messages: how many to ask for, and when a consumer counts as gone. No I/O.

A pull consumer sends a message only where a request waits. nats-server does not answer requests to a consumer
that is gone, and a cluster forgets requests together with its leader. So the machine here keeps the requests
under way and says from their age, and from what was heard, when the server is to be asked how the consumer
is. All times are seconds of the monotonic clock.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from enum import Enum, auto

from nats.js import api

from trunkline.actors.drivers.nats.questions import ConsumerLook

__all__ = ["Pull", "Pulls", "Status", "StatusKind", "read_status"]

_EXPIRES_S = 30.0
"""A request for messages ends after so long and is made again: a cluster may forget one."""
_GRACE_S = 5.0
_MOST_PULLS = 4
_CHECK_S = 1.0
"""A request that brought nothing for so long is a reason to look."""
_LOOK_S = 10.0
"""So often the server is asked how the consumer is, whatever happens."""
_SILENT_S = 30.0
"""A JetStream that answers no question for so long counts as a lost link."""


@dataclass(slots=True)
class Pull:
    """A request under way."""

    inbox: str
    left: int
    """Messages that it still brings."""
    at: float
    """When it was made."""
    proved: bool = False
    """The consumer was there after the request had been made."""


class Pulls:
    """All requests of one link. `window`: so many messages may be here, or asked for, that no reader has."""

    def __init__(self, window: int, now: float) -> None:
        self.inbox = ""
        """Where the messages are sent to: a word after this one tells the request."""
        self._window = window
        self._most = window
        self._expires_s = _EXPIRES_S
        self._pulls: deque[Pull] = deque()
        self._made = 0
        self._heard_at = self._looked_at = self._answered_at = now

    # asking for messages

    def next_request(self, held: int, now: float) -> Pull | None:
        """Ask for as many as the window has room for; None where that is not worth a request. `held`: how
        many messages no reader has."""
        asked = sum(pull.left for pull in self._pulls)
        room = min(self._window - held - asked, self._most)
        if room <= 0 or len(self._pulls) >= _MOST_PULLS:
            return None
        if asked and room * 4 < self._window:
            return None
        self._made += 1
        pull = Pull(f"{self.inbox}.{self._made}", room, now)
        self._pulls.append(pull)
        return pull

    def body_of(self, pull: Pull) -> bytes:
        """The request as JetStream wants it."""
        return json.dumps({"batch": pull.left, "expires": int(self._expires_s * 1e9)}).encode()

    def obey(self, look: ConsumerLook) -> None:
        """Ask for no more than the consumer's limits allow: the server refuses other requests."""
        self._expires_s = min(_EXPIRES_S, look.max_expires_s or _EXPIRES_S)
        self._most = min(self._window, look.max_batch or self._window)

    def limit_batch(self, most: int) -> None:
        """The server has said how many messages a request may ask for."""
        self._most = max(1, most)

    # what was heard

    def note_heard(self, now: float) -> None:
        """Something came from the consumer."""
        self._heard_at = now

    def note_message(self) -> None:
        """A message came: it belongs to the oldest request."""
        if self._pulls:
            self._pulls[0].left -= 1
            if not self._pulls[0].left:
                self._pulls.popleft()

    def drop(self, inbox: str) -> None:
        """The server has ended this request."""
        self._pulls = deque(pull for pull in self._pulls if pull.inbox != inbox)

    def clear(self) -> None:
        """The server has none of the requests any more."""
        self._pulls.clear()

    def forget_expired(self, now: float) -> None:
        """Forget requests that the server must have forgotten."""
        if any(now - pull.at > self._expires_s + _GRACE_S for pull in self._pulls):
            self._pulls.clear()

    # whether the consumer is there

    def start(self, now: float) -> None:
        """The link is open."""
        self._looked_at = self._answered_at = now

    def must_look(self, now: float) -> bool:
        """Ask the server how the consumer is: a request has brought nothing, or it is time."""
        unproved = any(
            not pull.proved and now - pull.at > _CHECK_S and self._heard_at < pull.at
            for pull in self._pulls
        )
        return unproved or now - self._looked_at > _LOOK_S

    def look_soon(self) -> None:
        """The limits of the consumer are other ones than we know."""
        self._looked_at = 0.0

    def note_answer(self, now: float) -> None:
        """The server has said how the consumer is."""
        self._looked_at = self._answered_at = now

    def is_silent(self, now: float) -> bool:
        """The server has answered no question for too long."""
        return now - self._answered_at > _SILENT_S

    @property
    def patience_s(self) -> float:
        """After how many seconds without an answer the server counts as silent."""
        return _SILENT_S

    def note_consumer_there(self, asked_at: float, waiting: int) -> None:
        """The consumer was there when the server was asked at `asked_at`, with so many requests waiting. With
        none, and requests of ours older than that, the server has lost ours: a cluster forgets them with its
        leader."""
        early = [pull for pull in self._pulls if pull.at < asked_at]
        for pull in early:
            pull.proved = True
        is_quiet = self._heard_at < asked_at
        if early and not waiting and is_quiet and early[-1].at < asked_at - _CHECK_S:
            self._pulls.clear()


class StatusKind(Enum):
    """What the server's word about a request means."""

    CONSUMER_GONE = auto()
    ENDED = auto()
    """The request has expired, or there was nothing for it: make another one."""
    BATCH_LIMIT = auto()
    """It asked for more messages than the consumer allows."""
    REFUSED = auto()


@dataclass(frozen=True, slots=True)
class Status:
    """A word about a request."""

    kind: StatusKind
    most: int = 0
    """With BATCH_LIMIT: how many messages a request may ask for."""
    limits_time: bool = False
    """With REFUSED: the consumer has a limit on how long requests wait."""


def read_status(code: str, description: str) -> Status:
    """Read the header of a message that carries no data but a word about a request."""
    low = description.lower()
    limit = low.rpartition(" ")[2]
    if (
        code == api.StatusCode.SERVICE_UNAVAILABLE
        or "consumer deleted" in low
        or "push based" in low
    ):
        return Status(StatusKind.CONSUMER_GONE)
    if code in (api.StatusCode.NO_MESSAGES, api.StatusCode.REQUEST_TIMEOUT):
        return Status(StatusKind.ENDED)
    if "maxrequestbatch" in low and limit.isdecimal():
        return Status(StatusKind.BATCH_LIMIT, most=int(limit))
    return Status(StatusKind.REFUSED, limits_time="maxrequestexpires" in low)
