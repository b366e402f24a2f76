"""Subscriptions that a kept MQTT session has from an earlier run with another address.

Ended when noticed.

MQTT has no request for the list of subscriptions. So an old subscription shows by a message whose
topic fits none of the topics of the address. All filters that could have brought the message are
then unsubscribed, and the message is acknowledged and left out. With MQTT 5 the answer tells which
of these filters existed. Where no filter existed, the message came another way (such as a broker
that rewrites topics). Messages of the topic are then handed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

from paho.mqtt.client import topic_matches_sub

from trunkline.actors.driver import Delivery
from trunkline.actors.drivers.mqtt.plan import Plan
from trunkline.actors.drivers.mqtt.session import Session

__all__ = ["Leftovers", "filters_for"]

_DEEPEST = 6
"""Up to so many levels of a topic, all mixtures of names and `+` are tried."""
_MOST_ASKED, _MOST_HELD, _MOST_KNOWN = 200, 1000, 10_000
_PLAIN = ("$share/", "$SYS")
"""Known beginnings with `$`. Behind unknown beginnings a broker may deliver messages of any
topic.
"""


class Leftovers:
    """The search for old subscriptions on one link.

    `unsubscribe` sends the packet and returns its id. `hand_over` and `leave_out` take the messages
    whose origin has become clear.
    """

    def __init__(
        self,
        plan: Plan,
        session: Session,
        unsubscribe: Callable[[list[str]], int | None],
        hand_over: Callable[[Delivery], None],
        leave_out: Callable[[Delivery], None],
    ) -> None:
        self._session, self._v5 = session, plan.v5
        self._unsubscribe, self._hand_over, self._leave_out = unsubscribe, hand_over, leave_out
        self._filters = [_plain(topic) for topic in plan.topics]
        self._asks_for = frozenset(plan.topics)
        self._judges = not any(t.startswith("$") and not t.startswith(_PLAIN) for t in plan.topics)
        self._known: dict[str, bool] = {}
        self._asked: dict[int, tuple[str, list[str]]] = {}
        self._asked_about: set[str] = set()
        self._held: dict[str, list[Delivery]] = {}
        self._count = 0

    def is_ours(self, topic: str) -> bool:
        """Whether the address asks for the topic.

        Always true where the session cannot have old subscriptions.
        """
        if not self._session.inherited or not self._judges:
            return True
        found = self._known.get(topic)
        if found is None:
            found = any(topic_matches_sub(each, topic) for each in self._filters)
            if len(self._known) < _MOST_KNOWN:
                self._known[topic] = found
        return found

    def arrived(self, delivery: Delivery) -> None:
        """Handle a message whose topic the address does not ask for."""
        topic = delivery.topic or ""
        if not topic or topic in self._session.comes_otherwise:
            self._hand_over(delivery)
            return
        if topic not in self._asked_about and len(self._asked_about) < _MOST_ASKED:
            self._ask(topic)
        if (
            self._v5
            and topic in self._held
            and self._count < _MOST_HELD
            and not self._is_removed(topic)
        ):
            self._held[topic].append(delivery)
            self._count += 1
        else:
            self._leave_out(delivery)

    def answered(self, number: int, codes: Sequence[int]) -> None:
        """Handle an UNSUBACK.

        With MQTT 5 it has a code for each filter: 0 where the subscription existed.
        """
        topic, filters = self._asked.pop(number, ("", []))
        if not topic:
            return
        self._session.removed += [
            each for each, code in zip(filters, codes, strict=False) if code == 0
        ]
        held = self._held.pop(topic, [])
        self._count -= len(held)
        otherwise = self._v5 and bool(codes) and not self._is_removed(topic)
        if otherwise:
            self._session.comes_otherwise.add(topic)
        for each in held:
            (self._hand_over if otherwise else self._leave_out)(each)

    def _ask(self, topic: str) -> None:
        """Unsubscribe all filters that could have brought a message of the topic."""
        self._asked_about.add(topic)
        filters = [each for each in filters_for(topic) if each not in self._asks_for]
        number = self._unsubscribe(filters)
        if number is not None:
            self._asked[number] = (topic, filters)
            self._held[topic] = []

    def _is_removed(self, topic: str) -> bool:
        return any(topic_matches_sub(each, topic) for each in self._session.removed)


def filters_for(topic: str) -> list[str]:
    """Return every filter that matches the topic.

    For a topic of many levels only the likely ones.
    """
    return list(dict.fromkeys(_filters(topic.split("/"))))


def _filters(levels: list[str]) -> Iterator[str]:
    yield "/".join(levels)
    for count in range(len(levels), -1, -1):
        yield "/".join([*levels[:count], "#"])
    if len(levels) <= _DEEPEST:
        for mixture in product(*((level, "+") for level in levels)):
            yield "/".join(mixture)
            for count in range(1, len(levels) + 1):
                yield "/".join([*mixture[:count], "#"])
        return
    for place in range(len(levels)):
        one = [*levels[:place], "+", *levels[place + 1 :]]
        yield "/".join(one)
        yield "/".join([*one[: place + 1], "#"])
    yield "/".join("+" for _ in levels)


def _plain(topic: str) -> str:
    """Return the filter of a subscription, without the group of a shared one."""
    return topic.split("/", 2)[2] if topic.startswith("$share/") else topic
