"""Requests for messages: how many to ask for, and when a consumer counts as gone. No I/O.

A pull consumer sends a message only where a request waits. Two failures are silent. nats-server
does not answer requests to a consumer that is gone, and a cluster forgets requests together with
its leader. So `Pulls` keeps the requests under way. From their age, and from what the server sent,
it concludes when the server must be asked for a report on the consumer. All times are seconds of
the monotonic clock.
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
"""Seconds after which a request for messages ends and is made again, because a cluster may forget a
request.
"""
_GRACE_S = 5.0
_MOST_PULLS = 4
_CHECK_S = 1.0
"""A request without a message for so many seconds is a reason to ask about the consumer."""
_LOOK_S = 10.0
"""The server is asked about the consumer at least every so many seconds."""
_SILENT_S = 30.0
"""A JetStream that answers no question for so many seconds counts as a lost link."""


@dataclass(slots=True)
class Pull:
    """A request for messages that is under way."""

    inbox: str
    left: int
    """How many messages the request still brings."""
    at: float
    """When the request was made."""
    proved: bool = False
    """Whether the consumer is known to have existed after the request was made."""


class Pulls:
    """The requests of one link.

    `window`: how many messages may be held unread or asked for.
    """

    def __init__(self, window: int, now: float) -> None:
        self.inbox = ""
        """The prefix of the subjects that messages are sent to; a further word names the
        request.
        """
        self._window = window
        self._most = window
        self._expires_s = _EXPIRES_S
        self._pulls: deque[Pull] = deque()
        self._made = 0
        self._heard_at = self._looked_at = self._answered_at = now

    # asking for messages

    def next_request(self, held: int, now: float) -> Pull | None:
        """Make a request for as many messages as the window has room for.

        None where a request is not worthwhile.

        `held`: how many messages no reader has had. A second request waits until a quarter of the
        window is free, so requests stay few.
        """
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
        """Return the request as JetStream's API wants it."""
        return json.dumps({"batch": pull.left, "expires": int(self._expires_s * 1e9)}).encode()

    def obey(self, look: ConsumerLook) -> None:
        """Keep to the limits of the consumer: the server refuses larger requests."""
        self._expires_s = min(_EXPIRES_S, look.max_expires_s or _EXPIRES_S)
        self._most = min(self._window, look.max_batch or self._window)

    def limit_batch(self, most: int) -> None:
        """Keep to the number of messages per request that the server has named."""
        self._most = max(1, most)

    # what the server has sent

    def note_heard(self, now: float) -> None:
        """Note that something came from the consumer."""
        self._heard_at = now

    def note_message(self) -> None:
        """Note a message, which counts for the oldest request."""
        if self._pulls:
            self._pulls[0].left -= 1
            if not self._pulls[0].left:
                self._pulls.popleft()

    def drop(self, inbox: str) -> None:
        """Remove a request that the server has ended."""
        self._pulls = deque(pull for pull in self._pulls if pull.inbox != inbox)

    def clear(self) -> None:
        """Remove the requests: the server has lost them."""
        self._pulls.clear()

    def forget_expired(self, now: float) -> None:
        """Remove the requests once the server must have forgotten the oldest."""
        if any(now - pull.at > self._expires_s + _GRACE_S for pull in self._pulls):
            self._pulls.clear()

    # whether the consumer exists

    def start(self, now: float) -> None:
        """Begin to measure silence: the link is open."""
        self._looked_at = self._answered_at = now

    def must_look(self, now: float) -> bool:
        """Whether to ask the server about the consumer: a request has brought nothing, or `_LOOK_S`
        is over.
        """
        unproved = any(
            not pull.proved and now - pull.at > _CHECK_S and self._heard_at < pull.at
            for pull in self._pulls
        )
        return unproved or now - self._looked_at > _LOOK_S

    def look_soon(self) -> None:
        """Have `must_look` say yes: the limits of the consumer differ from those known here."""
        self._looked_at = 0.0

    def note_answer(self, now: float) -> None:
        """Note that the server has reported on the consumer."""
        self._looked_at = self._answered_at = now

    def is_silent(self, now: float) -> bool:
        """Whether the server has answered no question for too long."""
        return now - self._answered_at > _SILENT_S

    @property
    def patience_s(self) -> float:
        """After how many seconds without an answer the server counts as silent."""
        return _SILENT_S

    def note_consumer_there(self, asked_at: float, waiting: int) -> None:
        """Note the server's report on a question asked at `asked_at`: the consumer exists, with
        `waiting` requests.

        When no request waits although older requests are under way, the server has lost the
        requests, as a cluster does together with its leader. Removing them makes room for new
        requests.
        """
        early = [pull for pull in self._pulls if pull.at < asked_at]
        for pull in early:
            pull.proved = True
        is_quiet = self._heard_at < asked_at
        if early and not waiting and is_quiet and early[-1].at < asked_at - _CHECK_S:
            self._pulls.clear()


class StatusKind(Enum):
    """The meaning of the server's message about a request."""

    CONSUMER_GONE = auto()
    ENDED = auto()
    """The request has expired, or no message was there for it: make another request."""
    BATCH_LIMIT = auto()
    """The request asked for more messages than the consumer allows."""
    REFUSED = auto()


@dataclass(frozen=True, slots=True)
class Status:
    """The server's message about a request."""

    kind: StatusKind
    most: int = 0
    """With BATCH_LIMIT: how many messages a request may ask for."""
    limits_time: bool = False
    """With REFUSED: whether the consumer limits how long requests wait."""


def read_status(code: str, description: str) -> Status:
    """Read the header of a message that carries no data and only reports on a request."""
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
