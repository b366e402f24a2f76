"""The broker without its sockets: the parts, put together.

Each part knows only the parts above it in `Core.__init__`. `Core` takes messages in and sends
messages through a function, so a test can drive the whole broker without a socket.
"""

from __future__ import annotations

from collections.abc import Callable

from trunkline.broker.admission import Admission
from trunkline.broker.adoption import Adoption
from trunkline.broker.attaching import Attachments
from trunkline.broker.clients import Clients
from trunkline.broker.deadlines import Deadlines
from trunkline.broker.directory import Directory
from trunkline.broker.ending import Ending
from trunkline.broker.figures import Bequests
from trunkline.broker.holders import Holders
from trunkline.broker.incoming import Handlers, Incoming
from trunkline.broker.inquiries import Inquiries
from trunkline.broker.lives import Lives
from trunkline.broker.opening import Dials
from trunkline.broker.outbox import Outbox
from trunkline.broker.schedule import Schedule
from trunkline.broker.spawner import Spawner
from trunkline.broker.spawning import Spawning
from trunkline.broker.watching import Watcher
from trunkline.broker.workers import Workers

__all__ = ["Core"]


class Core:
    """All parts of the broker at `address`.

    `keep_number`: see `Dials`. `hear_waiting_messages`: see `Workers`. `persistent`, `starter`: see
    `Ending`.
    """

    def __init__(
        self, address: str, directory: Directory, outbox: Outbox, spawner: Spawner, watcher: Watcher,
        schedule: Schedule, *, keep_number: Callable[[int], None], hear_waiting_messages: Callable[[], None],
        persistent: bool, starter: int | None,
    ) -> None:  # fmt: skip
        bequests = Bequests()
        self.admission = admission = Admission(directory, outbox, schedule)
        self.adoption = adoption = Adoption(address, schedule, self.handle)
        self.lives = lives = Lives(
            address, directory, outbox, spawner, bequests, adoption, schedule
        )
        self.holders = holders = Holders(directory, outbox, lives, bequests, schedule)
        self.ending = ending = Ending(
            directory,
            outbox,
            lives,
            holders,
            adoption,
            schedule,
            persistent=persistent,
            starter=starter,
        )
        self.dials = dials = Dials(
            address,
            directory,
            outbox,
            lives,
            holders,
            admission,
            adoption,
            bequests,
            keep_number,
            schedule,
        )
        self.attachments = Attachments(address, directory, outbox, holders, admission, adoption)
        self.clients = clients = Clients(
            directory, outbox, holders, adoption, ending, watcher, schedule
        )
        self.workers = workers = Workers(
            directory, outbox, lives, adoption, ending, watcher, schedule, hear_waiting_messages
        )
        self.spawning = Spawning(spawner, directory, lives, workers, ending, watcher, schedule)
        self.inquiries = Inquiries(address, directory, outbox, lives, spawner)
        self.deadlines = Deadlines(
            directory,
            lives,
            holders,
            dials,
            workers,
            self.spawning,
            clients,
            adoption,
            ending,
            schedule,
        )
        self._handlers: Handlers = {
            **self.clients.handlers(),
            **self.dials.handlers(),
            **self.attachments.handlers(),
            **self.workers.handlers(),
            **self.inquiries.handlers(),
        }

    def handle(self, message: Incoming) -> None:
        """Handle a message to the broker. Raises any error that a malformed message leads to."""
        self._handlers[message.kind](message)
