"""The other side of a NATS connection: what other programs publish, answer and see, from a test's own thread.

with NatsSide(f"nats://127.0.0.1:{server.port}") as side:
    side.watch("answers")                  # side.seen["answers"] fills up
    side.publish("prices", "1.0")          # on the server when this returns
    side.stream("ORDERS", "orders.>")      # JetStream
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import defaultdict
from collections.abc import Coroutine
from typing import Any, TypeVar

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerInfo, StreamInfo
from nats.js.errors import ServerError

from trunkline.deadline import Deadline

__all__ = ["NatsSide"]

T = TypeVar("T")
_NO_STORE = 10049
_CALL_S = 20.0


class NatsSide:
    """A nats-py client on a loop in a thread. Every call has taken effect on the server when it returns."""

    def __init__(self, url: str, **login: Any) -> None:
        self.seen: dict[str, list[bytes]] = defaultdict(list)
        """By subject, what `watch` saw."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="nats-side", daemon=True
        )
        self._thread.start()
        # A server that a test restarts may take its time: the side waits for it, however often it is refused.
        again = {"allow_reconnect": True, "reconnect_time_wait": 0.02, "max_reconnect_attempts": -1}
        self._client: Client = self.run(nats.connect(url, **again, **login))

    def run(self, job: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the side's loop."""
        return asyncio.run_coroutine_threadsafe(job, self._loop).result(_CALL_S)

    def publish(
        self,
        subject: str,
        *messages: str | bytes,
        reply: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        async def body() -> None:
            for message in messages:
                data = message.encode() if isinstance(message, str) else message
                await self._client.publish(subject, data, reply=reply, headers=headers)
            await self._flush()

        self.run(body())

    def store(self, subject: str, *messages: str | bytes) -> None:
        """Publish to a stream, acknowledged."""

        async def body() -> None:
            for message in messages:
                data = message.encode() if isinstance(message, str) else message
                await self._client.jetstream().publish(subject, data, timeout=10)

        self.run(body())

    def watch(self, subject: str) -> None:
        async def on_message(msg: Msg) -> None:
            self.seen[subject].append(msg.data)

        self._subscribe(subject, on_message)

    def answer(self, subject: str, prefix: str = "answer to ") -> None:
        """Answer each question on the subject."""

        async def on_message(msg: Msg) -> None:
            await self._client.publish(
                msg.reply, prefix.encode() + msg.data, headers={"kind": "answer"}
            )

        self._subscribe(subject, on_message)

    def stream(self, name: str, *subjects: str, **config: Any) -> None:
        deadline = Deadline(_CALL_S)
        while True:
            try:
                self.run(
                    self._client.jetstream().add_stream(
                        name=name, subjects=list(subjects), **config
                    )
                )
                return
            except ServerError as error:
                # A server whose last stream another test has just deleted removes the folder of them all.
                if error.err_code != _NO_STORE or deadline.expired():
                    raise

    def delete_stream(self, name: str) -> None:
        self.run(self._client.jetstream().delete_stream(name))

    def delete_consumer(self, stream: str, name: str) -> None:
        self.run(self._client.jetstream().delete_consumer(stream, name))

    def add_consumer(self, stream: str, **config: Any) -> None:
        self.run(self._client.jetstream().add_consumer(stream, **config))

    def create_consumer(self, stream: str, config: dict[str, Any]) -> None:
        """The same with settings that nats-py does not know; nanoseconds, as the server has them."""
        request = json.dumps({"stream_name": stream, "config": config}).encode()
        subject = f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{config['durable_name']}"
        answer = json.loads(self.run(self._client.request(subject, request)).data)
        assert "error" not in answer, answer

    def consumers(self, stream: str) -> list[ConsumerInfo]:
        return self.run(self._client.jetstream().consumers_info(stream))

    def consumer(self, stream: str, name: str) -> ConsumerInfo:
        return self.run(self._client.jetstream().consumer_info(stream, name))

    def info(self, stream: str) -> StreamInfo:
        return self.run(self._client.jetstream().stream_info(stream))

    def _subscribe(self, subject: str, on_message: Any) -> None:
        async def body() -> None:
            await self._client.subscribe(subject, cb=on_message)
            await self._flush()

        self.run(body())

    async def _flush(self) -> None:
        # nats-py's own sends its PING before what is still pending
        while self._client.pending_data_size:  # noqa: ASYNC110  (there is no event for it)
            await asyncio.sleep(0)
        await self._client.flush()

    def close(self) -> None:
        if not self._loop.is_closed():
            self.run(self._client.close())
            self.run(self._end_tasks())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CALL_S)
            self._loop.close()

    async def _end_tasks(self) -> None:
        """An attempt to reconnect that `close` has cancelled closes its socket when it is awaited."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __enter__(self) -> NatsSide:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
