"""librdkafka's log: passed on to the user's log, and never to stderr."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

__all__ = ["quiet_logger", "remade_topic"]

_QUIET = ("FAIL", "CONFWARN", "REQTMOUT", "GETPID", "TERMINATE", "CLOSE")
"""Beginnings of log lines that librdkafka also reports as errors, or that are unimportant."""


_REMADE = re.compile(r"Topic (\S+) changed id from (?!A+[= ])\S+ to \S+")
"""A change from the zero id, which is written with the letter A only, does not match: librdkafka
then learns the topic's id for the first time.
"""


def remade_topic(text: str) -> str | None:
    """Return the topic that was deleted and made anew, according to this log line
    (`debug=metadata`); else None.

    librdkafka reports that nowhere else, and goes on reading at the old offset.
    """
    found = _REMADE.search(text)
    return found[1] if found else None


class _Handler(logging.Handler):
    """Passes lines of librdkafka's log on. librdkafka logs while it is polled, on that thread."""

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
    """Return a logger for librdkafka, which would otherwise write to stderr.

    `say` gets warnings, or every line with `everything`. `hear` is called with every line. Both are
    called on the thread that polls librdkafka.
    """
    logger = logging.Logger("trunkline.kafka", logging.DEBUG)
    logger.propagate = False
    logger.addHandler(_Handler(say, everything, hear))
    return logger
