"""The queue and the exchange of an amqp connection: declared by `Dial`, later only waited for.

Somebody who deletes a queue may want to declare another kind of queue with the same name. A reader
that declared it again after each outage would always be first, with its own properties.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pika.exceptions import ChannelClosedByBroker

from trunkline.actors.driver import FatalError
from trunkline.actors.drivers.amqp.client import ask, open_channel
from trunkline.actors.drivers.amqp.memory import Memory
from trunkline.actors.drivers.amqp.plan import Plan
from trunkline.errors import DialError

__all__ = ["Topology"]

_NOT_FOUND, _OTHER_PROPERTIES, _ACCESS_REFUSED = 404, 406, 403
_INEQUIVALENT, _TYPE, _RESERVED = "inequivalent", "'type'", "amq."
"""RabbitMQ's words for a queue or an exchange with different properties. Further refusals with code
406 are about the request itself.
"""


class Topology:
    """Makes sure, over one link, that the queue and the exchange of a plan exist.

    The broker closes a channel where it refuses a request. So `prepare` may leave a new `channel`.
    """

    def __init__(
        self,
        connection: Any,
        plan: Plan,
        memory: Memory,
        *,
        had_link: bool,
        peer: str,
        warn: Callable[[str], None],
    ) -> None:
        self.channel: Any = None
        self.ready = 0
        """How many messages waited in the queue."""
        self._connection, self._plan, self._memory = connection, plan, memory
        self._had_link, self._peer, self._warn = had_link, peer, warn

    async def prepare(self) -> str | None:
        """Declare and bind what is missing.

        Return the name of the queue to read, or None for writing only.
        """
        self.channel = await open_channel(self._connection)
        await self._exchange()
        queue = await self._queue()
        if queue is not None and self._plan.binds:
            for key in self._plan.bindings:
                await ask(self.channel.queue_bind, queue, self._plan.exchange, key)
        return queue

    async def _exchange(self) -> None:
        """Make sure that the exchange exists, and check its type once."""
        plan = self._plan
        if not plan.exchange:
            return
        named = {"exchange": plan.exchange, "exchange_type": plan.kind}
        exists = await self._exists("exchange_declare", **named) is not None
        if exists:
            self._memory.deleted.discard("exchange")
            if (
                not plan.kind_given
                or plan.passive
                or self._had_link
                or plan.exchange.startswith(_RESERVED)
            ):
                return  # the type is checked once: keys that never match bring nothing
        else:
            self._check_may_declare("exchange", plan.exchange, goes_by_itself=not plan.durable)
        await self._declare(
            "exchange_declare",
            exists=exists,
            **named,
            durable=plan.durable,
            arguments=plan.exchange_arguments,
        )

    async def _queue(self) -> str | None:
        """Make sure that the queue exists; return its name, or None for writing only."""
        plan, name = self._plan, self._plan.queue
        if name is None:
            return None
        arguments = plan.queue_arguments
        if name == "":
            own = {"exclusive": True, "auto_delete": True, "arguments": arguments}
            return str((await ask(self.channel.queue_declare, "", **own)).queue)
        found = await self._exists("queue_declare", queue=name)
        if found is not None:
            self.ready = found.message_count
            self._memory.deleted.discard("queue")
        elif (
            not plan.exclusive or plan.passive
        ):  # no other connection can declare an exclusive queue
            short_lived = plan.auto_delete or not plan.durable
            self._check_may_declare("queue", name, goes_by_itself=short_lived)
        if found is None or (arguments and not self._had_link):
            await self._declare(
                "queue_declare",
                queue=name,
                durable=plan.durable,
                exclusive=plan.exclusive,
                auto_delete=plan.auto_delete,
                arguments=arguments,
            )
        return name

    def _check_may_declare(self, what: str, name: str, *, goes_by_itself: bool) -> None:
        """Raise, in words, where this link must not declare a missing thing."""
        if not self._plan.passive and not self._had_link:
            return
        if self._had_link:
            if goes_by_itself and not self._plan.passive and what not in self._memory.deleted:
                return
            text = f"the {what} '{name}' is gone from {self._peer} and not declared again: it is waited for"
            raise DialError(text, code=_NOT_FOUND)
        text = (
            f"{self._peer} has no {what} '{name}', and passive=true declares none: declare it first"
        )
        raise FatalError(text, code=_NOT_FOUND)

    async def _exists(self, method: str, **named: Any) -> Any:
        """Return the broker's report on a queue or an exchange; None where it is missing.

        The question comes before any declaration: asking needs no right to declare and changes
        nothing.
        """
        try:
            return await ask(getattr(self.channel, method), passive=True, **named)
        except ChannelClosedByBroker as error:
            if error.reply_code != _NOT_FOUND:
                raise
            self.channel = await open_channel(self._connection)
            return None

    async def _declare(self, method: str, *, exists: bool = False, **properties: Any) -> None:
        """Declare a thing.

        A thing with other properties is used as it is. `exists`: the right may be missing.
        """
        try:
            await ask(getattr(self.channel, method), **properties)
        except ChannelClosedByBroker as error:
            other = error.reply_code == _OTHER_PROPERTIES and _INEQUIVALENT in str(error.reply_text)
            asked = properties.get("arguments")
            if not other and not (error.reply_code == _ACCESS_REFUSED and (asked or exists)):
                raise
            self.channel = await open_channel(self._connection)
            if other and (asked or _TYPE in str(error.reply_text)):
                self._warn(f"{self._peer}: what exists is used as it is: {error.reply_text}")
