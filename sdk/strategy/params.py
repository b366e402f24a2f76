"""Strategy parameters from outside the script: `--set NAME=VALUE` and `--params FILE`."""

from __future__ import annotations

import json
import keyword
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["read_params"]


def read_params(file: str | None, pairs: Iterable[str], taken: Iterable[str]) -> dict[str, Any]:
    """Read the parameters, which become globals of the script. `pairs` win over the file.

    `file`: TOML or JSON, by its ending; a table of names at its top.
    `pairs`: texts `NAME=VALUE`.
    `taken`: the names of the strategy's globals, which a parameter must not hide.
    Raises ValueError with the change to make, OSError when the file cannot be read.
    """
    found: dict[str, Any] = {}
    if file is not None:
        found.update(_from_file(Path(file)))
    for pair in pairs:
        name, mark, value = pair.partition("=")
        if not mark:
            raise ValueError(f"--set {pair}: write NAME=VALUE")
        found[name.strip()] = _read_value(value)
    hidden = {*taken, "init", "main", "onexit"}
    for name in found:
        if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("__"):
            raise ValueError(f"the parameter {name[:40]!r} is no name that Python code can use")
        if name in hidden:
            raise ValueError(
                f"the parameter {name} would hide the strategy's own {name}: give it another name"
            )
    return found


def _from_file(path: Path) -> Mapping[str, Any]:
    """The names and values of a file; ValueError says why the file is refused."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"--params {path} is not text in UTF-8") from None
    try:
        found = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        kind = "JSON" if path.suffix.lower() == ".json" else "TOML (or name it .json)"
        raise ValueError(f"--params {path} is not well-formed {kind}: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f'--params {path} holds no names: write {{"fast": 12}}')
    return found


def _read_value(text: str) -> Any:
    """The value of a text from the command line.

    JSON is read as JSON (numbers, true, false, null, "text", lists, objects), Python's True, False
    and None by their meaning, and any other text as text.
    """
    plain = {"True": True, "False": False, "None": None}
    if text in plain:
        return plain[text]
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except ValueError:
        return text


def _refuse_constant(name: str) -> Any:
    # NaN and Infinity are text here, not numbers.
    raise ValueError(name)
