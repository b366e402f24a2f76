"""Only the tables of `broker/lifecycle.py` assign the phase and the state of a connection."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

BROKER = Path(__file__).parents[3] / "broker"
GUARDED = {"phase", "state"}


def assignments(source: str) -> Iterator[str]:
    """Each place of a source that assigns a phase or a state: as an attribute, as an entry of figures, by
    `setattr` or `replace`, or in the fields of a new `Life`; and each call of `Life._go`."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(attr=name, ctx=ast.Store() | ast.Del()) if name in GUARDED:
                yield ast.unparse(node)
            case ast.Subscript(slice=ast.Constant(value=name), ctx=ast.Store() | ast.Del()) if (
                name in GUARDED
            ):
                yield ast.unparse(node)
            case ast.AnnAssign(target=ast.Name(id=name)) if name in GUARDED:
                yield ast.unparse(node)
            case ast.Call(func=ast.Name(id="setattr"), args=[_, ast.Constant(value=name), *_]) if (
                name in GUARDED
            ):
                yield ast.unparse(node)
            case ast.Call(func=ast.Attribute(attr="_go")):
                yield ast.unparse(node)
            case ast.Call(func=ast.Name(id="Life" | "replace"), keywords=keywords):
                yield from (ast.unparse(node) for each in keywords if each.arg in GUARDED)


def test_no_module_but_the_lifecycle_assigns_a_phase_or_a_state() -> None:
    sources = sorted(path for path in BROKER.rglob("*.py") if path.name != "lifecycle.py")
    assert sources
    found = [f"{path.name}: {each}" for path in sources for each in assignments(path.read_text())]
    assert not found


def test_the_lifecycle_assigns_both_in_one_place() -> None:
    tree = ast.parse((BROKER / "lifecycle.py").read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    stores = {
        node.name: [
            each.attr
            for each in ast.walk(node)
            if isinstance(each, ast.Attribute)
            and isinstance(each.ctx, ast.Store)
            and each.attr in GUARDED
        ]
        for node in functions
    }
    assert {name: found for name, found in stores.items() if found} == {"_go": ["phase", "state"]}


def test_the_check_itself_sees_every_way_to_assign() -> None:
    source = """
c.state = 1
c.life.phase, x = 1, 2
c.stats["state"] = "open"
setattr(c, "phase", 1)
life._go(1)
Life(True, phase=1)
replace(life, state=1)
del c.state
class C:
    state: int = 1
x = c.state
"""
    assert len(list(assignments(source))) == 9
