"""Every way a program ends: nothing of Trunkline's waits for what is not its own, children that still use a
connection are served, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import Program, Remains
from tests.support.sockets import SocketServer, echo

pytestmark = pytest.mark.own_broker

PRELUDE = """
import multiprocessing, time
FORK = multiprocessing.get_context('fork')
from multiprocessing.managers import BaseManager
from concurrent.futures import ProcessPoolExecutor
class Manager(BaseManager): pass
def use(conn, word):
    conn.write(word); return conn.read(20000)
LATE = "import time; time.sleep(1); c.write('x'); print('got', c.read(20000), flush=True)"
def threaded(conn, word):
    threading.Timer(0.3, lambda: say('got', use(conn, word))).start()
def grand(conn, word):
    FORK.Process(target=threaded, args=(conn, word)).start()
"""

ENDINGS = {
    # what the program does, its exit code, what a child of it says at last
    "a running manager": ("m = Manager(); m.start(); c = Dial(args[0]); assert c", 0, ""),
    "a manager that began after the dial": (
        "c = Dial(args[0]); m = multiprocessing.Manager()",
        0,
        "",
    ),
    "a manager and sys.exit": ("m = Manager(); m.start(); c = Dial(args[0]); sys.exit(3)", 3, ""),
    "a manager and an exception": ("m = Manager(); m.start(); c = Dial(args[0]); 1 / 0", 1, ""),
    "a manager of forkserver": (
        "m = multiprocessing.get_context('forkserver').Manager(); c = Dial(args[0])",
        0,
        "",
    ),
    "a child of spawn that uses it later": (
        "c = Dial(args[0]); s = multiprocessing.get_context('spawn')\n"
        "s.Process(target=exec, args=(LATE, {'c': c})).start()",
        0,
        "x",
    ),
    "a child of a forkserver that began before the dial": (
        "s = multiprocessing.get_context('forkserver'); m = s.Manager(); c = Dial(args[0])\n"
        "s.Process(target=exec, args=(LATE, {'c': c})).start()",
        0,
        "x",
    ),
    "a pool that began before the dial and is given a handle": (
        "p = multiprocessing.Pool(1); c = Dial(args[0])\n"
        "say('got', p.apply(eval, (\"(c := __import__('trunkline').Dial(h)).write('x') and c.read(20000)\", "
        "{'h': c.fd()})))",
        0,
        "x",
    ),
    "a child of a forkserver that began before the dial and is given a handle": (
        "s = multiprocessing.get_context('forkserver'); m = s.Manager(); c = Dial(args[0])\n"
        "code = 'import trunkline; c = trunkline.Dial(h); ' + LATE\n"
        "s.Process(target=exec, args=(code, {'h': c.fd()})).start()",
        0,
        "x",
    ),
    "a pool": (
        "c = Dial(args[0]); p = multiprocessing.Pool(2); say('got', p.apply(use, (c, 'x')))",
        0,
        "x",
    ),
    "an executor": (
        "c = Dial(args[0]); p = ProcessPoolExecutor(1); say('got', p.submit(use, c, 'x').result())",
        0,
        "x",
    ),
    "a daemon child that reads": (
        "c = Dial(args[0]); multiprocessing.Process(target=c.read, daemon=True).start()",
        0,
        "",
    ),
    "a thread that runs on": ("c = Dial(args[0]); threaded(c, 'x')", 0, "x"),
    "a daemon thread that reads": (
        "c = Dial(args[0]); threading.Thread(target=c.read, daemon=True).start()",
        0,
        "",
    ),
    "daemon threads that dial again and again": (
        "import itertools, logging; logging.disable(logging.WARNING); c = Dial(args[0])\n"
        "def dial(began):\n"
        "    for _ in itertools.count(): Dial(args[0]); Dial('tcp://127.0.0.1:1', 5); began.set()\n"
        "all_began = [threading.Event() for _ in range(3)]\n"
        "for began in all_began: threading.Thread(target=dial, args=(began,), daemon=True).start()\n"
        "for began in all_began: began.wait(20)",
        0,
        "",
    ),
    "a thread of a child that runs on": (
        "c = Dial(args[0]); FORK.Process(target=threaded, args=(c, 'x')).start()",
        0,
        "x",
    ),
    "a grandchild that runs on": (
        "c = Dial(args[0]); FORK.Process(target=grand, args=(c, 'x')).start()",
        0,
        "x",
    ),
    "a plain fork beside a manager": (
        "m = Manager(); m.start(); c = Dial(args[0])\n"
        "if not os.fork(): c = Dial(args[0]); c.close(); sys.stderr = open(os.devnull, 'w'); sys.exit(0)\n"
        "os.wait()",
        0,
        "",
    ),
    "a child that a thread has forked, and that returns": (
        "c = Dial(args[0])\n"
        "def fork():\n"
        "    if not os.fork(): say('got', use(c, 'x'))\n"
        "    else: os.wait()\n"
        "t = threading.Thread(target=fork); t.start(); t.join()",
        0,
        "x",
    ),
    "SIGTERM with a forked child in a read": (
        "c = Dial(args[0]); r, w = multiprocessing.Pipe()\n"
        "if not os.fork(): c.write('a'); c.read(); w.send(1); say('got', use(c, 'x')); os._exit(0)\n"
        "r.recv(); os.kill(os.getpid(), signal.SIGTERM)",
        -signal.SIGTERM,
        "x",
    ),
    "os._exit with a forked child that has used it": (
        "c = Dial(args[0]); r, w = multiprocessing.Pipe(); q, v = multiprocessing.Pipe()\n"
        "if not os.fork(): c.stats(); w.send(1); q.recv(); say('got', use(c, 'x')); os._exit(0)\n"
        "r.recv(); v.send(1); os._exit(0)",
        0,
        "x",
    ),
    "a finalizer that dials when the interpreter ends": (
        "class Late:\n    def __del__(self): say('got', Dial(args[0]))\nlate = Late(); c = Dial(args[0])",
        0,
        "None",
    ),
    "Ctrl-C at the end": (
        "m = Manager(); m.start(); c = Dial(args[0]); os.kill(os.getpid(), signal.SIGINT); time.sleep(20)",
        -signal.SIGINT,
        "",
    ),
}


@pytest.mark.usefixtures("_no_leaks")
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_program_ends_and_leaves_nothing_behind(ending: str) -> None:
    code, status, said = ENDINGS[ending]
    remains = Remains()
    with SocketServer(echo) as server, Program(PRELUDE + code, server.url) as program:
        if said:
            assert program.wait_line("got ") == said
        assert program.end() == status
    remains.assert_none()


def test_daemon_threads_that_the_end_cuts_off_say_nothing() -> None:
    code = """
