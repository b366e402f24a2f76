"""Whether the reader's link is open, and the effect of librdkafka's errors on the link. No I/O.

librdkafka has no notion of a link. Its reports are about brokers that are down, a refused login, an
unknown topic. `LinkState` draws one of three conclusions from each report: the link ends, opening
fails, or the user's log gets a line. Runs on the reader's thread.
"""

from __future__ import annotations

import time

from confluent_kafka import KafkaError

from trunkline.actors.driver import FatalError
from trunkline.actors.drivers.kafka.errors import (
    UNKNOWN_TOPIC,
    cause,
    fenced_member,
    missing_topic,
    said,
    topic_failure,
)
from trunkline.actors.drivers.kafka.loop_side import LoopSide
from trunkline.actors.drivers.kafka.plan import Plan
from trunkline.deadline import Deadline
from trunkline.errors import DialError, DialTimeout

__all__ = ["LinkState"]

_RECENT_S = 5.0
"""The age, in seconds, up to which the last error of a broker explains the loss of all brokers."""
_GRACE_S = 1.5
"""Seconds after which a refusal ends an opening. librdkafka tries the addresses of a host in turn,
and after a refusal the next address may still accept. librdkafka also reports the same failure only
once, so a later attempt gets no report.
"""
_BROKER_ERRORS = (
    KafkaError._TRANSPORT,
    KafkaError._RESOLVE,
    KafkaError._SSL,
    KafkaError._AUTHENTICATION,
)


class LinkState:
    """The state of one reader's link."""

    def __init__(self, plan: Plan, loop_side: LoopSide, *, knows_positions: bool) -> None:
        self.is_open = False
        """Whether messages are given out. False while a link is being opened, and after it was
        lost.
        """
        self.knows_positions = knows_positions
        """Whether reading has a place to go on from; a later link resumes there."""
        self.fatal: DialError | None = None
        """The reason why this consumer can never have another link; None without such a reason."""
        self.is_fenced = False
        """Whether another member with the same group.instance.id has taken this member's place."""
        self._plan = plan
        self._loop_side = loop_side
        self._trouble: DialError | None = None
        """Why the present opening fails, or None."""
        self._broker_error: KafkaError | None = None
        self._broker_error_at = 0.0
        self._is_down = False
        """Whether librdkafka has lost all brokers."""
        self._opening_since = 0.0

    # opening

    def begin_opening(self) -> None:
        """Begin an opening; raise an earlier error that makes every further link impossible."""
        if self.fatal is not None:
            raise self.fatal
        self._trouble = None
        self._opening_since = time.monotonic()

    def check_opening(self, deadline: Deadline, waiting_for: str) -> None:
        """Raise DialError where opening has failed. `waiting_for` begins the text of a timeout."""
        if self.fatal is not None:
            raise self.fatal
        if self._trouble is not None:
            raise self._trouble
        is_refused = self._broker_error is not None or self._is_down
        has_waited = time.monotonic() - self._opening_since > _GRACE_S or deadline.expired()
        if is_refused and has_waited:
            raise self._refusal()
        if deadline.expired():
            raise DialTimeout(f"{waiting_for} in the time allowed")

    def _refusal(self) -> DialError:
        """Return the error of a broker that has refused the connection."""
        if self._broker_error is not None:
            return cause(self._broker_error, self._plan.peer)
        return DialError(
            f"{self._plan.peer} closed the connection; check the port, and whether it wants a login or TLS"
        )

    def finish_opening(self) -> None:
        """Mark the link as open."""
        self._broker_error, self._is_down = None, False
        self.is_open = True

    # losing

    def lose(self, reason: BaseException | None) -> None:
        """Handle the loss of the link.

        An open link: tell the owner, once. A link that is being opened: make the opening fail.
        """
        if not self.is_open:
            if isinstance(reason, FatalError):
                self.fatal = reason
            elif isinstance(reason, DialError):
                self._trouble = reason
            return
        self.is_open = False
        self._loop_side.report_loss(
            reason or ConnectionError(f"{self._plan.peer} closed the connection")
        )

    def end(self, error: KafkaError) -> None:
        """Handle an error that ends reading with this consumer for good.

        A fenced consumer is kept as it is. A new consumer would take the place back, and the two
        members would go on fencing each other.
        """
        self.is_fenced = "fenced" in said(error).lower()
        if self.is_fenced:
            self.fatal = fenced_member(self._plan.group, self._plan.peer)
        else:
            self.fatal = DialError(f"librdkafka gave up reading: {said(error)}")
        self.lose(self.fatal)

    # reports of librdkafka

    def note_error(self, error: KafkaError) -> None:
        """Handle an error of the whole consumer (`error_cb`)."""
        code = error.code()
        if code == KafkaError._ALL_BROKERS_DOWN:
            self._note_all_down()
        elif self.is_coordinator_search(code):
            return
        elif code in _BROKER_ERRORS:
            self._note_broker_error(error)
        elif error.fatal():
            self.end(error)
        elif not self._ends_by_topic(error):
            self._loop_side.warn(f"librdkafka: {said(error)}")

    def _note_all_down(self) -> None:
        """Handle the loss of all brokers. A recent error of a broker serves as the reason."""
        self._is_down = True
        if not self.is_open:
            return
        error = self._broker_error
        is_recent = time.monotonic() - self._broker_error_at < _RECENT_S
        self.lose(cause(error, self._plan.peer) if error is not None and is_recent else None)

    def _note_broker_error(self, error: KafkaError) -> None:
        """Handle the error of one broker. Other brokers may still serve an open link."""
        self._broker_error, self._broker_error_at = error, time.monotonic()
        reason = cause(error, self._plan.peer)
        if isinstance(reason, FatalError) and not self.is_open:
            self.fatal = reason

    def _ends_by_topic(self, error: KafkaError) -> bool:
        """Whether the error ends the link, because the first topic cannot be read."""
        if not self._plan.topics:
            return False
        reason = self.explain_topic_error(error, self._plan.topics[0])
        is_fatal = isinstance(reason, FatalError)
        if is_fatal:
            self.fatal = reason
        if is_fatal or error.code() in UNKNOWN_TOPIC:
            self.lose(reason)
            return True
        return False

    def note_topic_error(self, error: KafkaError, topic: str, partition: int) -> None:
        """Handle an error of a partition without a rule of its own."""
        reason = self.explain_topic_error(error, topic)
        if not isinstance(reason, FatalError) and error.code() not in UNKNOWN_TOPIC:
            self._loop_side.warn(f"topic '{topic}', partition {partition}: {said(error)}")
            return
        if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            self.fatal = reason  # the next link would open, and be lost in the same way
        self.lose(reason)

    def is_coordinator_search(self, code: int) -> bool:
        """Whether the error is only a refused search for a coordinator, which librdkafka makes
        without a group, too.
        """
        return code == KafkaError.GROUP_AUTHORIZATION_FAILED and not self._plan.group

    def explain_topic_error(self, error: KafkaError, topic: str) -> DialError:
        """Return why the topic cannot be read: a FatalError where another attempt would not
        help.
        """
        if self.knows_positions and error.code() in UNKNOWN_TOPIC:
            return missing_topic(topic, self._plan.peer)
        return topic_failure(error, topic, self._plan.peer, self._plan.group)
