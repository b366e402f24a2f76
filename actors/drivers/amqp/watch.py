"""Watches what an open amqp link reads from: whether messages can still come, and how many wait.

RabbitMQ reports a cancelled subscription, but not the deletion of an exchange. The queue stays,
without bindings, and the reader would wait for ever. RabbitMQ is also silent when the exchange is
declared again, or when a binding is removed. So the bindings are made again from time to time:
binding is idempotent.
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
    """Watches the queue of one link.

    `missing` is called once when the exchange of the plan is gone.
    """

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
        """Count messages that came, and messages that were acknowledged or rejected."""
        self._delivered += delivered
        self._settled += settled

    def ready(self, count: int) -> None:
        """Note the broker's count of messages in the queue that were given to no consumer."""
        self._total, self._settled_then = count + self._delivered - self._settled, self._settled

    def lag(self) -> int:
        """Return the number of messages in the queue, with those delivered and unsettled.

        The figure is computed from the broker's last answer. An answer older than a second also
        triggers a new question.
        """
        if asyncio.get_running_loop().time() - self._looked_at >= _FRESH_S:
            self._wanted.set()
        return max(
            self._delivered - self._settled, self._total - (self._settled - self._settled_then)
        )

    async def _run(self) -> None:
        """Look at every heartbeat, at least every 20 s.

        Between, only the count is asked for, and only when `lag` wants.
        """
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
                    return  # the broker reports a deleted queue by itself
                if not binds:
                    return
                binds = False  # the right to bind was withdrawn: existing bindings stay
            except AMQPError:
                return  # the link has ended
            if loop.time() >= due:
                due = loop.time() + every

    async def _look(self, *, binds: bool) -> None:
        """Look on a separate channel, because the broker closes the channel where something is
        missing.
        """
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
