"""Writes the tables of docs/reference.md (options, parameters) from those that the program reads; `--check`
compares."""

from __future__ import annotations

import sys
from pathlib import Path

from trunkline.address import OPTIONS, PARAMS, SCHEMES, Option, Param

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference.md"
BROKERS = tuple(row.name for row in SCHEMES.values() if row.family == "broker")


def _where(schemes: tuple[str, ...]) -> str:
    if set(schemes) == set(SCHEMES):
        return "all"
    if set(BROKERS) <= set(schemes):
        schemes = (*(name for name in schemes if name not in BROKERS), "brokers")
    known = [*(name for name in SCHEMES if name not in BROKERS), "brokers"]
    missing = [name for name in known if name not in schemes]
    return "all but " + " ".join(missing) if len(missing) < 5 and "brokers" in schemes else " ".join(schemes)


def _default(option: Option) -> str:
    """The default, and those of some schemes: `false; brokers: true`."""
    by_value: dict[str, list[str]] = {}
    for scheme, value in option.by_scheme:
        by_value.setdefault(str(value).lower(), []).append(scheme)
    usual = "" if option.default in (None, (), {}) else str(option.default).lower()
    return "; ".join([usual, *(f"{_where(tuple(names))}: {value}" for value, names in by_value.items())])


def options() -> str:
    """The options as Markdown."""
    lines = ["| option | kind | default | meaning | schemes |", "|---|---|---|---|---|"]
    for option in OPTIONS.values():
        kind = " ".join(f"`{choice}`" for choice in option.choices) or option.kind
        lines.append(
            f"| `{option.name}` | {kind} | {_default(option)} | {option.help} | {_where(option.schemes)} |"
        )
    return "\n".join(lines)


def params() -> str:
    """The parameters of the message brokers as Markdown."""
    lines = ["| protocol | parameter | kind | meaning |", "|---|---|---|---|"]
    for protocol, rows in PARAMS.items():
        lines += [f"| {protocol} | {_names(row)} | {_kind(row)} | {row.help} |" for row in rows.values()]
    return "\n".join(lines)


def _names(param: Param) -> str:
    return ", ".join(f"`{name}`" for name in (param.name, *param.also))


def _kind(param: Param) -> str:
    choices = " ".join(f"`{choice}`" for choice in param.choices)
    if param.kind == "enum":
        return choices
    other = {"offset": " offset or time", "deliver": " sequence or time"}
    kinds = {"name": "text", "names": "list"}
    return choices + other[param.kind] if param.kind in other else kinds.get(param.kind, param.kind)


TABLES = {"options": options, "parameters": params}


def main() -> int:
    text = wanted = PAGE.read_text()
    for name, table in TABLES.items():
        head, _, rest = wanted.partition(f"<!-- {name} -->")
        _, _, tail = rest.partition(f"<!-- end of {name} -->")
        wanted = f"{head}<!-- {name} -->\n{table()}\n<!-- end of {name} -->{tail}"
    if "--check" in sys.argv:
        if wanted != text:
            print("docs/reference.md lags behind trunkline.address: run scripts/reference.py")
        return int(wanted != text)
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
