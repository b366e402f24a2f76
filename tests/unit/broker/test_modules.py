"""The modules of the broker stay small, and know each other in one direction only."""

from __future__ import annotations

from pathlib import Path

from benchmarks.house import import_circles, long_files, read_sources, wide_classes

SOURCES = read_sources(Path(__file__).parents[3], ["broker"])


def test_no_two_modules_import_each_other() -> None:
    assert SOURCES
    assert not import_circles(SOURCES)


def test_no_file_is_long_and_no_class_has_many_attributes() -> None:
    assert not [
        place for source in SOURCES for place in (*long_files(source), *wide_classes(source))
    ]
