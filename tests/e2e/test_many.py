"""Many connections in one strategy: all of them usable, all of them gone afterwards."""

from __future__ import annotations

import resource

import pytest

from tests.support.programs import Program, Remains
from tests.support.sockets import SocketServer, echo

pytestmark = pytest.mark.own_broker

MANY = """
import resource
conns = []
for _ in range(int(args[1])):
    conns.append(Dial(args[0]))
    if conns[-1] is None: break
say('open', sum(c is not None for c in conns), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
conns = [c for c in conns if c]
say('wrote', sum(c.write(str(n)) for n, c in enumerate(conns)) == sum(len(str(n)) for n in range(len(conns))))
say('read', [c.read(10000) for c in conns] == [str(n) for n in range(len(conns))])
say('descriptors', round(len(os.listdir('/proc/self/fd')) / len(conns), 1))
"""


@pytest.fixture
def remains(_no_leaks: None, monkeypatch: pytest.MonkeyPatch) -> Remains:
    monkeypatch.delenv("TRUNKLINE_BROKER", raising=False)
    return Remains()


def limited(soft: int, hard: int) -> str:
    return f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"


def test_three_hundred_connections_are_usable_at_once(remains: Remains) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with (
        SocketServer(echo) as server,
        Program(limited(1024, hard) + MANY, server.url, 300) as program,
    ):
        count, _ = program.wait_line("open ", 60).split()
        assert int(count) == 300
        assert program.wait_line("wrote ") == "True"
        assert program.wait_line("read ") == "True"
        assert float(program.wait_line("descriptors ")) < 7
        assert program.end() == 0
    remains.assert_none(8)


def test_at_the_end_of_the_descriptors_a_dial_says_so_and_the_rest_goes_on(
    remains: Remains,
) -> None:
    with (
        SocketServer(echo) as server,
        Program(limited(128, 256) + MANY, server.url, 300) as program,
    ):
        count, limit = program.wait_line("open ", 60).split()
        assert 30 < int(count) < 256
        assert int(limit) == 256
        assert "has used up its 256 descriptors" in "\n".join(program.lines)
        assert program.wait_line("read ") == "True"
        assert program.end() == 0
    remains.assert_none(8)
