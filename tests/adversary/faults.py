"""Carrying out a step on a world."""

from __future__ import annotations

import contextlib
import os
import signal
import threading

from tests.adversary.lockedfile import LockedFile
from tests.adversary.steps import Step
from tests.adversary.world import World
from tests.servers.base import Server

__all__ = ["carry_out"]

_SIGNALS = {
    "kill": signal.SIGKILL,
    "term": signal.SIGTERM,
    "int": signal.SIGINT,
    "stop": signal.SIGSTOP,
    "cont": signal.SIGCONT,
}
_PAUSE = threading.Event()


def carry_out(step: Step, world: World) -> None:
    """Do it. A step for a process that is not there does nothing, as in a trial that was shrunk."""
    if step.what == "wait":
        _PAUSE.wait(int(step.whom) / 1000)
    elif step.what == "clock":
        world.clock.jump(float(step.whom))
    elif step.what in _SIGNALS:
        _signal(step, world)
    elif step.what == "ask":
        if step.whom == "second":
            world.second()
        else:
            world.ask("program", step.whom)
    elif step.whom == "link" and world.proxy:
        _on_link(step.what, world)


def _signal(step: Step, world: World) -> None:
    number = _SIGNALS[step.what]
    if step.whom == "server" and world.server:
        _on_server(step.what, world.server)
        return
    for pid in world.pids(step.whom):
        with contextlib.suppress(ProcessLookupError):
            if step.what == "int" and step.whom == "program":
                os.killpg(pid, number)  # as the terminal does: whatever is in its group
            else:
                os.kill(pid, number)
        if step.what == "stop":
            world.stopped.add(pid)
        if step.whom == "program" and step.what in ("kill", "term"):
            world.await_end("program")
    if step.what == "kill" and step.whom == "server":
        world.end_peer()
        world.start_server()


def _on_server(what: str, server: Server) -> None:
    if what == "stop":
        server.freeze()
    elif what == "cont":
        server.thaw()
    else:
        server.kill() if what == "kill" else server.stop()
        server.start()


def _on_link(fault: str, world: World) -> None:
    proxy = world.proxy
    assert proxy
    if isinstance(proxy, LockedFile):
        proxy.stall() if fault == "stall" else proxy.heal()
    elif fault == "reset":
        proxy.reset()
    elif fault == "cut":
        proxy.cut()
    elif fault == "hole":
        proxy.blackhole()
    elif fault == "hole-up":
        proxy.blackhole("up")
    elif fault == "hole-down":
        proxy.blackhole("down")
    elif fault == "stall":
        proxy.stall()
    elif fault == "slow":
        proxy.slow(latency_s=0.05, bytes_per_s=20_000)
    elif fault == "heal":
        if world.holed:  # what vanished never comes: a real network would have ended these links
            proxy.reset()
        proxy.heal()
    world.holed = fault.startswith("hole")
