"""Writes what is generated from tables of the program: docs/reference.md and sdk/address/option_types.py from
those of options and parameters, the kinds of docs/protocol.md from that of messages; `--check` compares."""

from __future__ import annotations

import sys
from pathlib import Path

from trunkline.address import OPTIONS, PARAMS, SCHEMES, Option, Param, Scheme
from trunkline.wire.messages import table_of_kinds

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference.md"
PROTOCOL = ROOT / "docs" / "protocol.md"
KINDS = "## Kinds"
AFTER_KINDS = "An entry of a PUSH is"
MODULE = ROOT / "sdk" / "address" / "option_types.py"
BROKERS = tuple(row.name for row in SCHEMES.values() if row.family == "broker")


def _where(schemes: tuple[str, ...]) -> str:
    if set(schemes) == set(SCHEMES):
        return "all"
    if set(BROKERS) <= set(schemes):
        schemes = (*(name for name in schemes if name not in BROKERS), "brokers")
    known = [*(name for name in SCHEMES if name not in BROKERS), "brokers"]
    missing = [name for name in known if name not in schemes]
    return (
        "all but " + " ".join(missing)
        if len(missing) < 5 and "brokers" in schemes
        else " ".join(schemes)
    )


def _default(option: Option) -> str:
    """The default, and those of some schemes: `false; brokers: true`."""
    by_value: dict[str, list[str]] = {}
    for scheme, value in option.by_scheme:
        by_value.setdefault(str(value).lower(), []).append(scheme)
    usual = "" if option.default in (None, (), {}) else str(option.default).lower()
    return "; ".join(
        [usual, *(f"{_where(tuple(names))}: {value}" for value, names in by_value.items())]
    )


def options() -> str:
    """The options as Markdown."""
    lines = ["| option | kind | default | meaning | schemes |", "|---|---|---|---|---|"]
    for option in OPTIONS.values():
        kind = " ".join(f"`{choice}`" for choice in option.choices) or option.kind
        lines.append(
            f"| `{option.name}` | {kind} | {_default(option)} | {option.help} | {_where(option.schemes)} |"
        )
    return "\n".join(lines)


def schemes() -> str:
    """The schemes as Markdown, those of one file and driver in one row."""
    lines = ["| scheme | example | extra |", "|---|---|---|"]
    groups: dict[tuple[str, str], list[Scheme]] = {}
    for row in SCHEMES.values():
        groups.setdefault((row.protocol or row.name, row.extra), []).append(row)
    for (_, extra), rows in groups.items():
        names = " ".join(f"`{name}`" for row in rows for name in (row.name, *row.aliases))
        texts = [example for row in rows for example in (row.example, *row.more_examples)]
        examples = ", ".join(f"`{text}`".replace("|", "\\|") for text in texts)
        lines.append(f"| {names} | {examples} | {extra and f'`{extra}`'} |")
    return "\n".join(lines)


def params() -> str:
    """The parameters of the message brokers as Markdown."""
    lines = ["| protocol | parameter | kind | meaning |", "|---|---|---|---|"]
    for protocol, rows in PARAMS.items():
        lines += [
            f"| {protocol} | {_names(row)} | {_kind(row)} | {row.help} |" for row in rows.values()
        ]
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


TABLES = {"schemes": schemes, "options": options, "parameters": params}


MODULE_HEAD = '''\
"""The options of `Dial` and `connect` as types, so that type checkers see a misspelt name or a wrong value.

Written by scripts/reference.py from the tables of options and parameters: change those, and run it. What
librdkafka calls its own and has no row here is given in a mapping: `Dial(address, {"ssl.ca.location": p})`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Literal, TypedDict

__all__ = ["Options"]

_Message = str | bytes | dict[str, Any] | list[Any]
_Property = str | int | float | bool


class Options(TypedDict, total=False):
    """What may be given to `Dial` and `connect` by name; docs/reference.md says which scheme takes which."""

'''
TYPES = {
    "bool": ["bool"],
    "ms": ["int"],
    "count": ["int"],
    "rate": ["str", "int"],
    "seconds": ["float"],
    "text": ["str"],
    "list": ["str", "Sequence[str]"],
    "message": ["_Message"],
    "messages": ["_Message", "Sequence[_Message]"],
    "headers": ["str", "Mapping[str, Any]"],
    "proxy": ["str"],
    "ip": ["str", "IPv4Address", "IPv6Address"],
    "host": ["str"],
}
PARAM_TYPES = {
    "name": ["str"],
    "names": ["str", "list[str]", "tuple[str, ...]"],
    "text": ["str", "bytes", "int"],
    "bool": ["bool"],
    "count": ["int"],
    "file": ["str"],
    "offset": ["str", "int", "datetime"],
    "deliver": ["str", "int", "datetime"],
    "property": ["_Property"],
}
PROPERTIES = (
    "acks",
    "auto_offset_reset",
    "client_id",
    "compression_type",
    "enable_idempotence",
    "fetch_min_bytes",
    "fetch_wait_max_ms",
    "linger_ms",
    "message_max_bytes",
    "partition_assignment_strategy",
    "partitioner",
    "retries",
    "sasl_mechanism",
    "sasl_mechanisms",
    "sasl_password",
    "sasl_username",
    "security_protocol",
    "session_timeout_ms",
)
"""Those of librdkafka that people give by name; there are some hundred more."""


def module() -> str:
    """sdk/address/option_types.py."""
    types: dict[str, list[str]] = {}
    for option in OPTIONS.values():
        types[option.name] = _choices(option.choices) if option.choices else TYPES[option.kind]
    for row in (row for rows in PARAMS.values() for row in rows.values()):
        own = _choices(row.choices) if row.kind == "enum" and row.name != "type" else None
        for name in (name for name in (row.name, *row.also) if name.isidentifier()):
            more = own or PARAM_TYPES.get(row.kind, ["str"])
            types[name] = list(dict.fromkeys((*types.get(name, ()), *more)))
    for name in PROPERTIES:
        types[name] = list(dict.fromkeys((*types.get(name, ()), "_Property")))
    return MODULE_HEAD + "".join(
        f"    {name}: {' | '.join([*kinds, 'None'])}\n" for name, kinds in types.items()
    )


def _choices(choices: tuple[str, ...]) -> list[str]:
    numbers = [choice for choice in choices if choice.isdigit()]
    return [
        f"Literal[{', '.join([*(chr(34) + choice + chr(34) for choice in choices), *numbers])}]"
    ]


def page() -> str:
    """docs/reference.md with its tables."""
    wanted = PAGE.read_text()
    for name, table in TABLES.items():
        head, _, rest = wanted.partition(f"<!-- {name} -->")
        _, _, tail = rest.partition(f"<!-- end of {name} -->")
        wanted = f"{head}<!-- {name} -->\n{table()}\n<!-- end of {name} -->{tail}"
    return wanted


def protocol() -> str:
    """docs/protocol.md with the table of kinds as it has to be."""
    before, _, rest = PROTOCOL.read_text().partition(f"{KINDS}\n")
    return f"{before}{KINDS}\n\n{table_of_kinds()}\n\n{AFTER_KINDS}{rest.partition(AFTER_KINDS)[2]}"


def main() -> int:
    stale = 0
    for path, wanted in ((PAGE, page()), (MODULE, module()), (PROTOCOL, protocol())):
        if "--check" not in sys.argv:
            path.write_text(wanted)
        elif not path.exists() or path.read_text() != wanted:
            print(
                f"{path.relative_to(ROOT)} lags behind the tables of the program: run scripts/reference.py"
            )
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main())
