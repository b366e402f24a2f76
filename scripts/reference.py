"""Writes the option table of docs/reference.md from the one that the program reads; `--check` compares."""

from __future__ import annotations

import sys
from pathlib import Path

from trunkline.address import OPTIONS, SCHEMES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference.md"
BEGIN, END = "<!-- options -->", "<!-- end of options -->"


def _where(schemes: tuple[str, ...]) -> str:
    if set(schemes) == set(SCHEMES):
        return "all"
    missing = [name for name in SCHEMES if name not in schemes]
    return "all but " + " ".join(missing) if len(missing) < 5 else " ".join(schemes)


def table() -> str:
    """The table as Markdown."""
    lines = ["| option | kind | default | meaning | schemes |", "|---|---|---|---|---|"]
    for option in OPTIONS.values():
        kind = " ".join(f"`{choice}`" for choice in option.choices) or option.kind
        special = "".join(f"; {scheme}: {value}" for scheme, value in option.by_scheme)
        default = "" if option.default in (None, (), {}) else str(option.default).lower()
        lines.append(
            f"| `{option.name}` | {kind} | {default}{special} | {option.help} | {_where(option.schemes)} |"
        )
    return "\n".join(lines)


def main() -> int:
    text = PAGE.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    wanted = f"{head}{BEGIN}\n{table()}\n{END}{tail}"
    if "--check" in sys.argv:
        if wanted != text:
            print("docs/reference.md lags behind trunkline.address.OPTIONS: run scripts/reference.py")
        return int(wanted != text)
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
