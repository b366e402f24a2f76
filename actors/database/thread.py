"""The driver thread: the one thread of a worker that calls its driver.

Drivers are blocking code, and most client libraries want to be called from one thread. So every call of the
shared driver runs here: `open`, `execute`, `in_transaction`, `commit`, `alive`, `close`, also the `close` of
a lost link. Only `interrupt` and `abort` come from other threads, because this one is inside the call that
they end (`trunkline.actors.database.link`).

After an answer the thread may wait for the client's next statement on the client's own socket. The way
through the event loop costs two more thread wake-ups for each statement.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from trunkline.wire.framing import Inlet

if TYPE_CHECKING:
    from trunkline.actors.process.door import Guest

__all__ = ["DriverThread", "RunMessage", "call_on_loop"]

T = TypeVar("T")

LISTEN_MS = 20
"""How long the driver thread waits on a client's socket for the next request. Long enough for a program that
executes one statement after the other, short enough that the event loop soon watches the socket again."""
LARGEST_READ = 1 << 16

RunMessage = Callable[["Guest", bytes, bytes], bool]
"""Runs the request (header, body) that a client has sent; False when the event loop has to take it."""


def call_on_loop(loop: asyncio.AbstractEventLoop, call: Callable[..., Any], *given: Any) -> None:
    """From another thread: have the event loop call `call(*given)` soon; nothing when the loop has ended."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *given)


class DriverThread:
    """Runs pieces of work one after the other, in the order in which they were put."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, deliver: Callable[[bytes, bytes, bytes], object]
    ) -> None:
        """`deliver` takes, on the event loop, a request that the thread has read and does not run: name of
        the client socket, header and body."""
        self._loop = loop
        self._deliver = deliver
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._wake_fd = -1
        self._is_listening = False
        self._attended: tuple[Guest, RunMessage] | None = None
        self._inlet = Inlet(LARGEST_READ)
        self._thread = threading.Thread(target=self._serve, name="trunkline-driver", daemon=True)

    @property
    def can_listen(self) -> bool:
        """Whether `attend` is possible: the thread has started, on a system with eventfd."""
        return self._wake_fd >= 0

    # from any thread

    def start(self) -> None:
        """Begin to do the work. Called once."""
        if hasattr(os, "eventfd"):
            self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread.start()

    def put(self, work: Callable[[], object]) -> None:
        """Do `work` after all that was put before. `work` must not raise."""
        self._put(work)

    def stop(self) -> None:
        """End after the work that was put before. Returns at once."""
        self._put(None)

    def join(self, seconds: float) -> bool:
        """Wait for the end, `seconds` at most; whether the thread has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    async def call(self, work: Callable[[], T]) -> T:
        """Do `work` on the thread. Returns or raises what `work` does; a caller that is cancelled meanwhile
        does not end `work`."""
        future: asyncio.Future[T] = self._loop.create_future()

        def run() -> None:
            try:
                answer = work()
            except BaseException as error:
                call_on_loop(self._loop, fail, error)
            else:
                call_on_loop(self._loop, succeed, answer)

        def succeed(answer: T) -> None:
            if not future.done():
                future.set_result(answer)

        def fail(error: BaseException) -> None:
            if not future.done():
                future.set_exception(error)

        self.put(run)
        return await future

    def _put(self, work: Callable[[], object] | None) -> None:
        # The thread says that it listens before it looks whether there is work, and here the work is put
        # before the look whether the thread listens: at least one of the two sees the other.
        self._work.put(work)
        if self._is_listening:
            os.eventfd_write(self._wake_fd, 1)

    # on the thread itself

    def is_idle(self) -> bool:
        """Whether no other work waits."""
        return self._work.empty()

    def attend(self, client: Guest, run_message: RunMessage) -> None:
        """After this work, read the client's next request and run it with `run_message`. The client's socket
        is claimed for this thread; the event loop has it back as soon as `run_message` returns False, when
        other work comes, or after `LISTEN_MS` milliseconds."""
        self._attended = client, run_message

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            attended, self._attended = self._attended, None
            if attended is not None:
                self._listen_to(*attended)
        if self._wake_fd >= 0:
            wake_fd, self._wake_fd = self._wake_fd, -1
            os.close(wake_fd)

    def _listen_to(self, client: Guest, run_message: RunMessage) -> None:
        """Run the requests of one client as they come, until the event loop is to read its socket again."""
        while True:
            self._is_listening = True
            messages = (
                client.listen(self._wake_fd, LISTEN_MS, self._inlet) if self._work.empty() else []
            )
            self._is_listening = False
            if len(messages) != 1 or not run_message(client, *messages[0]):
                break
            if self._attended is None:
                return  # The event loop was told of the statement, and has the socket back with it.
            self._attended = None
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_fd)
        for head, body in messages:
            call_on_loop(self._loop, self._deliver, client.name, head, body)
        call_on_loop(self._loop, client.rearm)
