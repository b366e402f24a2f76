"""Whether the reader's link is open, and what librdkafka's errors mean for it: no I/O.

librdkafka knows no links. It reports that all brokers are down, that one broker refused a login, or that a
topic is unknown. `LinkState` makes one of three things of each report: the link ends, opening fails, or the
user's log gets a line. For the reader's thread.
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
"""A broker's last error explains the loss of all brokers when it is no older."""
_GRACE_S = 1.5
"""A host may have several addresses, and librdkafka tries one at a time: the first refusal is not the last
word. It also reports the same failure only once, so that a later attempt hears nothing of it."""
_BROKER_ERRORS = (
    KafkaError._TRANSPORT,
    KafkaError._RESOLVE,
    KafkaError._SSL,
    KafkaError._AUTHENTICATION,
)


class LinkState:
    """See the module."""

    def __init__(self, plan: Plan, loop_side: LoopSide, *, knows_positions: bool) -> None:
        self.is_open = False
        """Messages are given out. False while a link is opened, and after it was lost."""
        self.knows_positions = knows_positions
        """It is known where reading begins: a later link goes on from there."""
        self.fatal: DialError | None = None
        """Why no further link can be had with this consumer."""
        self.is_fenced = False
        """Another member with the same group.instance.id has taken this one's place in the group."""
        self._plan = plan
        self._loop_side = loop_side
        self._trouble: DialError | None = None
        """Why the present opening fails."""
        self._broker_error: KafkaError | None = None
        self._broker_error_at = 0.0
        self._is_down = False
        """librdkafka has lost all brokers."""
        self._opening_since = 0.0

    # opening

    def begin_opening(self) -> None:
        """Raise the error that makes every further link impossible, if there is one."""
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
        if self._broker_error is not None:
            return cause(self._broker_error, self._plan.peer)
        return DialError(
            f"{self._plan.peer} closed the connection; check the port, and whether it wants a login or TLS"
        )

    def finish_opening(self) -> None:
        """The link is open."""
        self._broker_error, self._is_down = None, False
        self.is_open = True

    # losing

    def lose(self, reason: BaseException | None) -> None:
        """An open link is gone: tell the owner once. While a link is opened, opening fails instead."""
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
        """This consumer will never give a message again. A consumer that another member has fenced stays as
        it is: a new one would take the place back, and the two would go on like that."""
        self.is_fenced = "fenced" in said(error).lower()
        if self.is_fenced:
            self.fatal = fenced_member(self._plan.group, self._plan.peer)
        else:
            self.fatal = DialError(f"librdkafka gave up reading: {said(error)}")
        self.lose(self.fatal)

    # what librdkafka reports

    def note_error(self, error: KafkaError) -> None:
        """An error of the consumer as a whole (`error_cb`)."""
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
        self._is_down = True
        if not self.is_open:
            return
        error = self._broker_error
        is_recent = time.monotonic() - self._broker_error_at < _RECENT_S
        self.lose(cause(error, self._plan.peer) if error is not None and is_recent else None)

    def _note_broker_error(self, error: KafkaError) -> None:
        self._broker_error, self._broker_error_at = error, time.monotonic()
        reason = cause(error, self._plan.peer)
        if isinstance(reason, FatalError) and not self.is_open:
            self.fatal = reason

    def _ends_by_topic(self, error: KafkaError) -> bool:
        """Whether the error ends the link, as the first topic cannot be read."""
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
        """An error of one partition that no other rule explains."""
        reason = self.explain_topic_error(error, topic)
        if not isinstance(reason, FatalError) and error.code() not in UNKNOWN_TOPIC:
            self._loop_side.warn(f"topic '{topic}', partition {partition}: {said(error)}")
            return
        if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            self.fatal = reason  # the next link would be granted, and lost, again
        self.lose(reason)

    def is_coordinator_search(self, code: int) -> bool:
        """librdkafka looks for a group's coordinator even without a group: a refusal of that is no news."""
        return code == KafkaError.GROUP_AUTHORIZATION_FAILED and not self._plan.group

    def explain_topic_error(self, error: KafkaError, topic: str) -> DialError:
        """Why the topic cannot be read. FatalError where trying again would not help."""
        if self.knows_positions and error.code() in UNKNOWN_TOPIC:
            return missing_topic(topic, self._plan.peer)
        return topic_failure(error, topic, self._plan.peer, self._plan.group)
