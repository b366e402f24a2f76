"""Figures of how readable the source is, beside the goals: `scripts/house [--list] [FOLDER...]`.

The figures are signs, read from the syntax tree: no figure proves that a file reads well. `--list`
also names every place that counts, by file, so that an author knows where to begin.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import tokenize
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"sdk": "trunkline", "broker": "trunkline.broker", "actors": "trunkline.actors"}
"""The packaged folders, with the import name of each folder."""

VAGUE = frozenset(
    re.findall(
        r"\w+",
        """
        it its itself they them their those these this that what which who whom whose whoever whatever
        so such here there then one ones other others he him his each all none some something nothing
        everything somebody anybody everybody everyone nobody
        """,
    )
)
"""Words whose meaning a reader has to find in the context."""

CORE = (
    "sdk/proxy",
    "sdk/wire",
    "actors/process",
    "actors/stream",
    "actors/database",
    "actors/net",
    "broker",
)
"""Every module in these folders should have a unit test of its own."""

HARD = (
    "sdk/proxy/reading.py",
    "sdk/proxy/pocket.py",
    "sdk/proxy/process.py",
    "actors/stream/buffer.py",
    "actors/stream/keeper.py",
    "actors/stream/readers.py",
    "actors/stream/serving.py",
    "actors/database/actor.py",
    "actors/database/handover.py",
    "actors/database/interrupts.py",
    "actors/database/link.py",
    "actors/database/runner.py",
    "actors/database/thread.py",
    "actors/process/worker.py",
    "broker/router.py",
    "broker/zygote.py",
)
"""Modules in which threads or processes meet. Their comments have to give reasons."""

LONG_FILE = 500
MANY_ATTRIBUTES = 20
FIELD_LISTS = frozenset({"fields", "header"})
"""Names of variables that hold the fields of a message."""

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """A source file with its path below the root of the repository."""

    name: str
    text: str

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of the syntax tree."""
        return list(ast.walk(ast.parse(self.text, self.name)))

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def comments(self) -> list[tokenize.TokenInfo]:
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return [token for token in tokens if token.type == tokenize.COMMENT]

    @cached_property
    def docstrings(self) -> list[ast.Constant]:
        """Strings that are statements: docstrings, and notes below a variable."""
        values = [node.value for node in self.nodes if isinstance(node, ast.Expr)]
        return [
            value
            for value in values
            if isinstance(value, ast.Constant) and isinstance(value.value, str)
        ]

    @cached_property
    def functions(self) -> list[FunctionNode]:
        return [node for node in self.nodes if isinstance(node, FunctionNode)]

    @property
    def module(self) -> str:
        """The import name: `sdk/wire/__init__.py` is `trunkline.wire`."""
        top, *rest = Path(self.name).with_suffix("").parts
        return ".".join([FOLDERS.get(top, top), *(part for part in rest if part != "__init__")])

    def comment_lines(self) -> set[int]:
        return {token.start[0] for token in self.comments}

    def docstring_lines(self) -> set[int]:
        return {
            n for node in self.docstrings for n in range(node.lineno, (node.end_lineno or 0) + 1)
        }

    def code_lines(self) -> int:
        """The number of lines that are neither blank, nor part of a docstring, nor only a
        comment."""
        prose = self.docstring_lines()
        return sum(
            bool(line.strip()) and number not in prose and not line.lstrip().startswith("#")
            for number, line in enumerate(self.lines, 1)
        )

    def words(self) -> Iterator[tuple[int, str]]:
        """The words of docstrings and comments in lower case, with the line at which the text
        begins."""
        texts = [(node.lineno, str(node.value)) for node in self.docstrings]
        texts += [
            (token.start[0], token.string)
            for token in self.comments
            if not _steers_a_tool(token.string)
        ]
        for line, text in texts:
            yield from ((line, word.lower()) for word in re.findall(r"[A-Za-z']+", text))


class Place(NamedTuple):
    """A place that counts against a goal."""

    file: str
    line: int
    text: str


@dataclass
class Figure:
    """A value, its goal, and the places behind the value."""

    name: str
    value: float
    goal: float
    at_least: bool = False
    places: list[Place] = field(default_factory=list)

    @property
    def is_met(self) -> bool:
        return self.value >= self.goal if self.at_least else self.value <= self.goal


