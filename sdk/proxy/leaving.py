"""When this process leaves its broker: behind everything of the program that may still use a
connection.

Nothing here waits for a thread, a process or a manager of the program's. The interpreter and
multiprocessing wait for those that they wait for anyway, in this order:

    main program                              child of multiprocessing
      threads that are no daemons               (its function has returned)
      atexit, the last registered first         finalizers of multiprocessing, from priority 0 up
        -> `leave`                              its own children are joined
        multiprocessing: finalizers of          finalizers of negative priority
          priority 0 and up (they end             -> `_leave_behind_threads`
          managers and pools)                   threads that are no daemons
        its children are joined                   -> our thread, which joins the others
        finalizers of negative priority
          -> our finalizer, where `leave` found children

So a program whose children run on leaves after them, and a `multiprocessing.Manager`, which ends
only when its parent lets it, is ended first. A process that is killed, or ends by os._exit, runs
none of this: the broker sees its end. A forked child that has used a connection is a holder of its
own, and goes on.
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["leave", "leave_at_exit", "leave_with_child"]

BEHIND_CHILDREN = -10
"""Priority of our finalizer: multiprocessing runs the negative ones when it has joined its
children."""

_shutdown: Callable[[], None]


def leave_at_exit(shutdown: Callable[[], None]) -> None:
    """Call `shutdown` when the interpreter ends. To be called once, by trunkline.proxy.process."""
    global _shutdown
    _shutdown = shutdown
    atexit.register(leave)


def leave() -> None:
    """Leave the broker now; where processes of multiprocessing still run, when it has joined them
    at the end of the interpreter, for they may yet use what is open here."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None and _has_children():
        util.Finalize(None, _shutdown, exitpriority=BEHIND_CHILDREN)
    else:
        _shutdown()


def leave_with_child() -> None:
    """Where this process is a child of multiprocessing: leave at its end. It runs nothing of
    atexit."""
    if (
        module := sys.modules.get("multiprocessing.process")
    ) and module.parent_process() is not None:
        util = sys.modules["multiprocessing.util"]
        util.Finalize(None, _leave_behind_threads, exitpriority=BEHIND_CHILDREN)


def _leave_behind_threads() -> None:
    """A child of multiprocessing runs its finalizers before it waits for its threads; they may use
    what is open, so a thread that the interpreter waits for as well leaves behind them."""
    me = threading.current_thread()
    others = [t for t in threading.enumerate() if t is not me and not t.daemon]
    if others:
        threading.Thread(target=_join_and_leave, args=(others,), name="trunkline-leave").start()
    else:
        _shutdown()


def _join_and_leave(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join()
    _shutdown()


def _has_children() -> bool:
    module: Any = sys.modules.get("multiprocessing.process")
    return module is not None and any(map(_is_ours, module.active_children()))


def _is_ours(child: Any) -> bool:
    """Whether multiprocessing will join it: after a plain os.fork it still lists the parent's
    children, and refuses to."""
    try:
        child.join(0)
    except AssertionError:
        return False
    return bool(child.is_alive())
