"""Questions to JetStream's API, repeated while no answer comes, and the server's report on a
consumer.

A leader that dies takes its unanswered questions along. So a question is asked again each second,
until the first answer or the caller's deadline.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import nats.errors
from nats.aio.client import Client
from nats.js import errors as js_errors

from trunkline.deadline import Deadline

__all__ = ["NOT_READY", "ConsumerLook", "ask", "look_at_consumer"]

T = TypeVar("T")

NOT_READY = 10008
"""JetStream's code for "system temporarily unavailable": the cluster has no leader at the
moment.
"""
_ANSWER_S = 1.0
_LONGEST_S = 60.0
_LOOK_S = 2.0
_PAUSE_S = 0.25
_MISSING = (10014, 10059)
"""JetStream's codes for a consumer and for a stream that do not exist."""


async def ask(client: Client, question: Callable[[Any], Awaitable[T]], deadline: Deadline) -> T:
    """Ask a question until the first answer, and return the answer.

    `question` is called with a JetStreamManager, possibly several times at once: it must be
    idempotent. Raises nats.errors.TimeoutError when no answer came by the deadline, and the
    server's error where asking again cannot help.
    """
    asked: set[asyncio.Task[T]] = set()
    try:
        while True:
            asked.add(asyncio.ensure_future(_asked(client, question, deadline)))
            # Earlier calls are not cancelled: the server may only be slow, and its late answer
            # counts.
            answered, asked = await asyncio.wait(
                asked, timeout=min(_ANSWER_S, deadline.left()), return_when=asyncio.FIRST_COMPLETED
            )
            waits = True
            for task in answered:
                error = task.exception()
                if error is None:
                    return task.result()
                if _is_final(error) or client.is_closed or deadline.expired():
                    raise error
                waits = False
            if deadline.expired():
                raise nats.errors.TimeoutError
            if not waits:
                await asyncio.sleep(min(_PAUSE_S, deadline.left()))
    finally:
        for task in asked:
            task.cancel()


async def _asked(client: Client, question: Callable[[Any], Awaitable[T]], deadline: Deadline) -> T:
    return await question(client.jsm(timeout=max(0.1, min(_LONGEST_S, deadline.left()))))


def _is_final(error: BaseException) -> bool:
    """Whether asking again cannot bring another answer."""
    if isinstance(error, js_errors.ServerError):
        return error.err_code != NOT_READY
    return not isinstance(error, nats.errors.TimeoutError)


@dataclass(frozen=True, slots=True)
class ConsumerLook:
    """The server's report on a consumer."""

    pending: int
    """How many messages of the stream the consumer has not delivered yet."""
    waiting: int
    """How many requests for messages wait at the server."""
    created: str
    filter: str
    max_expires_s: float | None
    """The longest time in seconds that a request may wait; None for no limit."""
    max_batch: int | None
    """The most messages that a request may ask for; None for no limit."""


async def look_at_consumer(
    client: Client, stream: str, consumer: str, seconds: float = _LOOK_S
) -> ConsumerLook | None:
    """Return the server's report on a consumer; None where the consumer does not exist.

    Raises nats.errors.Error when no answer comes within `seconds`. The request is made here,
    because nats-py's ConsumerConfig lacks the limits on requests.
    """
    subject = f"$JS.API.CONSUMER.INFO.{stream}.{consumer}"
    answer = json.loads((await client.request(subject, b"", timeout=seconds)).data)
    if not isinstance(answer, dict):
        raise nats.errors.Error("the answer is not JetStream's")
    if (error := answer.get("error")) is not None:
        if error.get("err_code") in _MISSING:
            return None
        raise nats.errors.Error(str(error.get("description")))
    config = answer.get("config", {})
    expires = config.get("max_expires")
    return ConsumerLook(
        pending=int(answer.get("num_pending") or 0),
        waiting=int(answer.get("num_waiting") or 0),
        created=str(answer.get("created")),
        filter=str(config.get("filter_subject") or ""),
        max_expires_s=expires / 1e9 if expires else None,
        max_batch=config.get("max_batch") or None,
    )
