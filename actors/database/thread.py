"""The driver thread: the only thread of a worker that calls its driver.

Drivers are blocking code, and most client libraries want to be called from one thread. So every
call of the shared driver runs here: `open`, `execute`, `in_transaction`, `commit`, `alive`,
`close`, also the `close` of a lost link. Only `interrupt` and `abort` come from other threads,
because the driver thread is inside the call that they end (`trunkline.actors.database.link`).

After an answer the driver thread may wait for the client's next statement on the client's socket.
The way through the event loop costs two more thread wake-ups for each statement.
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
"""Milliseconds that the driver thread waits on a client's socket for the next request.
Long enough for a program that executes one statement after another.
Short enough that the event loop soon watches the socket again.
"""
LARGEST_READ = 1 << 16
"""Bytes that the driver thread reads from a client's socket at once."""

RunMessage = Callable[["Guest", bytes, bytes], bool]
"""Runs the request (header, body) that a client has sent.
Returns False if the event loop has to take the request.
"""


def call_on_loop(loop: asyncio.AbstractEventLoop, call: Callable[..., Any], *given: Any) -> None:
    """Have the event loop call `call(*given)` soon.

    Called from another thread. Does nothing if the loop has ended.
    """
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *given)


class DriverThread:
    """Runs pieces of work one after another, in the order in which they were put."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, deliver: Callable[[bytes, bytes, bytes], object]
    ) -> None:
        """`deliver` takes a request that the thread has read and does not run.

        Its arguments are the name of the client socket, the header and the body.

        Called on the event loop.
        """
        self._loop = loop
        self._deliver = deliver
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._wake_fd = -1
        """An eventfd that wakes the thread while the
        thread waits on a client's socket; -1 without one.
        """
        self._is_listening = False
        """The thread waits on a client's socket, or is about to.
        A thread that puts work must write to the eventfd.
        """
        self._attended: tuple[Guest, RunMessage] | None = None
        """The client to read from after the running work.
        Written and read by the driver thread only.
        """
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
        """Do `work` after all work that was put before. `work` must not raise."""
        self._put(work)

    def stop(self) -> None:
        """End the thread after the work that was put before. Returns at once."""
        self._put(None)

    def join(self, seconds: float) -> bool:
        """Wait for the end of the thread, `seconds` at most.

        Returns whether the thread has ended.
        """
        self._thread.join(seconds)
        return not self._thread.is_alive()

    async def call(self, work: Callable[[], T]) -> T:
        """Do `work` on the thread.

        Returns or raises what `work` does. If the caller is cancelled, `work` goes on.
        """
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
        """Put work, and wake the thread if it waits on a client's socket. None ends the thread."""
        # This method puts the work and then reads `_is_listening`. The driver thread sets
        # `_is_listening` and then looks for work. In every order at least one of the two sees the
        # other, so no work waits for `LISTEN_MS` unnoticed.
        self._work.put(work)
        if self._is_listening:
            os.eventfd_write(self._wake_fd, 1)

    # on the thread itself

    def is_idle(self) -> bool:
        """Whether no other work waits."""
        return self._work.empty()

    def attend(self, client: Guest, run_message: RunMessage) -> None:
        """After the running work, read the client's next request and run it with `run_message`.

        The client's socket is claimed for the driver thread.
        The event loop gets the socket back when `run_message` returns False, when other work
        comes, or after `LISTEN_MS` milliseconds.
        """
        self._attended = client, run_message

    def _serve(self) -> None:
        """Do the work that was put, until None comes. The body of the driver thread."""
        while (work := self._work.get()) is not None:
            work()
            attended, self._attended = self._attended, None
            if attended is not None:
                self._listen_to(*attended)
        if self._wake_fd >= 0:
            wake_fd, self._wake_fd = self._wake_fd, -1
            os.close(wake_fd)

    def _listen_to(self, client: Guest, run_message: RunMessage) -> None:
        """Run the requests of one client as they come, until the event loop takes over."""
        while True:
            self._is_listening = True
            messages = (
                client.listen(self._wake_fd, LISTEN_MS, self._inlet) if self._work.empty() else []
            )
            self._is_listening = False
            # None: other work came, the time is over, or the client hung up.
            # Several: they wait in the event loop's line.
            if len(messages) != 1 or not run_message(client, *messages[0]):
                break
            if self._attended is None:
                # The event loop was told of the statement.
                # It reads the socket again when it notes the end.
                return
            self._attended = None
        # Forget a wake-up that came for this listening, or the next one would end at once.
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_fd)
        for head, body in messages:
            call_on_loop(self._loop, self._deliver, client.name, head, body)
        call_on_loop(self._loop, client.rearm)
