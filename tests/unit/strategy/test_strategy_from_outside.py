"""What a strategy gets from outside its script: parameters, its name and storage, pushes, events, and the
globals that the original's platform has."""

from __future__ import annotations

import base64
import http.server
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from tests.support.servers import WsServer
from tests.support.sockets import SocketServer
from tests.support.strategies import RunningStrategy
from tests.support.waiting import Background
from trunkline import Dial
from trunkline.proxy.result import ExecResult
from trunkline.strategy import run
from trunkline.strategy.events import EventLoop
from trunkline.strategy.params import read_params
from trunkline.strategy.storage import lock_folder


def script(folder: Path, text: str) -> Path:
    path = folder / "strategy.py"
    path.write_text(dedent(text), encoding="utf-8")
    return path


def test_parameters_are_globals_and_win_over_the_scripts_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.toml").write_text('slow = 30\nfast = 1\nsymbols = ["BTC"]\n')
    path = script(tmp_path, "fast = 5\ndef main(): Log(fast, slow, symbols, live, label)\n")
    settings = ["fast=12", "live=true", "label=a=b c"]
    code = run(
        str(path), console=False, data=tmp_path, settings=settings, params=str(tmp_path / "p.toml")
    )
    assert code == 0
    assert "12 30 ['BTC'] True a=b c" in capsys.readouterr().out


def test_values_of_parameters(tmp_path: Path) -> None:
    pairs = (
        "a=1",
        "b=1.5",
        "c=None",
        "d=false",
        'e="1"',
        "f=NaN",
        "g=",
        "h=[1, 2]",
        "i=-3e2",
        "j=01",
    )
    assert read_params(None, pairs, ()) == {
        "a": 1, "b": 1.5, "c": None, "d": False, "e": "1", "f": "NaN", "g": "", "h": [1, 2], "i": -300.0,
        "j": "01",
    }  # fmt: skip
    (tmp_path / "p.json").write_text('{"a": {"b": 1}}')
    assert read_params(str(tmp_path / "p.json"), ["c=2"], ()) == {"a": {"b": 1}, "c": 2}


@pytest.mark.parametrize(
    ("pairs", "content", "words"),
    [
        (["fast"], None, "write NAME=VALUE"),
        (["1x=2"], None, "no name that Python code can use"),
        (["class=2"], None, "no name that Python code can use"),
        (["Log=2"], None, "would hide the strategy's own Log"),
        (["main=2"], None, "would hide the strategy's own main"),
        ([], "fast 12", "not well-formed TOML"),
    ],
)
def test_a_wrong_parameter_is_one_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    pairs: list[str],
    content: str | None,
    words: str,
) -> None:
    file = tmp_path / "p.toml"
    if content is not None:
        file.write_text(content)
    path = script(tmp_path, "def main(): pass\n")
    given = str(file) if content is not None else None
    assert run(str(path), console=False, data=tmp_path, settings=pairs, params=given) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_parameter_file_that_is_no_text_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "p.json"
    file.write_bytes(b"\xff\xfe")
    path = script(tmp_path, "def main(): pass\n")
    assert run(str(path), console=False, data=tmp_path, params=str(file)) == 2
    assert f"--params {file} is not text in UTF-8" in capsys.readouterr().err


def test_two_runs_of_a_file_do_not_share_their_storage(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        """
        def main():
            Log("had", _G("n"), _G())
            _G("n", GetMeta())
            Log("ready")
            while GetCommand() is None:
                Sleep(20)
        """,
    )
    data = ("--data", str(tmp_path / "data"))
    with RunningStrategy(path, *data, env={**os.environ, "TRUNKLINE_META": "one"}) as first:
        first.wait_line("ready")
        with RunningStrategy(path, *data) as second:
            assert second.end() == 2
        assert f"process {first.process.pid}" in second.output
        assert "trunkline run --name ID" in second.output
        log = tmp_path / "log"
        with RunningStrategy(path, *data, "--name", "b", "--log", str(log)) as named:
            named.wait_line("had None")
            named.wait_line("ready")
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        assert {row["name"] for row in rows} == {"b"}
        with RunningStrategy(path, *data, "--name", "../b") as wrong:
            assert wrong.end() == 2
        assert "--name ../b: 1 to 64 letters" in wrong.output
    with RunningStrategy(
        path, *data
    ) as again:  # the first one's storage is free, also after a kill
        again.wait_line("had one")


