"""Messages from a binding that the address does not ask for, perhaps a binding of an earlier run.

Other programs may bind a queue on purpose, and AMQP cannot list bindings. So no binding is removed:
the messages are delivered, and a warning is logged. No I/O.
"""

from __future__ import annotations

import re

from trunkline.actors.drivers.amqp.plan import Plan

__all__ = ["Strays"]

_MOST_KNOWN = 10_000
_DIRECT, _TOPIC = ("direct", "amq.direct"), ("topic", "amq.topic")


class Strays:
    """Judges the routing keys of incoming messages.

    `kind`: the exchange's type as the address says; None where it does not say. Without the type,
    only the name of the exchange or a pattern among the keys can tell it. Otherwise no key is
    judged.
    """

    def __init__(self, plan: Plan, kind: str | None) -> None:
        self._plan = plan
        patterns = [key for key in plan.bindings if {"*", "#"} & set(key.split("."))]
        topic = kind in _TOPIC or plan.exchange in _TOPIC or (kind is None and bool(patterns))
        direct = kind in _DIRECT or plan.exchange in _DIRECT
        self._judges = bool(plan.queue and plan.binds) and (topic or direct)
        self._fits = re.compile(
            "|".join(map(_pattern if topic else re.escape, plan.bindings)), re.DOTALL
        )
        self._known: dict[str, bool] = {}

    def warning(self, exchange: str, key: str) -> str | None:
        """Return the warning for a message, by exchange and routing key.

        None where it fits.
        """
        if not self._judges or exchange != self._plan.exchange:
            return None
        fits = self._known.get(key)
        if fits is None:
            fits = self._fits.fullmatch(key) is not None
            if len(self._known) < _MOST_KNOWN:
                self._known[key] = fits
        if fits:
            return None
        return (
            f"a message came with routing key '{key}', which the address does not ask for: the queue "
            f"'{self._plan.queue}' has another binding to '{exchange}', perhaps of an earlier run; unbind it "
            "on the broker where it is not wanted"
        )


def _pattern(key: str) -> str:
    """Return a topic exchange's pattern as a regular expression: `*` is one word, `#` any number of
    words.
    """
    words = key.split(".")
    if set(words) == {"#"}:
        return ".*"
    found, dot = "", ""
    for place, word in enumerate(words):
        if word == "#":
            found += r"(?:\.[^.]*)*" if dot else r"(?:[^.]*\.)*"
        else:
            found += dot + (r"[^.]*" if word == "*" else re.escape(word))
        dot = dot if word == "#" and not place else r"\."
    return found
