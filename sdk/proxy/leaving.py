"""When this process leaves its broker: after all code of the program that may still use a
connection.

This module waits for no thread, process or manager of the program. The interpreter and
multiprocessing wait for theirs anyway, in this order:

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

So a program leaves after its children of multiprocessing have ended. A `multiprocessing.Manager`,
which ends only when its parent ends it, also ends before. A process that is killed, or that ends by
os._exit, runs none of this; the broker notices its end. A forked child that has used a connection
is a holder of its own, and goes on.
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["leave", "leave_at_exit", "leave_with_child"]

BEHIND_CHILDREN = -10
"""The priority of our finalizer. multiprocessing runs finalizers of negative priority after it has
joined its children."""

_shutdown: Callable[[], None]


def leave_at_exit(shutdown: Callable[[], None]) -> None:
    """Call `shutdown` when the interpreter ends. To be called once, by trunkline.proxy.process."""
    global _shutdown
    _shutdown = shutdown
    atexit.register(leave)


def leave() -> None:
    """Leave the broker now, or after the children of multiprocessing.

    Running children may still use this process's connections. Then the finalizer leaves, when
    multiprocessing has joined the children at the end of the interpreter.
    """
    util = sys.modules.get("multiprocessing.util")
    if util is not None and _has_children():
        util.Finalize(None, _shutdown, exitpriority=BEHIND_CHILDREN)
    else:
        _shutdown()


def leave_with_child() -> None:
    """In a child of multiprocessing: leave at its end. Such a child does not run atexit."""
    if (
        module := sys.modules.get("multiprocessing.process")
    ) and module.parent_process() is not None:
        util = sys.modules["multiprocessing.util"]
        util.Finalize(None, _leave_behind_threads, exitpriority=BEHIND_CHILDREN)


def _leave_behind_threads() -> None:
    """Leave after the threads of a child of multiprocessing.

    The child runs its finalizers before it waits for its threads, which may still use connections.
    So a further thread, for which the interpreter waits too, joins the others and leaves then.
    """
    me = threading.current_thread()
    others = [t for t in threading.enumerate() if t is not me and not t.daemon]
    if others:
        threading.Thread(target=_join_and_leave, args=(others,), name="trunkline-leave").start()
    else:
        _shutdown()


def _join_and_leave(threads: list[threading.Thread]) -> None:
    """The further thread: wait for the others, then leave."""
    for thread in threads:
        thread.join()
    _shutdown()


def _has_children() -> bool:
    """Whether children of multiprocessing are running that this process will join."""
    module: Any = sys.modules.get("multiprocessing.process")
    return module is not None and any(map(_is_ours, module.active_children()))


def _is_ours(child: Any) -> bool:
    """Whether multiprocessing will join this child.

    After a plain os.fork, multiprocessing in the child still lists the parent's children, and
    raises AssertionError when they are joined.
    """
    try:
        child.join(0)
    except AssertionError:
        return False
    return bool(child.is_alive())
