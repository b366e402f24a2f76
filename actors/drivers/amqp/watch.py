"""Looks whether what an open amqp link reads from can still give something, and how much waits there.

RabbitMQ says so when it cancels a subscription, but nothing when an exchange is deleted: the queue stays,
without bindings, and the reader would wait for ever. Nor does it when the exchange is declared again or a
binding is taken away. So the bindings are made again from time to time, which changes nothing where they are.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from pika.exceptions import AMQPError, ChannelClosedByBroker

from trunkline.actors.drivers.amqp.client import ask, open_channel
from trunkline.actors.drivers.amqp.plan import Plan

__all__ = ["QueueWatch"]

_NOT_FOUND, _EVERY_S, _FRESH_S = 404, 20, 1.0
_NO_EXCHANGE = "no exchange"


class QueueWatch:
    """Of one link and the queue it reads. `missing` is called once when the plan's exchange is gone."""

    def __init__(
        self, connection: Any, plan: Plan, queue: str, missing: Callable[[], None]
    ) -> None:
        self._connection, self._plan, self._queue = connection, plan, queue
        self._missing = missing
        self._wanted = asyncio.Event()
        self._looked_at = asyncio.get_running_loop().time()
        self._total, self._settled_then = 0, 0
        self._delivered = self._settled = 0
        self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        self._task.cancel()

    def counted(self, *, delivered: int = 0, settled: int = 0) -> None:
        """Messages that came, or that are acknowledged or rejected."""
        self._delivered += delivered
        self._settled += settled

    def ready(self, count: int) -> None:
        """The broker says how many messages wait in the queue that nobody has been given."""
        self._total, self._settled_then = count + self._delivered - self._settled, self._settled

    def lag(self) -> int:
        """Messages in the queue, and those delivered and not settled, from what the broker said last.
        It is asked again where that is a second ago."""
        if asyncio.get_running_loop().time() - self._looked_at >= _FRESH_S:
            self._wanted.set()
        return max(
            self._delivered - self._settled, self._total - (self._settled - self._settled_then)
        )

    async def _run(self) -> None:
        """Every heartbeat, every 20 s at least; how much waits also when that is asked."""
        loop, every = asyncio.get_running_loop(), min(self._plan.heartbeat_s or _EVERY_S, _EVERY_S)
        binds, due = bool(self._plan.exchange), loop.time() + every
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), max(0.0, due - loop.time()))
            self._wanted.clear()
            self._looked_at = loop.time()
            try:
                await self._look(binds=binds and loop.time() >= due)
            except ChannelClosedByBroker as error:
                if error.reply_code == _NOT_FOUND:
                    if _NO_EXCHANGE in str(error.reply_text):
                        self._missing()
                    return  # a queue that is gone is told of by its own word
                if not binds:
                    return
                binds = False  # the right to bind was taken away: what is bound stays
            except AMQPError:
                return  # the link has ended
            if loop.time() >= due:
                due = loop.time() + every

    async def _look(self, *, binds: bool) -> None:
        """On a channel of its own: the broker closes it where something is missing."""
        channel, plan = await open_channel(self._connection), self._plan
        if binds and plan.binds:
            for key in plan.bindings:
                await ask(channel.queue_bind, self._queue, plan.exchange, key)
        elif binds:
            named = {"exchange": plan.exchange, "exchange_type": plan.kind}
            await ask(channel.exchange_declare, **named, passive=True)
        self.ready(
            (await ask(channel.queue_declare, queue=self._queue, passive=True)).message_count
        )
        with contextlib.suppress(AMQPError):
            channel.close()
