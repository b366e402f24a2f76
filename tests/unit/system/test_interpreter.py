"""Which Python is started, and what it may import."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from trunkline.errors import BrokerGone
from trunkline.system import interpreter
from trunkline.system.starting import arranged


def test_the_current_folder_and_the_programs_are_not_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "program", "libraries"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "here")
    script = ModuleType("__main__")
    script.__file__ = str(tmp_path / "program" / "strategy.py")
    monkeypatch.setitem(sys.modules, "__main__", script)
    monkeypatch.chdir(tmp_path / "here")
    entries = [
        "",
        ".",
        "../here",
        str(tmp_path / "link"),
        str(tmp_path / "program"),
        "../libraries",
        "a\nb",
    ]
    monkeypatch.setattr(sys, "path", [*entries, str(tmp_path / "libraries"), Path("/no-text")])
    assert interpreter.import_path() == [str(tmp_path / "libraries")]


@pytest.mark.parametrize(
    ("given", "kept"), [("", None), (":", None), (".:", None), (".:/opt/lib:", "/opt/lib")]
)
def test_a_python_path_names_no_current_folder(
    given: str, kept: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert interpreter.environment({"PYTHONPATH": given, "A": "1"}).get("PYTHONPATH") == kept
    assert interpreter.environment({"A": "1"})["A"] == "1"


def test_a_current_folder_that_is_gone_is_no_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.setattr(sys, "path", ["", ".", "/opt/lib"])
    gone.rmdir()
    assert interpreter.import_path() == ["/opt/lib"]


def test_a_host_that_is_no_python_takes_the_one_beside_it_or_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRUNKLINE_PYTHON", raising=False)
    monkeypatch.setattr(sys, "executable", "/usr/bin/uwsgi")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "exec_prefix", str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    with pytest.raises(BrokerGone, match=r"uwsgi.* is no Python interpreter; set TRUNKLINE_PYTHON"):
        interpreter.interpreter()
    monkeypatch.setenv("TRUNKLINE_PYTHON", "/opt/python")
    assert interpreter.command("m", "a")[0] == "/opt/python"
    monkeypatch.delenv("TRUNKLINE_PYTHON")
    beside = tmp_path / "bin" / "python{}.{}".format(*sys.version_info)
    beside.parent.mkdir()
    beside.touch(0o755)
    assert interpreter.interpreter() == str(beside)


def test_the_standard_library_comes_first() -> None:
    own = ["/py/python311.zip", "/py/lib", "/py/lib/lib-dynload", "/py/lib/site-packages"]
    given = ["/opt/lib", "/py/lib/site-packages"]
    assert arranged(["/opt/lib", *own], given, "/py/lib") == [*own[:3], "/opt/lib", own[3]]
    assert os.path.dirname(os.__file__) in sys.path
