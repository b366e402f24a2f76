"""What librdkafka logs: to who wants it, and never to stderr."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

__all__ = ["quiet_logger", "remade_topic"]

_QUIET = ("FAIL", "CONFWARN", "REQTMOUT", "GETPID", "TERMINATE", "CLOSE")
"""What librdkafka logs beside telling it as an error, or what is no news."""


_REMADE = re.compile(r"Topic (\S+) changed id from (?!A+[= ])\S+ to \S+")
"""But for a change from the zero id (only A): librdkafka hears of the topic's id for the first time."""


def remade_topic(text: str) -> str | None:
    """The topic of which this line of librdkafka's log (`debug=metadata`) says that it was deleted and made
    anew. librdkafka tells it nowhere else, and goes on reading at the old offset."""
    found = _REMADE.search(text)
    return found[1] if found else None


class _Handler(logging.Handler):
    def __init__(
        self, say: Callable[[str], None], everything: bool, hear: Callable[[str], None] | None
    ) -> None:
        super().__init__()
        self._say = say
        self._everything = everything
        self._hear = hear

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if self._hear is not None:
            self._hear(text)
        loud = record.levelno >= logging.WARNING and not text.startswith(_QUIET)
        if self._everything or loud:
            self._say(f"librdkafka: {text}")


def quiet_logger(
    say: Callable[[str], None], everything: bool = False, hear: Callable[[str], None] | None = None
) -> logging.Logger:
    """A logger for librdkafka, which would write to stderr otherwise. `hear` is called with every line."""
    logger = logging.Logger("trunkline.kafka", logging.DEBUG)
    logger.propagate = False
    logger.addHandler(_Handler(say, everything, hear))
    return logger
