"""The command line as a whole: help, mistakes, exit codes, pipes that break."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import Command, run
from trunkline import __version__
from trunkline.address.options import OPTIONS
from trunkline.cli import COMMANDS, main


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: trunkline {command}")
    assert "examples:\n  " in text


def test_the_top_level_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {command} " in text for command in COMMANDS)


def test_the_help_of_dial_lists_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    main(["dial", "--help"])
    text = capsys.readouterr().out
    assert [name for name in OPTIONS if f"\n  {name} " not in text] == []


def test_without_arguments_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "commands:" in capsys.readouterr().out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"trunkline {__version__}\n"


def test_an_unknown_command_is_told_the_nearest_one() -> None:
    ended = run("dail", "tcp://127.0.0.1:1")
    assert (ended.code, ended.out) == (2, "")
    assert "no command 'dail'; did you mean 'dial'?" in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["ps", "--nonsense"],
        ["ps", "surplus"],
        ["--nonsense"],
        ["run"],
        ["kill"],
        ["kill", "3", "--all"],
        ["dial"],
        ["dial", "tcp://127.0.0.1:1", "--count", "0"],
        ["dial", "tcp://127.0.0.1:1", "--timeout", "soon"],
        ["dial", "tcp://127.0.0.1:1", "--timeout", "nan"],
        ["top", "-n", "-1"],
        ["demo", "--seconds", "-3"],
    ],
)
def test_a_command_that_is_called_in_a_wrong_way_exits_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRUNKLINE_ADDRESS", raising=False)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err
    assert "Traceback" not in captured.err


def test_commands_are_imported_only_when_they_are_called() -> None:
    code = (
        "import sys; from trunkline.cli import main; main(['--version']);"
        "print([m for m in ('zmq', 'rich', 'trunkline.cli.dial') if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_leaves_ends_the_command_quietly() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "trunkline", "dial", "--help"],
            stdout=write_end,
            stderr=subprocess.PIPE,
        )
    finally:
        os.close(write_end)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize(
    "arguments", [["ps"], ["--version"], ["run", "s.py"], ["dial", "-e", "SELECT 1"]]
)
def test_commands_work_with_closed_standard_files(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text("def main():\n    Log('x')\n    LogStatus('y')\n")
    environ = {**os.environ, "TRUNKLINE_ADDRESS": "sqlite3://:memory:"}
    command = [sys.executable, "-m", "trunkline", *arguments]
    for closing in ('exec "$@" >&-', 'exec "$@" <&- >&- 2>&-'):
        done = subprocess.run(
            ["sh", "-c", closing, "sh", *command],
            cwd=tmp_path,
            env=environ,
            stderr=subprocess.PIPE,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, b"")


def test_run_gives_the_script_its_arguments_and_returns_its_exit_code(tmp_path: Path) -> None:
    script = tmp_path / "strategy.py"
    script.write_text("import sys\ndef main():\n    Log('given', sys.argv[1:])\n    sys.exit(7)\n")
    log = tmp_path / "log.jsonl"
    ended = run(
        "run", "--plain", "--log", str(log), "--data", str(tmp_path), str(script), "a", "--json"
    )
    assert ended.code == 7
    assert "given ['a', '--json']" in ended.out
    assert "given" in log.read_text()


def test_an_option_of_run_behind_the_file_is_not_silently_the_scripts(tmp_path: Path) -> None:
    script = tmp_path / "s.py"
    script.write_text("import sys\ndef main(): Log(sys.argv[1:])\n")
    given = ["run", "--data", str(tmp_path), str(script)]
    ended = run(*given, "--set", "fast=12")
    assert ended.code == 2
    assert f"--set stands behind {script}: write it before the file" in ended.err
    assert run(*given, "--name=x").code == 2
    ended = run(*given, "--", "--name=x", "-v")
    assert ended.code == 0
    assert "['--name=x', '-v']" in ended.out


def test_run_says_what_is_wrong_with_a_script_that_is_not_there(tmp_path: Path) -> None:
    ended = run("run", str(tmp_path / "none.py"))
    assert ended.code == 2
    assert "none.py" in ended.err


def test_run_is_interrupted_like_a_strategy(tmp_path: Path) -> None:
    script = tmp_path / "strategy.py"
    script.write_text(
        "def main():\n    Log('running')\n    while True:\n        Sleep(1000)\n"
        "def onexit():\n    Log('left')\n"
    )
    with Command("run", "--data", str(tmp_path), str(script)) as command:
        command.wait_out("running")
        command.interrupt()
        ended = command.end()
    assert ended.code == 130
    assert "left" in ended.out
