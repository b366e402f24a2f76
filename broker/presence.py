"""Whether a client is still there. That the process lives that it has named is not enough: any program of the
same user can name one, and the broker would never end.

A client shows that it is there by its socket, which the system closes with its process; a strategy that holds
its interpreter for minutes, or is stopped, keeps it. Who beats is there. Who is silent is sent a beat now and
then, which the router refuses when the socket is gone.
"""

from __future__ import annotations

from collections.abc import Callable

from trunkline.broker.directory import Client

__all__ = ["is_cut_off"]

SILENT_S = 2.0
"""Beats come each second."""
LOOK_S = 0.5
LONGEST_LOOK_S = 30.0
"""A client that is stopped for days must not be sent a beat each second."""
CUT_S = 1.5
"""A client that takes the broker for lost closes its socket and comes back by another one at once."""


def is_cut_off(client: Client, now: float, reach: Callable[[bytes], bool]) -> bool:
    """Whether the client's socket has been gone for a while. `reach` sends something there; False: nobody is
    there any more."""
    silent_s = now - client.heard
    if silent_s < SILENT_S:
        client.cut_since = None
        return False
    if now >= client.look_at:
        client.look_at = now + (
            LOOK_S if client.cut_since else min(LONGEST_LOOK_S, max(LOOK_S, silent_s / 4))
        )
        if reach(client.id):
            client.cut_since = None
        elif client.cut_since is None:
            client.cut_since, client.look_at = now, now + LOOK_S
    return client.cut_since is not None and now - client.cut_since >= CUT_S
