"""What librdkafka logs: to who wants it, and never to stderr."""

from __future__ import annotations

import logging
from collections.abc import Callable

__all__ = ["quiet_logger"]

_QUIET = ("FAIL", "CONFWARN", "REQTMOUT", "GETPID", "TERMINATE", "CLOSE")
"""What librdkafka logs beside telling it as an error, or what is no news."""


class _Handler(logging.Handler):
    def __init__(self, say: Callable[[str], None], everything: bool) -> None:
        super().__init__()
        self._say = say
        self._everything = everything

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        loud = record.levelno >= logging.WARNING and not text.startswith(_QUIET)
        if self._everything or loud:
            self._say(f"librdkafka: {text}")


def quiet_logger(say: Callable[[str], None], everything: bool = False) -> logging.Logger:
    """A logger for librdkafka, which would write to stderr otherwise."""
    logger = logging.Logger("trunkline.kafka", logging.DEBUG)
    logger.propagate = False
    logger.addHandler(_Handler(say, everything))
    return logger
