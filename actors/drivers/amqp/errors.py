"""Puts pika's errors into words for users, and tells why a link was not possible. No I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from pika.exceptions import (
    AMQPError,
    ChannelClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from trunkline.actors.driver import FatalError
from trunkline.errors import DialError

__all__ = ["cause", "explain_opening_error", "reason"]

_ACCESS_REFUSED, _NOT_FOUND, _LOCKED = 403, 404, 405
_PASSING = ("limit", "is down")
"""Words of a broker's refusal that may pass."""
_REASON = re.compile(r"\((\d{3})\) (['\"])(.*?)\2")


def cause(error: BaseException) -> BaseException:
    """Return the innermost error in the failures of pika's workflow and connector."""
    while True:
        inner = (
            getattr(error, "exceptions", None)
            or getattr(error, "exception", None)
            or error.args[:1]
        )
        found = inner[-1] if isinstance(inner, Sequence) and inner else inner
        if not isinstance(found, BaseException):
            return error
        error = found


def reason(error: AMQPError) -> tuple[int | None, str]:
    """Return the broker's code and words, which pika quotes."""
    found = _REASON.search(" ".join(map(str, error.args)))
    return (int(found[1]), found[3]) if found else (None, str(error) or type(error).__name__)


def explain_opening_error(
    error: AMQPError, why: Exception | None, peer: str, hide: Callable[[str], str]
) -> Exception:
    """Return the error for users of an opening that failed.

    `error`: pika's error. `why`: the end of the socket, if it has ended. `peer`: the broker, for
    the text. `hide`: removes the user's name from the broker's words.
    """
    if isinstance(error, ChannelClosedByBroker):
        return _explain_refusal(error.reply_code, hide(str(error.reply_text)), peer)
    code, text = reason(error)
    text = hide(text)
    if isinstance(error, ProbableAuthenticationError) and code == _ACCESS_REFUSED:
        return FatalError(
            f"{peer} refused the login (ACCESS_REFUSED); check user and password", code=code
        )
    if isinstance(error, ProbableAccessDeniedError) and code is not None:
        kind = DialError if any(word in text for word in _PASSING) else FatalError
        return kind(f"{peer} refused the virtual host: {text}", code=code)
    if code is not None or why is None:
        return DialError(f"{peer} closed the connection: {text}", code=code)
    return why if isinstance(why, DialError) else DialError(str(why))


def _explain_refusal(code: int, text: str, peer: str) -> DialError:
    """Return the error for a refused subscription; DialError where waiting may help."""
    if code == _LOCKED or (code == _ACCESS_REFUSED and "exclusive use" in text):
        return DialError(f"{peer}: another connection has the queue for itself: {text}", code=code)
    if code == _ACCESS_REFUSED:
        return FatalError(
            f"{peer}: {text}; give the user that right, or use another queue", code=code
        )
    kind = DialError if code == _NOT_FOUND else FatalError
    return kind(f"{peer} refused the subscription: {text}", code=code)
