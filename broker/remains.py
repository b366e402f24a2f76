"""The files of a worker that was killed: its ledger has the figures of its last moment, its door is void."""

from __future__ import annotations

import contextlib

from trunkline.broker.directory import Connection
from trunkline.broker.figures import settled
from trunkline.wire import endpoint
from trunkline.wire.ledger import read_ledger, unpublished

__all__ = ["remove_files", "take_last_figures"]


def take_last_figures(address: str, connection: Connection) -> None:
    """Set the figures of a connection to those of its crashed worker's last moment, and remove the door.

    Messages that were with the worker count as lost (or as returned, where a message broker keeps them);
    messages that the worker had sent will be read. The ledger has the figures; where there is no ledger, the
    worker's last STATE has them.
    """
    stats = connection.stats
    entry = read_ledger(endpoint.figures(address, connection.id))
    if entry is not None and entry.incarnation == connection.incarnation:
        stats.update(entry.counters)
        connection.had = {connection.changes.name_now(h): had for h, had in entry.holders.items()}
    elif (
        stats.get("incarnation") == connection.incarnation
    ):  # the worker was there, but left no ledger
        connection.had = {}
    connection.stats = settled(stats)
    # The ledger stays until the next worker has one: broker and worker may both be killed before that.
    with contextlib.suppress(OSError):
        endpoint.door(address, connection.id).unlink()


def remove_files(address: str, connection: Connection) -> None:
    """Remove the files of a connection that gets no further worker."""
    figures = endpoint.figures(address, connection.id)
    for path in (endpoint.door(address, connection.id), figures, unpublished(figures)):
        with contextlib.suppress(OSError):
            path.unlink()
