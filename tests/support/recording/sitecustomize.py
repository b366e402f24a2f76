"""Records the events of the pure machines: loaded by every interpreter that has this folder in PYTHONPATH.

Each machine gets a file of its own in the folder `TRUNKLINE_TEST_EVENT_LOG`. A line of the file is a call of
a method: its name, its arguments, the answers that the machine got from its helpers (`waits`), and then its
phase, its state and the actions that it returned. `tests/support/replays.py` reads the files.
"""

import inspect
import itertools
import json
import os
import sys
import time
from typing import Any

_FOLDER = os.environ.get("TRUNKLINE_TEST_EVENT_LOG", "")
_MACHINES = {
    "trunkline.actors.stream.link": ("LinkLife", ("_backoff.next_wait", "_flapping.wait")),
    "trunkline.broker.lifecycle": ("Life", ()),
}
"""Module: its machine, and the machine's helpers whose answers depend on chance or on other processes."""
_count = itertools.count()


def _as_data(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_as_data(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value if type(value) in (type(None), bool, int, float, str) else str(value)
    fields = {
        name: _as_data(getattr(value, name)) for name in getattr(type(value), "__match_args__", ())
    }
    return {"action": type(value).__name__, **fields}


class _Log:
    def __init__(self, machine: Any, first: dict[str, Any]) -> None:
        self.waits: list[Any] = []
        self.depth = 0
        name = f"{type(machine).__name__}-{time.time_ns()}-{os.getpid()}-{next(_count)}.jsonl"
        self._path = os.path.join(_FOLDER, name)
        self.write(first)

    def write(self, line: dict[str, Any]) -> None:
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


_logs: dict[int, _Log] = {}


def _record(kind: type, helpers: tuple[str, ...]) -> None:
    begin = kind.__init__  # type: ignore[misc]

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        given = inspect.signature(begin).bind(self, *args, **kwargs)
        plain = {
            name: value for name, value in given.arguments.items() if isinstance(value, (bool, int))
        }
        _logs[id(self)] = _Log(self, {"new": plain})
        for helper in helpers:
            owner, _, name = helper.partition(".")
            _spy(self, getattr(self, owner), name)

    kind.__init__ = init  # type: ignore[misc]
    for name, method in list(vars(kind).items()):
        if inspect.isfunction(method) and not name.startswith("_"):
            setattr(kind, name, _noted(name, method))


def _spy(machine: Any, owner: Any, name: str) -> None:
    answer = getattr(owner, name)

    def answer_and_note(*args: Any) -> Any:
        found = answer(*args)
        _logs[id(machine)].waits.append(found)
        return found

    setattr(owner, name, answer_and_note)


def _noted(name: str, method: Any) -> Any:
    signature = inspect.signature(method)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        log = _logs.get(id(self))
        if log is None:
            return method(self, *args, **kwargs)
        log.depth += 1
        try:
            found = method(self, *args, **kwargs)
        finally:
            log.depth -= 1
        if log.depth == 0:
            given = dict(signature.bind(self, *args, **kwargs).arguments)
            del given["self"]
            waits, log.waits = log.waits, []
            seen = {"phase": str(self.phase), "state": str(self.state), "actions": _as_data(found)}
            log.write(
                {
                    "call": name,
                    "with": {k: _as_data(v) for k, v in given.items()},
                    "waits": waits,
                    **seen,
                }
            )
        return found

    return call


class _Recording:
    """Finds the modules of the machines, and puts the recording around their classes."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in _MACHINES:
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)) is not None:
                break
        else:
            return None
        run = spec.loader.exec_module  # type: ignore[union-attr]

        def exec_module(module: Any) -> None:
            run(module)
            kind, helpers = _MACHINES[name]
            _record(getattr(module, kind), helpers)

        spec.loader.exec_module = exec_module  # type: ignore[union-attr, method-assign]
        return spec


if _FOLDER:
    sys.meta_path.insert(0, _Recording())  # type: ignore[arg-type]
