"""A secret that is easy to find again, and a look at all that people can see of a program that knows it."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.support.commands import run
from tests.support.programs import Remains

__all__ = ["CORE", "LOOKS", "SECRET", "Seen", "traces"]

CORE = "Zq8Marker"
"""One capital letter keeps it apart from every word of ours."""
SECRET = f"{CORE}@5/+x"
"""With characters that are spelled in several ways in an address."""

LOOKS = """
import gc, logging, traceback
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)

def chain(error):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__

def tell(call):
    '''What the call gives; of what it raises, all that a crash reporter shows.'''
    try:
        return call()
    except BaseException as error:
        for one in chain(error):
            say(repr(one), one, getattr(one, "reason", None), vars(one))
        say("".join(traceback.TracebackException.from_exception(error, capture_locals=True).format()))

def look(conn):
    say(repr(conn), conn, repr(conn.stats()))
    for call in (lambda: conn.read(50), lambda: conn.receive(50), lambda: conn.write("x", 2000),
                 lambda: conn.exec("SELEC 1"), lambda: conn.query("SELEC 1"), lambda: conn.exec("SELECT 1")):
        tell(call)
    say(repr(conn), repr(conn.stats()))

def look_at_objects():
    '''Every object of Trunkline's own classes that there is.'''
    for each in gc.get_objects():
        if str(type(each).__module__).partition(".")[0] == "trunkline":
            try:
                words = f"{each!r} {each}"
            except Exception:
                continue
            if "Zq8" in words:  # the rest is thousands of lines
                say("object", type(each), words)

class Line:
    '''A line of standard input. No frame of this program has it in a variable that would be shown.'''
    def __init__(self): self._text = sys.stdin.readline().strip()
    def __call__(self): return self._text
"""
"""Functions for programs of `tests.support.programs`."""


def traces(text: str) -> Iterator[str]:
    """Where the secret stands in a text: as it is, in percent-encoding, base64 (of anything that holds it)
    or hexadecimal digits."""
    for needle in _needles():
        at = text.find(needle)
        if at >= 0:
            yield text[max(0, at - 100) : at + 60]


def _needles() -> list[str]:
    core = CORE.encode()
    found = [CORE, core.hex(), core.hex().upper()]
    for before in range(3):  # the three ways in which its letters can fall into groups of six bits
        encoded = base64.b64encode(b"\0" * before + core).decode()
        found.append(encoded[-(-8 * before // 6) : 8 * (before + len(core)) // 6])
    return found


class Seen:
    """What is seen of a program, collected over its life."""

    def __init__(self, home: Path) -> None:
        """`home` is the program's home folder."""
        self._remains = Remains()
        self._home = home
        self._texts: dict[str, set[str]] = {}

    def look(self, commands: Iterable[tuple[str, ...]] = ()) -> None:
        """Look at all processes and files there are now, and at what these commands of `trunkline` say."""
        for process in self._remains.processes():
            for name in ("cmdline", "environ", "comm", "stack", "maps"):
                with contextlib.suppress(OSError):  # just gone, or not for us
                    text = Path(f"/proc/{process.pid}/{name}").read_bytes().decode(errors="replace")
                    self._note(f"{name} of {process.pid}", text)
        for path in [*Path(os.environ["TRUNKLINE_RUNTIME"]).rglob("*"), *self._home.rglob("*")]:
            self._note("name of a file", str(path))
            with contextlib.suppress(OSError):
                if path.is_file():
                    self._note(str(path), path.read_bytes().decode(errors="replace"))
        for command in commands:
            ended = run(*command)
            self._note(" ".join(command), ended.out + ended.err)

    def hits(self, lines: Iterable[str]) -> list[str]:
        """Where the secret was seen, in the program's output too."""
        found = [
            f"{name}: {hit}"
            for name, texts in self._texts.items()
            for t in texts
            for hit in traces(t)
        ]
        return found + [f"line {n}: {hit}" for n, line in enumerate(lines) for hit in traces(line)]

    def workers(self) -> list[int]:
        """The processes of connections."""
        return [process.pid for process in self._remains.processes("trunk-")]

    def _note(self, name: str, text: str) -> None:
        self._texts.setdefault(name, set()).add(text)
