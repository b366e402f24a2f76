"""Private names stay in the file of their class; the exceptions are listed, with reasons."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]

PUBLIC_IN_LIBRARIES = {"_replace", "_fields", "_make", "_exit"}
"""Documented names of NamedTuple and of `os` that begin with an underscore."""

_PROXY = "the parts of a program's object, which the modules of the proxy share"
_DB = "PEP 249 on a Connection: needs what a user of Connection is not offered"
EXCEPTIONS = {
    "sdk/proxy/claims.py": ("_member", _PROXY),
    "sdk/proxy/process.py": ("_dialogue _left _member", _PROXY),
    "sdk/proxy/membership.py": ("_is_owned", "threading.RLock has no public name for it"),
    "sdk/proxy/rows.py": ("_member _requests", _PROXY),
    "sdk/proxy/transaction.py": ("_member _requests _statements", _PROXY),
    "sdk/proxy/turn.py": ("_is_owned", "threading.RLock has no public name for it"),
    "sdk/db/connection.py": ("_about _give_up _member _statements", _DB),
    "sdk/db/cursor.py": ("_about _call _controlled _link _statements _streams", _DB),
    "sdk/cli/dial.py": ("_about", "the command says which kind of connection was opened"),
    "sdk/cli/messages.py": ("_about _member", "the command waits for entries without reading them"),
    "actors/drivers/nats/client.py": ("_id", "nats-py has no public name for it"),
    "actors/drivers/ws/client.py": ("_recv", "websocket-client has no public name for it"),
    "actors/drivers/ws/deflate.py": ("_Compress", "zlib has no public name for the type"),
}
"""File: the names of other files that it reaches for, and why."""


def reached_names(tree: ast.Module) -> set[str]:
    """Private attributes and imports that no class, function or variable of the same file defines."""
    nodes = list(ast.walk(tree))
    own: set[str] = set()
    for node in nodes:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            own.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        elif isinstance(node, ast.Attribute) and _is_own(node.value):
            own.add(node.attr)
    found = {
        alias.name
        for node in nodes
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("trunkline")
        for alias in node.names
    }
    found |= {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and not _is_own(node.value) and node.attr not in own
        if ast.unparse(node.value)
        != "KafkaError"  # the library's own codes begin with an underscore
    }
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


def _is_own(node: ast.expr) -> bool:
    return ast.unparse(node) in ("self", "cls", "super()")


def test_private_names_are_reached_only_where_it_is_listed() -> None:
    found: dict[str, set[str]] = {}
    for path in sorted(
        path for top in ("sdk", "actors", "broker") for path in (ROOT / top).rglob("*.py")
    ):
        if names := reached_names(ast.parse(path.read_text())) - PUBLIC_IN_LIBRARIES:
            found[path.relative_to(ROOT).as_posix()] = names
    assert found == {path: set(names.split()) for path, (names, _) in EXCEPTIONS.items()}


def test_a_private_name_of_another_file_is_found() -> None:
    source = "from trunkline.x import _a\nclass C:\n    def f(self, o):\n        return self._b, o._b, o._c\n"
    assert reached_names(ast.parse(source)) == {"_a", "_c"}