def figures(sources: list[Source], tested: set[str]) -> list[Figure]:
    """All figures of `sources`.

    `tested`: the import names of the modules that unit tests import.
    """
    lines = sum(len(source.lines) for source in sources)
    code = sum(source.code_lines() for source in sources)
    functions = sum(len(source.functions) for source in sources)
    words = sum(1 for source in sources for _ in source.words())
    nodes = sum(len(source.nodes) for source in sources)
    prose = sum(len(source.docstring_lines() | source.comment_lines()) for source in sources)
    hard = [source for source in sources if source.name in HARD]
    hard_lines = sum(len(source.lines) for source in hard)
    hard_comments = sum(len(source.comment_lines()) for source in hard)

    def collect(find: Callable[[Source], Iterable[Place]]) -> list[Place]:
        return [place for source in sources for place in find(source)]

    def counted(name: str, goal: float, places: list[Place]) -> Figure:
        return Figure(name, len(places), goal, places=places)

    def per(name: str, goal: float, places: list[Place], whole: int, scale: int = 100) -> Figure:
        return Figure(name, share(len(places), whole, scale), goal, places=places)

    return [
        counted(f"files over {LONG_FILE} lines", 4, collect(long_files)),
        counted(f"classes over {MANY_ATTRIBUTES} attributes", 5, collect(wide_classes)),
        counted("positional message fields", 0, collect(positional_fields)),
        counted("core modules without a unit test", 3, untested_modules(sources, tested)),
        counted("import circles", 0, import_circles(sources)),
        Figure("AST nodes per line", share(nodes, code, 1), 7),
        per("ternaries per 1,000 lines", 12, collect(ternaries), lines, 1000),
        per("one-word function names, %", 45, collect(one_word_names), functions),
        per(
            "private helpers called from one place, %", 15, collect(helpers_called_once), functions
        ),
        Figure("docstring and comment lines, %", share(prose, lines), 18, at_least=True),
        Figure(
            "comment lines in hard modules, %", share(hard_comments, hard_lines), 4, at_least=True
        ),
        per("vague pronouns, %", 8, collect(vague_words), words),
    ]


def share(part: int, whole: int, scale: int = 100) -> float:
    return scale * part / max(1, whole)


def long_files(source: Source) -> Iterator[Place]:
    if len(source.lines) > LONG_FILE:
        yield Place(source.name, 1, f"{len(source.lines)} lines")


def wide_classes(source: Source) -> Iterator[Place]:
    for node in source.nodes:
        if isinstance(node, ast.ClassDef) and (count := len(_attributes(node))) > MANY_ATTRIBUTES:
            yield Place(source.name, node.lineno, f"{node.name}: {count} attributes")


def positional_fields(source: Source) -> Iterator[Place]:
    """Fields of a message that are taken by number (`fields[3]`) or by unpacking (`a, b =
    fields`)."""
    for node in source.nodes:
        match node:
            case ast.Subscript(value=value, slice=ast.Constant(value=int())) if _is_field_list(
                value
            ):
                yield Place(source.name, node.lineno, ast.unparse(node))
            case ast.Assign(targets=[ast.Tuple()], value=value) if _is_field_list(value):
                yield Place(source.name, node.lineno, ast.unparse(node))


def ternaries(source: Source) -> Iterator[Place]:
    for node in source.nodes:
        if isinstance(node, ast.IfExp):
            yield Place(source.name, node.lineno, ast.unparse(node))


def one_word_names(source: Source) -> Iterator[Place]:
    for node in source.functions:
        if not node.name.startswith("__") and "_" not in node.name.strip("_"):
            yield Place(source.name, node.lineno, node.name)


def helpers_called_once(source: Source) -> Iterator[Place]:
    """Private functions whose name appears in only one other place of their file."""
    uses = Counter(node.id for node in source.nodes if isinstance(node, ast.Name))
    uses.update(node.attr for node in source.nodes if isinstance(node, ast.Attribute))
    for node in source.functions:
        if node.name.startswith("_") and not node.name.startswith("__") and uses[node.name] == 1:
            yield Place(source.name, node.lineno, node.name)


