"""Taking messages from librdkafka, and pausing its partitions while the buffer is full.

librdkafka makes its callbacks, and hands out messages and errors, only while it is polled. `serve`
polls it while the reader waits for something else. A message that comes meanwhile is kept in
`_early` for the next `fetch`. Runs on the reader's thread.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from trunkline.actors.driver import Delivery
from trunkline.actors.drivers.kafka.damage import Damage
from trunkline.actors.drivers.kafka.envelope import deliveries
from trunkline.actors.drivers.kafka.errors import DAMAGED, UNREADABLE, said
from trunkline.actors.drivers.kafka.group import Group
from trunkline.actors.drivers.kafka.link_state import LinkState
from trunkline.actors.drivers.kafka.loop_side import LoopSide
from trunkline.actors.drivers.kafka.offsets import Positions
from trunkline.actors.drivers.kafka.places import Places
from trunkline.actors.drivers.kafka.plan import Plan
from trunkline.actors.drivers.kafka.silence import Silence

__all__ = ["POLL_S", "Fetcher"]

POLL_S = 0.1
"""Seconds that a call waits for librdkafka. After each call the reader checks for requests."""
_NO_SUCH_OFFSET = (
    KafkaError._AUTO_OFFSET_RESET,
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError._LOG_TRUNCATION,
)


class Fetcher:
    """Takes messages from a consumer.

    `positions` are shared with `Places` and `Damage`, which correct the positions.
    """

    def __init__(
        self,
        consumer: Any,
        plan: Plan,
        positions: Positions,
        link: LinkState,
        loop_side: LoopSide,
        *,
        places: Places,
        damage: Damage,
        silence: Silence,
        group: Group | None,
    ) -> None:
        self.consumer = consumer
        self.is_held = False
        """Whether the partitions are paused: librdkafka then does not fetch."""
        self._plan = plan
        self._positions = positions
        self._link = link
        self._loop_side = loop_side
        self._places = places
        self._damage = damage
        self._silence = silence
        self._group = group
        self._early: list[Any] = []
        """Messages, and ends of partitions, that came while librdkafka was served."""

    def serve(self, seconds: float) -> None:
        """Let librdkafka make its callbacks for at most `seconds`.

        A message that comes is kept for `fetch`.
        """
        if self._group is not None and self._group.within:
            return  # a callback is running: polling inside it is not allowed
        message = self.consumer.poll(seconds)
        if message is None:
            return
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            self._note_partition_error(message)
        else:  # the end of a partition keeps its place behind the messages
            self._early.append(message)

    def forget_early(self, topic: str, number: int) -> None:
        """Drop the kept messages of one partition: reading goes on at another place."""
        self._early = [
            each for each in self._early if (each.topic(), each.partition()) != (topic, number)
        ]

    def forget_all_early(self) -> None:
        self._early.clear()

    def hold(self) -> None:
        """Pause all partitions.

        The consumer is polled on, so a group's member stays alive without reading.
        """
        if self.is_held:
            return
        self._set_held(True)
        with contextlib.suppress(KafkaException):
            self.consumer.pause(self.consumer.assignment())

    def release(self) -> None:
        """Let librdkafka fetch again."""
        if not self.is_held:
            return
        self._set_held(False)
        with contextlib.suppress(KafkaException):
            self.consumer.resume(self.consumer.assignment())

    def _set_held(self, is_held: bool) -> None:
        self.is_held = is_held
        if self._group is not None:
            self._group.held = is_held  # partitions assigned meanwhile are paused, too

    def mend_places(self) -> None:
        """Go on reading where offsets have vanished, and behind damaged messages."""
        if self._early:
            self._early = [each for each in self._early if not self._places.is_remade(each.topic())]
        try:
            self._places.mend(held=self.is_held)
            self._damage.step_over()
        except KafkaException as error:
            self._link.lose(ConnectionError(f"a topic of {self._plan.peer}: {said(error)}"))

    def fetch(self, most: int) -> int:
        """Give at most `most` messages to the owner, and return how many.

        Wait up to 0.1 s where there is none.
        """
        batch = self._take_batch(most)
        owner = self._loop_side.owner
        if not batch or not self._link.is_open or owner is None:
            return 0  # the link was lost meanwhile: the next link fetches the batch again
        found = self._to_deliveries(self._places.without_new(batch))
        self._damage.came(found)
        if found:
            self._loop_side.call(owner.arrived, found)
        return len(found)

    def _take_batch(self, most: int) -> list[Any]:
        """Return kept messages, fetched messages, or messages that arrive within `POLL_S` seconds.

        Only the last case counts as waiting, for `Silence`.
        """
        if self._early:
            taken, self._early = self._early[:most], self._early[most:]
            return taken
        batch: list[Any] = self.consumer.consume(most, 0)
        if batch:
            return batch
        begun = time.monotonic()
        message = self.consumer.poll(POLL_S)
        self._silence.waited(min(time.monotonic() - begun, 2 * POLL_S))
        if message is None:
            return []
        following = self.consumer.consume(most - 1, 0) if most > 1 else []
        return [message, *following]

    def _to_deliveries(self, batch: Sequence[Any]) -> list[Delivery]:
        return deliveries(
            batch,
            self._positions,
            self._plan.max_size,
            self._note_partition_error,
            self._note_too_large,
            self._note_bad_headers,
        )

    # handling of what is not a message

    def _note_too_large(self, topic: str, size: int) -> None:
        self._loop_side.pass_over(1)
        self._loop_side.warn(
            f"a message of {size} bytes in '{topic}' was passed over: it is larger than max_size"
        )

    def _note_bad_headers(self, topic: str) -> None:
        self._loop_side.warn(
            f"a message in '{topic}' has headers that cannot be read: it comes without them"
        )

    def _note_partition_error(self, message: Any) -> None:
        """Hand the error of a partition to the part that handles its kind."""
        error, number = message.error(), message.partition()
        code = error.code()
        topics = self._plan.topics
        topic = message.topic() or (topics[0] if topics else "")
        if code == KafkaError._PARTITION_EOF:
            self._note_partition_end(message)
        elif code in _NO_SUCH_OFFSET:
            self._places.note_lost(topic, number)
        elif code in DAMAGED:
            self._damage.note(topic, number, said(error))
        elif code in UNREADABLE and (reason := self._damage.refused(topic, number, said(error))):
            self._link.lose(reason)
        elif code in (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID) or error.fatal():
            self._link.end(error)
        elif self._link.is_coordinator_search(code):
            return
        elif code == KafkaError._MAX_POLL_EXCEEDED:
            self._loop_side.warn(f"group '{self._plan.group}': {said(error)}")
        else:
            self._link.note_topic_error(error, topic, number)

    def _note_partition_end(self, message: Any) -> None:
        """Move the position to the end of the partition: no message stands before the end.

        Offsets without messages, such as the marks of transactions, do not count as lag after that.
        """
        position = self._positions.get(message.topic(), message.partition())
        if position is not None and message.offset() > position.next:
            position.next = message.offset()
