"""The files of a killed worker: the ledger with its last figures, and the dead door."""

from __future__ import annotations

import contextlib

from trunkline.broker.directory import Connection
from trunkline.broker.figures import settled
from trunkline.wire import endpoint
from trunkline.wire.ledger import read_ledger, unpublished

__all__ = ["remove_files", "take_last_figures"]


def take_last_figures(address: str, connection: Connection) -> None:
    """Set the figures of a connection to those of its worker's last moment, and remove the door.

    Messages still with the worker count as lost, or as returned where a message broker keeps them.
    Messages sent before the crash will be read. The figures come from the ledger; without a ledger,
    from the worker's last STATE.
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
    # The ledger stays until the next worker has its own: broker and worker may both be killed
    # before.
    with contextlib.suppress(OSError):
        endpoint.door(address, connection.id).unlink()


def remove_files(address: str, connection: Connection) -> None:
    """Remove the files of a connection without a further worker."""
    figures = endpoint.figures(address, connection.id)
    for path in (endpoint.door(address, connection.id), figures, unpublished(figures)):
        with contextlib.suppress(OSError):
            path.unlink()
