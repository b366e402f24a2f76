"""Puts errors of the server and of nats-py into words for users. No I/O."""

from __future__ import annotations

import nats.errors
from nats.js import errors as js_errors

from trunkline.actors.driver import FatalError
from trunkline.actors.drivers.nats.plan import StreamPlan
from trunkline.actors.drivers.nats.questions import NOT_READY
from trunkline.errors import DialError

__all__ = [
    "explain_stream_error",
    "gone",
    "is_login_error",
    "is_violation",
    "jetstream_right",
    "said",
    "subject_of_violation",
]

_BAD_LOGIN = ("authorization", "authentication", "credentials")
_WANTS_ACKS = (10084, 10098)
"""Error codes of a stream that keeps a message until it is acknowledged. The stream refuses a
consumer that acknowledges nothing.
"""


def said(error: BaseException) -> str:
    """Return the error's own words without nats-py's decoration."""
    return str(error).removeprefix("nats: ").strip().strip("'") or type(error).__name__


def is_login_error(text: str) -> bool:
    """Whether the server's words are about a login."""
    return any(word in text.lower() for word in _BAD_LOGIN)


def is_violation(error: BaseException | None) -> bool:
    """Whether the server refuses a subject."""
    return error is not None and said(error).lower().startswith("permissions violation")


def subject_of_violation(text: str) -> str:
    """Return the subject in the server's words, in lower case because nats-py has changed it."""
    return text.split('"')[1] if text.count('"') > 1 else "that subject"


def jetstream_right(subject: str) -> str:
    """Return the subject for which a user needs the right, from nats-py's lower case."""
    words = [word.upper() for word in subject.split(".")]
    return "$JS.ACK.>" if words[1:2] == ["ACK"] else ".".join([*words[:5], ">"])


def gone(error: Exception) -> ConnectionError:
    """Return the error of a write that finds the link gone."""
    return ConnectionError(f"the link is gone ({said(error)})")


def explain_stream_error(error: Exception, plan: StreamPlan, topic: str | None) -> DialError:
    """Return why JetStream does not let the stream be read.

    The result is a FatalError unless another attempt may succeed without a change by the user.
    """
    code = getattr(error, "err_code", None)
    text = getattr(error, "description", None) or str(error)
    if isinstance(error, nats.errors.TimeoutError):
        return DialError("JetStream did not answer in the time allowed")
    if code == NOT_READY or isinstance(error, js_errors.ServerError):
        return DialError(f"JetStream is not ready: {text}", code=code)
    if isinstance(error, js_errors.ServiceUnavailableError):
        return FatalError(
            "the server has no JetStream for this account; start it with -js, or leave out stream="
        )
    if isinstance(error, js_errors.NotFoundError) and "stream" in text:
        subjects = topic or f"{plan.name}.>"
        return FatalError(
            f"there is no stream {plan.name}; create it: nats stream add {plan.name} --subjects '{subjects}'",
            code=code,
        )
    if code in _WANTS_ACKS:
        return FatalError(
            f"stream {plan.name} keeps a message until it is acknowledged (retention=workqueue): "
            "it is read with durable=name",
            code=code,
        )
    what = (
        f"durable={plan.durable} of stream {plan.name}" if plan.durable else f"stream {plan.name}"
    )
    by = f" by topic={topic}" if topic else ""
    return FatalError(f"{what} cannot be read{by}: {text}", code=code)