def test_a_lock_is_the_process_s_own(tmp_path: Path) -> None:
    file = lock_folder(tmp_path / "x", "s.py")
    assert file is not None
    assert (tmp_path / "x" / "run.lock").read_text().strip() == str(os.getpid())
    file.close()
    (tmp_path / "file").write_text("")
    assert lock_folder(tmp_path / "file" / "x", "s.py") is None


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, str]]]]:
    posts: list[dict[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if "login" in posts[-1]["text"]:
                posts.append({"login": self.headers["Authorization"]})
            self.send_response(
                500 if "bad" in posts[-1].get("text", "") else 302 if "moved" in self.path else 200
            )
            self.send_header("Location", "/s3cret")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/s3cret", posts
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_push_reaches_a_webhook_and_tells_no_secret(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    webhook: tuple[str, list[dict[str, str]]],
) -> None:
    address, posts = webhook
    monkeypatch.setenv("TRUNKLINE_PUSH", address)
    text = 'import os\ndef main(): Log("margin call#ff0000@"); Log("a"); Log("bad", "@"); Log(dict(os.environ))'
    assert run(str(script(tmp_path, text)), console=False, data=tmp_path, name="btc") == 0
    assert posts == [{"text": "margin call", "strategy": "btc"}, {"text": "bad", "strategy": "btc"}]
    out = capsys.readouterr().out
    assert "a push could not be sent (the webhook answered 500)" in out
    assert "s3cret" not in out


def test_a_push_goes_to_a_command_and_without_one_a_warning_says_so_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = script(tmp_path, 'def main():\n    Log("one@")\n    Log("two@")\n')
    code = f"import sys; open({str(tmp_path / 'got')!r}, 'a').write(sys.stdin.read() + ';')"
    monkeypatch.setenv("TRUNKLINE_PUSH", f'{sys.executable} -c "{code}"')
    assert run(str(path), console=False, data=tmp_path) == 0
    assert (tmp_path / "got").read_text() == "one;two;"
    assert "ERROR" not in capsys.readouterr().out
    monkeypatch.delenv("TRUNKLINE_PUSH", raising=False)
    assert run(str(path), console=False, data=tmp_path) == 0
    assert capsys.readouterr().out.count("set TRUNKLINE_PUSH") == 1


def test_a_webhook_may_have_a_login_and_is_not_followed_elsewhere(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    webhook: tuple[str, list[dict[str, str]]],
) -> None:
    address, posts = webhook
    path = str(script(tmp_path, 'def main(): Log("login@")\n'))
    monkeypatch.setenv("TRUNKLINE_PUSH", address.replace("//", "//us:pw@"))
    assert run(path, console=False, data=tmp_path) == 0
    assert posts[1] == {"login": "Basic " + base64.b64encode(b"us:pw").decode()}
    assert "ERROR" not in capsys.readouterr().out
    monkeypatch.setenv("TRUNKLINE_PUSH", f"{address}/moved")
    assert run(path, console=False, data=tmp_path) == 0
    assert "the webhook answered 302, with another address" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("cat >> s3cret", "started without a shell: write sh -c"),
        ("sh -c 's3cret", "quotes do not match"),
        ("false s3cret", "ended with status 1)"),
        ("no-such-program s3cret", "No such file or directory"),
    ],
)
def test_a_push_command_that_fails_says_why(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRUNKLINE_PUSH", command)
    assert run(str(script(tmp_path, 'def main(): Log("x@")\n')), console=False, data=tmp_path) == 0
    out = capsys.readouterr().out
    assert words in out
    assert "s3cret" not in out


def test_pushes_that_the_end_cannot_wait_for_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.strategy.push.END_S", 0.2)
    monkeypatch.setenv("TRUNKLINE_PUSH", f"sh -c 'echo $$ >> {tmp_path}/pids; exec sleep 60'")
    text = f"""\
        import pathlib
        def main():
            Log("a@"); Log("b@")
            while not (pathlib.Path({str(tmp_path / "pids")!r}).exists()): Sleep(10)
        """
    assert run(str(script(tmp_path, dedent(text))), console=False, data=tmp_path) == 0
    assert "2 pushes were not sent" in capsys.readouterr().out
    (pid,) = (tmp_path / "pids").read_text().split()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_the_platforms_own_globals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = script(
        tmp_path,
        """
        def main():
            assert IsVirtual() is False
            assert PD_SHORT_YD == 3 and PERIOD_M5 == 300 and LOG_TYPE_RESTART == 6
            assert StrDecode("中文".encode("gbk")) == "中文"
            assert abs(PyTime() - Unix()) < 2
            EnableLogLocal(True)
            going = Mail_Go("127.0.0.1:1", "u", "p", "to", "t", "b")
            value, ok = going.wait(10000)
            assert (value, ok) == (False, True) and going.wait() == (None, False)
            result = DBExec("SELECT 1 AS a")
            assert result.columns == ["a"] and result.values == [[1]] == result["values"]
            for use in (lambda: Chart({}), lambda: TA.MACD([]), lambda: SetChannelData("x")):
                try:
                    use()
                except AttributeError as error:
                    Log(error)
            Panic("no", "more")

        def onexit():
            Log("left")
        """,
    )
    assert run(str(path), console=False, data=tmp_path) == 1
    out = capsys.readouterr()
    assert (
        "Chart belongs to the original's platform and is not here; LogStatus draws tables"
        in out.out
    )
    assert "TA.MACD belongs to" in out.out
    assert "ERROR no more" in out.out
    assert "left" in out.out
    assert "Traceback" not in out.out + out.err


def test_results_are_dicts_with_attributes() -> None:
    result = ExecResult({"columns": ["a"], "values": [[1]], "affected": 2})
    assert (result.columns, result.values, result.affected, result.last_id) == (
        ["a"],
        [[1]],
        2,
        None,
    )
    assert result == {"columns": ["a"], "values": [[1]], "affected": 2}
    assert json.loads(json.dumps(result)) == result


def test_an_event_is_announced_once_until_the_connection_is_read() -> None:
    with SocketServer() as server:
        loop = EventLoop()
        first, second = Dial(server.url), Dial(server.url)
        assert first is not None
        assert second is not None
        database = Dial("sqlite3://:memory:")
        for connection in (first, second, database):
            loop.add(connection)
        assert loop(-1) is None
        assert loop(30) is None
        waiting = Background(loop)
        second.write("hello")
        event = waiting.result()
        assert event is not None
        assert (event.Index, event.Seq, event["Event"]) == (1, 1, "dial")
        assert loop(-1) is None  # announced, and not read yet
        assert second.read(5000) == "hello"
        first.write("a")
        event = loop(5000)
        assert event is not None
        assert (event.Index, event.Seq) == (0, 2)
        handle = first.fd()
        assert handle is not None
        other = Dial(handle)
        assert other is not None
        assert first.read(5000) == "a"  # from now on both ask, and nothing comes by itself
        first.write("b")
        event = loop(5000)
        assert event is not None
        assert event.Index == 0
        assert first.read(5000) == "b"
        for each in (first, second, other, database):
            assert each is not None
            each.close()


@pytest.mark.parametrize("shared", [False, True])
def test_a_lost_link_is_announced_and_what_comes_after_it(shared: bool) -> None:
    with WsServer() as server:
        loop = EventLoop()
        database = Dial("sqlite3://:memory:")
        connection = Dial(f"{server.url}|reconnect=true&interval=50")
        assert connection is not None
        other = None
        if shared:
            handle = connection.fd()
            assert handle is not None
            other = Dial(handle)
        loop.add(database)
        loop.add(connection)
        server.drop_all()
        read: list[str | bytes | None] = []
        while "" not in read:
            event = loop(10_000)
            assert event is not None
            assert event.Index == 1
            read.append(connection.read(-1))
        while "back" not in read:
            connection.write("back")
            if loop(100) is not None:
                read.append(connection.read(-1))
        connection.close()
        if other is not None:
            other.close()
        assert loop(-1) is None  # one that was closed is not announced
        assert database is not None
        database.close()
