"""Files of the user's, or of a stranger's, that are called like modules: Trunkline imports none of them."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.programs import Program, Remains, until
from tests.support.sockets import SocketServer, echo
from tests.support.strategies import RunningStrategy

pytestmark = [pytest.mark.own_broker, pytest.mark.usefixtures("_no_leaks")]

ROOT = Path(__file__).parents[2]
LIBRARIES = {"zmq", "msgpack", "uvloop", "picows", "websocket", "socks", "rich", "sitecustomize"}
LIBRARIES |= {"httpx", "httpcore", "h11", "certifi", "idna", "anyio", "Crypto"}


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Path]:
    """A folder with a module of every name there is; each leaves a file when it is imported."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    mark = f"import os\nos.close(os.open({str(tmp_path / 'hit')!r} + __name__, os.O_CREAT))\nraise Exception\n"
    for name in LIBRARIES | sys.stdlib_module_names - {*sys.builtin_module_names, "__future__"}:
        (folder / f"{name}.py").write_text(mark)
    yield folder
    assert list(tmp_path.glob("hit*")) == []


@pytest.mark.parametrize("spawn", ["fork", "exec"])
@pytest.mark.parametrize("path", ["", ".:"])
def test_neither_broker_nor_zygote_nor_worker_imports_from_the_current_folder(
    spawn: str, path: str, hostile: Path
) -> None:
    code = """
import trunkline.proxy.dial, trunkline.proxy.connection
os.chdir(args[0]); sys.path.insert(0, ''); os.environ['PYTHONPATH'] = args[1]
def use(): c = Dial('sqlite3://:memory:'); assert c.exec('SELECT 1'); assert Dial(args[2]).write('x')
use(); say('first'); sys.stdin.readline(); use(); say('second')
"""
    remains = Remains()
    env = {"TRUNKLINE_SPAWN": spawn, "TRUNKLINE_BROKER": ""}
    with SocketServer(echo) as server, Program(code, hostile, path, server.url, env=env) as program:
        program.wait_line("first")
        zygote = remains.zygote()
        zygote.kill()  # the one that follows is a new interpreter
        until(lambda: not zygote.is_running(), "the end of the zygote")
        program.tell()
        program.wait_line("second")
        assert program.end() == 0


def test_a_strategy_dials_in_a_folder_full_of_such_names(hostile: Path, tmp_path: Path) -> None:
    script = hostile / "strategy.py"
    script.write_text(
        "import sys\n"
        "def main():\n"
        "    c = Dial('sqlite3://:memory:')\n"
        "    Log(c.exec('SELECT ?', 1.5)['values'], Dial(sys.argv[1]).write('x'))\n"
        "    _G('a', 1); Log(_G('a'), _D(), UUID(), MD5('x'), DBExec('SELECT 2')['values'], Version())\n"
        "    Encode('keccak256', 'raw', 'hex', 'x')\n"
        "    HttpQuery('http://127.0.0.1:9'); Mail('smtp://127.0.0.1:9', 'a', 'b', 'c@d', 't', 'b')\n"
        '    Dial(\'ws://127.0.0.1:9\'); LogStatus(\'`{"type":"table","title":"t","cols":[],"rows":[]}`\')\n'
        "    Log(exchange.HMAC('sha256', 'hex', 'x', 'k')); Sleep(1); Log('end')\n"
    )
    command = Path(sys.executable).with_name("trunkline")
    with SocketServer(echo) as server:
        done = subprocess.run(
            [command, "run", "--data", tmp_path / "data", "strategy.py", server.url],
            cwd=hostile,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    assert "[[1.5]] 1" in done.stdout
    assert done.stdout.endswith("end\n")


@pytest.mark.parametrize("name", ["secrets", "signal", "queue"])
def test_a_file_of_the_users_may_be_called_so(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text("KEY = 'mine'\n")
    (tmp_path / "program.py").write_text(
        f"import {name}\nfrom trunkline import Dial\n"
        f"print({name}.KEY, Dial('sqlite3://:memory:').exec('SELECT 1'))"
    )
    (tmp_path / "strategy.py").write_text(
        f"import {name}\ndef main():\n"
        f"    Log(getattr({name}, 'KEY', ''), Dial('sqlite3://:memory:').exec('SELECT 1'))"
    )
    program = [sys.executable, "program.py"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "mine {'columns': ['1'], 'values': [[1]]}\n", done.stderr
    with RunningStrategy(
        tmp_path / "strategy.py", "--data", str(tmp_path / "data"), cwd=tmp_path
    ) as strategy:
        assert strategy.end() == 0
    assert "'values': [[1]]" in strategy.output
    assert name != "secrets" or "mine" in strategy.output


def test_a_program_that_found_trunkline_through_its_path_starts_that_very_one(
    tmp_path: Path,
) -> None:
    package = tmp_path / "lib" / "trunkline"
    for source, target in (
        ("sdk", package),
        ("broker", package / "broker"),
        ("actors", package / "actors"),
    ):
        shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
    code = "import sys; sys.path[:0] = sys.argv[1:]; from trunkline import Dial; c = Dial('sqlite3://:memory:')\n"
    code += "print(c.exec('SELECT 1')['values'], flush=True); sys.stdin.readline()"
    remains = Remains()
    for folders in ((str(package.parent),), ("lib",), ("",)):
        here = tmp_path if folders != ("",) else package.parent
        program = [sys.executable, "-S", "-c", code, *folders, *site.getsitepackages()]
        environ = {name: value for name, value in os.environ.items() if name != "TRUNKLINE_BROKER"}
        with subprocess.Popen(
            program, cwd=here, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            assert process.stdout.readline() == "[[1]]\n"
            assert str(package / "system" / "starting.py") in remains.broker().cmdline()
        remains.assert_none()


def test_a_host_that_is_no_python_is_told_to_name_one() -> None:
    code = """
sys.executable = '/usr/bin/uwsgi'; sys.prefix = sys.exec_prefix = sys.base_prefix = '/nonexistent'
assert Dial('sqlite3://:memory:') is None; say('why', trunkline.last_error())
os.environ['TRUNKLINE_PYTHON'] = '/nonexistent/python'
assert Dial('sqlite3://:memory:') is None; say('then', trunkline.last_error())
os.environ['TRUNKLINE_PYTHON'] = args[0]
say('rows', Dial('sqlite3://:memory:').exec('SELECT 1')['values'])
"""
    with Program(code, sys.executable, env={"TRUNKLINE_BROKER": ""}) as program:
        assert "set TRUNKLINE_PYTHON" in program.wait_line("why ")
        assert "/nonexistent/python cannot be run" in program.wait_line("then ")
        assert program.wait_line("rows ") == "[[1]]"
        assert program.end() == 0