c, d = Dial(args[0]), Dial('sqlite3://:memory:')
def keep_reading(): c.read(); c.write('x'); d.exec('SELECT 1'); threading.Event().wait()
threading.Thread(target=keep_reading, daemon=True).start()
import atexit
atexit.register(lambda: say('atexit'))
"""
    with SocketServer(echo) as server, Program(code, server.url) as program:
        assert program.end() == 0
        assert program.lines == ["atexit"]


def test_an_object_in_the_frames_of_an_error_is_collected_in_silence() -> None:
    code = "c = Dial(args[0]); c.write('x'); sys.excepthook = lambda *_: say('hook', c.read(5000)); 1 / 0"
    with SocketServer(echo) as server, Program(code, server.url) as program:
        assert program.end() == 1
        assert program.lines == ["hook x"]


def test_a_program_with_closed_standard_files_dials(tmp_path: Path) -> None:
    code = """
c = Dial('sqlite3://:memory:'); rows = c and c.exec('SELECT 1')
open(args[0], 'w').write(f"{rows} {[os.readlink(f'/proc/self/fd/{fd}') for fd in range(3)]}")
"""
    command = [sys.executable, "-c", Program.PRELUDE + code, str(tmp_path / "said")]
    closing = 'exec "$@" <&- >&- 2>&-'
    environ = {**os.environ, "HOME": "/nonexistent", "TRUNKLINE_BROKER": ""}
    subprocess.run(["sh", "-c", closing, "sh", *command], check=True, timeout=60, env=environ)
    assert (tmp_path / "said").read_text() == (
        "{'columns': ['1'], 'values': [[1]]} ['/dev/null', '/dev/null', '/dev/null']"
    )
