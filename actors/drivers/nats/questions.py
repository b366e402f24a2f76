"""Questions to JetStream's API, asked again when no answer comes, and what a consumer says of itself.

A leader that dies takes the questions along that it had; nobody answers those. So a question is asked again
each second, until the first answer or the caller's deadline.
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
"""JetStream's code for "system temporarily unavailable": it has no leader at the moment."""
_ANSWER_S = 1.0
_LONGEST_S = 60.0
_LOOK_S = 2.0
_PAUSE_S = 0.25
_MISSING = (10014, 10059)
"""JetStream's codes for a consumer and a stream that are not there."""


async def ask(client: Client, question: Callable[[Any], Awaitable[T]], deadline: Deadline) -> T:
    """The first answer to `question`, which is called with a JetStreamManager and must do no harm when it is
    asked twice. nats.errors.TimeoutError when no answer came by the deadline."""
    asked: set[asyncio.Task[T]] = set()
    try:
        while True:
            asked.add(asyncio.ensure_future(_asked(client, question, deadline)))
            # Those that were asked before are still listened to: the server may only be slow.
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
    """Whether another answer is not to be had by asking again."""
    if isinstance(error, js_errors.ServerError):
        return error.err_code != NOT_READY
    return not isinstance(error, nats.errors.TimeoutError)


@dataclass(frozen=True, slots=True)
class ConsumerLook:
    """What the server says of a consumer."""

    pending: int
    """Messages of the stream that it has delivered to no reader yet."""
    waiting: int
    """Requests for messages that wait at the server."""
    created: str
    filter: str
    max_expires_s: float | None
    """The longest time that a request may wait; None for no limit."""
    max_batch: int | None
    """The most messages that a request may ask for; None for no limit."""


async def look_at_consumer(
    client: Client, stream: str, consumer: str, seconds: float = _LOOK_S
) -> ConsumerLook | None:
    """How the consumer is; None where it is not there (any more). nats.errors.Error without an answer.

    The request is made here, for nats-py's ConsumerConfig knows nothing of the limits on requests."""
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
