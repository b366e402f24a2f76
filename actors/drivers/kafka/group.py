"""A member of a consumer group: which partitions it has, and which offsets it commits.

A partition that the group has never read begins where the address says. That offset is committed at
once: if this member dies right after, its successor must begin at the same place. A partition that
was made after the first look holds only messages written after `Dial`, so it is read from its
beginning.

When partitions are taken away, the consumed offsets are committed. Messages that readers here still
hold unread then go to the next owner as well. With the default assignment strategy most partitions
come straight back. Where no other member has got further, reading goes on at the old place.

Runs on the reader's thread. librdkafka calls `_assign`, `_revoke` and `_lost` inside a poll.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from trunkline.actors.driver import FatalError
from trunkline.actors.drivers.kafka.errors import said, topic_failure
from trunkline.actors.drivers.kafka.finder import CREATION_S, Finder
from trunkline.actors.drivers.kafka.offsets import Origin, Position, Positions
from trunkline.actors.drivers.kafka.plan import EARLIEST, Plan
from trunkline.deadline import Deadline
from trunkline.errors import DialError

__all__ = ["Group"]

_LEAVE_S = 0.5
_FORMER = frozenset(
    (
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.STALE_MEMBER_EPOCH,
    )
)
"""Errors of a commit during a rebalance. No report is due: the commit is repeated for the
partitions that stay with this member.
"""
_NO_RIGHT = (KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED)


class Group:
    """The membership of one consumer in its group.

    `say` writes to the user's log, `lose` ends the link, `pass_over` counts lost messages.
    """

    def __init__(
        self,
        consumer: Any,
        plan: Plan,
        finder: Finder,
        positions: Positions,
        say: Callable[[str], None],
        lose: Callable[[BaseException], None],
        pass_over: Callable[[int], None],
    ) -> None:
        self.plan = plan
        self.assigned = False
        """Whether the group has assigned partitions to this member, or has told the member that it
        gets none.
        """
        self.broken = False
        """Whether assigned partitions could not be taken. Only a new member gets such
        partitions.
        """
        self.within = False
        """Whether a callback of librdkafka is running. The consumer must not be polled
        meanwhile.
        """
        self.held = False
        """Whether partitions that arrive are to be paused."""
        self.new = False
        """Whether there are partitions without a commit in the group."""
        self.consumer = consumer
        self._finder = finder
        self._positions = positions
        self._shelved: dict[tuple[str, int], Position] = {}
        self._had_commits: set[tuple[str, int]] = set()
        """Partitions for which the group has had a commit since this member joined."""
        self._say = say
        self._lose = lose
        self._pass_over = pass_over

    def join(self) -> None:
        """Ask for partitions. They arrive in callbacks while librdkafka is served."""
        try:
            self.consumer.subscribe(
                list(self.plan.topics),
                on_assign=self._assign,
                on_revoke=self._revoke,
                on_lost=self._lost,
            )
        except KafkaException as error:
            if error.args[0].code() != KafkaError._INVALID_ARG:
                raise
            patterns = ", ".join(topic for topic in self.plan.topics if topic.startswith("^"))
            raise FatalError(f"librdkafka does not take the pattern {patterns}: check it") from None

    def forget(self) -> None:
        """Forget the positions of revoked partitions: reading cannot be resumed at such a
        position.
        """
        self._shelved.clear()

    def leave(self) -> None:
        """Commit, and leave the group, so other members get the partitions at once."""
        deadline = Deadline(_LEAVE_S)
        while True:
            try:
                self.commit(wait=True)
                break
            except Exception:
                if deadline.expired():
                    break
            self.consumer.poll(0.05)  # dropped: the group reads such messages again
        with contextlib.suppress(Exception):
            self.consumer.close()

    # partitions come and go

    def _assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Take partitions from the group. An exception must not leave a callback of librdkafka, so
        it ends the link.
        """
        self.within = True
        try:
            self._take(partitions)
            self.assigned = True
        except KafkaException as error:
            self.broken = True
            self._lose(
                topic_failure(error.args[0], self.plan.topics[0], self.plan.peer, self.plan.group)
            )
        except DialError as error:
            self.broken = True
            self._lose(error)
        finally:
            self.within = False

    def _take(self, partitions: list[TopicPartition]) -> None:
        """Find the place of each partition and have librdkafka read from there."""
        deadline = Deadline(CREATION_S)
        committed = self._committed(partitions, deadline) if partitions else []
        new = [(each.topic, each.partition) for each in committed if each.offset < 0]
        known = self._finder.known
        grown = [(topic, number) for topic, number in new if number >= known.get(topic, 0)]
        # The broker forgets a group's commits when the topic is deleted. A partition that had a
        # commit and has none now therefore belongs to a topic that was made anew.
        remade = [each for each in new if each in self._had_commits]
        later = [*grown, *(each for each in remade if each not in grown)]
        first = [each for each in new if each not in later]
        starts = self._finder.starts(first, deadline) if first else []
        for each in starts:
            by_number = self.plan.start >= 0 and not self.plan.start_is_time
            origin = Origin.ADDRESS if by_number else Origin.BROKER
            self._positions.put(Position(each.topic, each.partition, each.offset, origin=origin))
        for each in self._finder.starts(later, deadline, EARLIEST) if later else []:
            self._positions.put(Position(each.topic, each.partition, each.offset))
            starts.append(each)
        for topic, number in remade:
            self._forsake(topic, number)
        starts += [self._return(each) for each in committed if each.offset >= 0]
        if self.plan.cooperative:
            self.consumer.incremental_assign(starts)
        else:
            self.consumer.assign(starts)
            self._shelved.clear()
        if self.held and starts:
            self.consumer.pause(starts)
        self.new = self.new or bool(new)

    def _forsake(self, topic: str, number: int) -> None:
        """Count the unread messages of a topic that was deleted and made anew."""
        self._had_commits.discard((topic, number))
        former = self._shelved.pop((topic, number), None)
        missing = max(0, former.end - former.next) if former is not None else 0
        lost = f"; {missing} unread messages of the former one are lost" if missing else ""
        self._say(
            f"topic '{topic}', partition {number} was deleted and made anew: "
            f"it is read from its beginning{lost}"
        )
        if missing:
            self._pass_over(missing)

    def _return(self, at: TopicPartition) -> TopicPartition:
        """Take a partition that the group has read: go on at its commit, or at this member's own
        place.

        The own place is used when no other member has committed a later offset meanwhile.
        """
        self._had_commits.add((at.topic, at.partition))
        former = self._shelved.pop((at.topic, at.partition), None)
        if former is not None and at.offset <= former.base:
            former.committed = at.offset
            self._positions.put(former)
            return TopicPartition(at.topic, at.partition, former.next)
        position = Position(
            at.topic, at.partition, at.offset, committed=at.offset, origin=Origin.COMMIT
        )
        self._positions.put(position)
        return TopicPartition(at.topic, at.partition, at.offset)

    def _committed(
        self, partitions: list[TopicPartition], deadline: Deadline
    ) -> list[TopicPartition]:
        """Return the group's committed offsets; a negative offset stands for a missing commit."""
        wanted = [TopicPartition(each.topic, each.partition) for each in partitions]
        found: list[TopicPartition] = self.consumer.committed(wanted, timeout=deadline.left())
        for each in found:
            if each.error is not None:
                raise KafkaException(each.error)
        return found

    def _revoke(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Commit, and give partitions back to the group."""
        with contextlib.suppress(KafkaException):
            self.commit(wait=True)
        self._let_go(partitions)

    def _lost(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Give up partitions that the group has taken away. The group would refuse a commit."""
        self._say(
            f"group '{self.plan.group}' took the partitions away: this member was silent for too long"
        )
        self.assigned = False
        self._let_go(partitions)

    def _let_go(self, partitions: list[TopicPartition]) -> None:
        """Drop the positions of partitions; keep them aside where the partitions may come straight
        back.

        With the cooperative protocol a partition is only taken away when another member gets it.
        """
        for each in partitions:
            former = self._positions.pop(each.topic, each.partition)
            if former is not None and not self.plan.cooperative:
                self._shelved[each.topic, each.partition] = former
        with contextlib.suppress(KafkaException):
            if self.plan.cooperative:
                self.consumer.incremental_unassign(partitions)
            else:
                self.assigned = False
                self.consumer.unassign()

    # commits

    def commit_starts(self, again: Callable[[], None]) -> None:
        """Commit the offsets at which reading begins, and retry until the group has taken them.

        `again` is called before each further try, and raises to end the tries.
        """
        while self.new:
            try:
                self.commit(wait=True)
                self.new = False
            except KafkaException as error:
                if error.args[0].code() in _NO_RIGHT:
                    topic, peer = self.plan.topics[0], self.plan.peer
                    raise topic_failure(error.args[0], topic, peer, self.plan.group) from None
                again()

    def commit(self, *, wait: bool = False) -> None:
        """Commit the consumed offsets.

        Without `wait` the outcome comes to `committed`, by a callback.
        """
        moved = [(each, each.reached) for each in self._positions if each.reached > each.committed]
        if not moved:
            return
        offsets = [TopicPartition(each.topic, each.partition, base) for each, base in moved]
        answers = self.consumer.commit(offsets=offsets, asynchronous=not wait)
        for answer in answers or ():
            if answer.error is not None:
                raise KafkaException(answer.error)
        for each, base in moved:
            each.committed = base
            if wait:
                self._had_commits.add((each.topic, each.partition))
        self.new = False

    def committed(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """Handle the outcome of a commit."""
        failed = (
            partitions
            if error is not None
            else [each for each in partitions if each.error is not None]
        )
        taken = [] if error is not None else [each for each in partitions if each.error is None]
        self._had_commits.update((each.topic, each.partition) for each in taken)
        error = error or next((each.error for each in failed), None)
        if error is None:
            return
        for each in failed:
            if position := self._positions.get(each.topic, each.partition):
                position.committed = -1  # the next commit includes it again
        if not self.held and error.code() not in _FORMER:
            self._say(
                f"group '{self.plan.group}' did not take a commit: {said(error)}; it is tried again"
            )