def vague_words(source: Source) -> Iterator[Place]:
    for line, word in source.words():
        if word in VAGUE:
            yield Place(source.name, line, word)


def untested_modules(sources: list[Source], tested: set[str]) -> list[Place]:
    """Core modules that no unit test imports."""
    return [
        Place(source.name, 1, "no unit test imports this module")
        for source in sources
        if source.name.startswith(tuple(f"{folder}/" for folder in CORE))
        and source.functions
        and source.module not in tested
    ]


def import_circles(sources: list[Source]) -> list[Place]:
    """A place for each group of modules that import each other.

    Imports inside functions count; imports for type checking do not.
    """
    modules = {source.module: source for source in sources}
    known = {
        name: {m for m in imported_names(source) if m in modules}
        for name, source in modules.items()
    }
    reach = {name: _reachable(name, known) for name in known}
    circles = {
        frozenset(m for m in reach[name] if name in reach[m])
        for name in known
        if name in reach[name]
    }
    return [
        Place(modules[min(circle)].name, 1, " <-> ".join(sorted(circle)))
        for circle in sorted(circles, key=sorted)
    ]


def imported_names(source: Source) -> set[str]:
    """The modules, and names in modules, that a file imports when it runs."""
    skipped = {
        id(inner)
        for node in source.nodes
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in source.nodes:
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found - {source.module}


def read_sources(root: Path, folders: Iterable[str]) -> list[Source]:
    paths = sorted(path for folder in folders for path in (root / folder).rglob("*.py"))
    return [Source(path.relative_to(root).as_posix(), path.read_text()) for path in paths]


def render(found: list[Figure]) -> str:
    """The figures as a Markdown table."""
    rows = ["| figure | now | goal | met |", "|---|---|---|---|"]
    for figure in found:
        sign = ">=" if figure.at_least else "<="
        met = "yes" if figure.is_met else "no"
        rows.append(f"| {figure.name} | {figure.value:.1f} | {sign} {figure.goal:g} | {met} |")
    return "\n".join(rows)


def render_places(found: list[Figure]) -> str:
    """The places of every figure by file, beginning with the file with the most places."""
    blocks: list[str] = []
    for figure in found:
        by_file: dict[str, list[Place]] = defaultdict(list)
        for place in figure.places:
            by_file[place.file].append(place)
        blocks.append(f"\n{figure.name}: {len(figure.places)}")
        for name, places in sorted(by_file.items(), key=lambda item: -len(item[1])):
            blocks.append(f"  {name}: {len(places)}")
            blocks += [f"    {place.line}: {place.text}" for place in places]
    return "\n".join(blocks)


def _attributes(node: ast.ClassDef) -> set[str]:
    """The attributes that the methods of a class assign to `self`."""
    return {
        inner.attr
        for inner in ast.walk(node)
        if isinstance(inner, ast.Attribute)
        and isinstance(inner.ctx, ast.Store)
        and isinstance(inner.value, ast.Name)
        and inner.value.id == "self"
    }


def _is_field_list(node: ast.AST) -> bool:
    name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", None)
    return name in FIELD_LISTS


def _reachable(start: str, known: dict[str, set[str]]) -> set[str]:
    """The modules that `start` imports, directly or indirectly."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        fresh = known[waiting.pop()] - found
        found |= fresh
        waiting += fresh
    return found


def _steers_a_tool(comment: str) -> bool:
    return comment.startswith(("# type", "# noqa", "# fmt", "# pragma"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/house", description=__doc__)
    parser.add_argument("folders", nargs="*", default=list(FOLDERS), metavar="FOLDER")
    parser.add_argument(
        "--list", action="store_true", help="also name each place that counts, by file"
    )
    arguments = parser.parse_args()
    tested: set[str] = set()
    for test in read_sources(ROOT, ["tests/unit"]):
        tested |= imported_names(test)
    found = figures(read_sources(ROOT, arguments.folders), tested)
    print(render(found))
    if arguments.list:
        print(render_places(found))


if __name__ == "__main__":
    main()
