"""The pages for users: each link leads somewhere, and no line of prose is too wide to read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
WIDTH = 120
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"`[^`]*`")
_PATH = re.compile(r"`((?:sdk|actors|broker|scripts|tests|docs|examples|benchmarks)/[\w./-]*)")


def prose(page: Path) -> list[tuple[int, str]]:
    """The lines of a page with their numbers, without code blocks."""
    found = []
    in_code = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code:
            found.append((number, line))
    return found


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    titles = [line.lstrip("#").strip() for _, line in prose(page) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page: Path) -> list[str]:
    broken = []
    for number, line in prose(page):
        for target in _LINK.findall(_CODE.sub("", line)):
            name, _, anchor = target.partition("#")
            if "://" in target:
                continue
            there = page.parent / name if name else page
            if not there.exists() or (anchor and anchor not in anchors(there)):
                broken.append(f"line {number}: {target}")
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_another_page_or_heading_leads_somewhere(page: Path) -> None:
    assert broken_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_line_of_prose_is_too_wide(page: Path) -> None:
    is_table = re.compile(r"\s*\|").match
    wide = [number for number, line in prose(page) if len(line) > WIDTH and not is_table(line)]
    assert wide == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_of_the_source_that_a_page_names_is_there(page: Path) -> None:
    named = _PATH.findall(page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_check_of_links_sees_a_page_and_a_heading_that_are_not_there(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# What it is\n[a](#what-it-is) [b](#gone) [c](gone.md)\n[d](https://x.y) `[e](gone.md)`\n"
    )
    assert broken_links(page) == ["line 2: #gone", "line 2: gone.md"]
