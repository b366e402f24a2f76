"""A process that goes over to another program by `exec`: its id stays, and nobody is left who would read."""

from __future__ import annotations

import sys
import threading

import pytest

from tests.support.programs import Program
from tests.support.sockets import Peer, SocketServer, echo

pytestmark = [pytest.mark.own_broker, pytest.mark.usefixtures("_no_leaks")]

NEXT = "from trunkline import Dial\nimport sys\n"


@pytest.mark.parametrize("then", ["dials", "does not dial"])
def test_the_connections_of_the_former_program_end(then: str) -> None:
    ended = [threading.Event(), threading.Event()]
    links = iter(ended)

    def handler(peer: Peer) -> None:
        mine = next(links)
        peer.send(b"first")
        while peer.read():
            pass
        mine.set()

    with SocketServer(handler) as server:
        dials = (
            f"c = Dial({server.url!r}); print(c.read(), flush=True); " if then == "dials" else ""
        )
        code = f"{NEXT}{dials}sys.stdin.readline()"
        run = f"os.execv({sys.executable!r}, [{sys.executable!r}, '-c', {code!r}])"
        with Program(f"c = Dial(args[0]); say('got', c.read())\n{run}", server.url) as program:
            program.wait_line("got first")
            assert ended[0].wait(20)  # it took a minute
            assert not ended[1].is_set()
            program.tell()
            assert program.end() == 0


def test_the_next_program_goes_on_with_a_handle() -> None:
    """What came before it looked is not with the former program, which cannot read it any more."""
    code = f"{NEXT}c = Dial(int(sys.argv[1])); print('got', c.read(20000), flush=True)"
    run = f"os.execv({sys.executable!r}, [{sys.executable!r}, '-c', {code!r}, str(c.fd())])"
    first = "c = Dial(args[0]); c.write('x'); c.read(); c.stats(); c.write('later')\n"
    with SocketServer(echo) as server, Program(first + run, server.url) as program:
        assert program.wait_line("got ") == "later"
        assert program.end() == 0
