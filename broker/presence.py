"""Whether a client is still there.

A living process is no proof of a client: any program of the same user can name any process id, and
the broker would never end.

The client's socket is the proof. The system closes the socket with its process. A strategy that
holds the GIL for minutes, or is stopped, keeps its socket. A client that beats is there. A silent
client is sent a beat now and then, which the ROUTER socket refuses if the client's socket is gone.
"""

from __future__ import annotations

from collections.abc import Callable

from trunkline.broker.directory import Client

__all__ = ["is_cut_off"]

SILENT_S = 2.0
"""Seconds of silence before a test of the socket. Beats come each second."""
LOOK_S = 0.5
LONGEST_LOOK_S = 30.0
"""Seconds. A beat each second to a client that is stopped for days would fill the queue."""
CUT_S = 1.5
"""Seconds. A client that takes the broker for lost comes back at once by a new socket."""


def is_cut_off(client: Client, now: float, reach: Callable[[bytes], bool]) -> bool:
    """Whether the client's socket has been gone for CUT_S seconds.

    `reach` sends a beat to a client, and returns whether the client's socket is there.
    """
    silent_s = now - client.heard
    # Messages prove the socket, so that a client that beats costs no test.
    if silent_s < SILENT_S:
        client.cut_since = None
        return False
    if now >= client.look_at:
        # Ever more seldom while the socket is there, soon again once it is gone.
        client.look_at = now + (
            LOOK_S if client.cut_since else min(LONGEST_LOOK_S, max(LOOK_S, silent_s / 4))
        )
        if reach(client.id):
            client.cut_since = None
        elif client.cut_since is None:
            client.cut_since, client.look_at = now, now + LOOK_S
    return client.cut_since is not None and now - client.cut_since >= CUT_S
