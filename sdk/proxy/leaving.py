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

So a program with running children of multiprocessing leaves after the children. A
`multiprocessing.Manager` ends only at its parent's order, and ends before the program leaves. A
killed process, or a process after os._exit, runs no such code; the broker notices the end of the
process. A forked child that has used a connection is a holder of its own, and goes on.
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["leave", "leave_at_exit", "leave_with_child"]

BEHIND_CHILDREN = -10
"""The priority of our finalizer. multiprocessing joins its children before it runs finalizers of
negative priority."""

_shutdown: Callable[[], None]


def leave_at_exit(shutdown: Callable[[], None]) -> None:
    """Call `shutdown` when the interpreter ends. To be called once, by trunkline.proxy.process."""
    global _shutdown
    _shutdown = shutdown
    atexit.register(leave)


def leave() -> None:
    """Leave the broker now, or after the children of multiprocessing.

    Running children may still use this process's connections. In that case a finalizer leaves,
    after multiprocessing has joined the children at the end of the interpreter.
    """
    util = sys.modules.get("multiprocessing.util")
    if util is not None and _has_children():
        util.Finalize(None, _shutdown, exitpriority=BEHIND_CHILDREN)
    else:
        _shutdown()


def leave_with_child() -> None:
    """In a child of multiprocessing: leave at the child's end. Such a child does not run atexit."""
    if (
        module := sys.modules.get("multiprocessing.process")
    ) and module.parent_process() is not None:
        util = sys.modules["multiprocessing.util"]
        util.Finalize(None, _leave_behind_threads, exitpriority=BEHIND_CHILDREN)


def _leave_behind_threads() -> None:
    """Leave after the threads of a child of multiprocessing.

    The child runs its finalizers before it waits for its threads, and the threads may still use
    connections. So a further thread joins the threads, and then leaves. The interpreter waits for
    the further thread, too.
    """
    me = threading.current_thread()
    others = [t for t in threading.enumerate() if t is not me and not t.daemon]
    if others:
        threading.Thread(target=_join_and_leave, args=(others,), name="trunkline-leave").start()
    else:
        _shutdown()


def _join_and_leave(threads: list[threading.Thread]) -> None:
    """The further thread: wait for the program's threads, then leave."""
    for thread in threads:
        thread.join()
    _shutdown()


def _has_children() -> bool:
    """Whether multiprocessing has running children and will join them."""
    module: Any = sys.modules.get("multiprocessing.process")
    return module is not None and any(map(_is_ours, module.active_children()))


def _is_ours(child: Any) -> bool:
    """Whether multiprocessing will join the child.

    After a plain os.fork, multiprocessing in the child still lists the parent's children. Joining
    such a process raises AssertionError.
    """
    try:
        child.join(0)
    except AssertionError:
        return False
    return bool(child.is_alive())
