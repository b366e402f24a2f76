"""The figures of `scripts/house`, on samples of a few lines."""

from __future__ import annotations

import pytest

from benchmarks import house
from benchmarks.house import Source

SAMPLE = Source(
    "sdk/wire/sample.py",
    '''"""The worker reads it."""

import trunkline.wire.other


def take(fields):
    # The caller waits.
    a, b = fields
    return _help(fields[3]) if a else b


def _help(value):
    return value
''',
)
OTHER = Source("sdk/wire/other.py", "import trunkline.wire.sample\n")
TYPES_ONLY = Source(
    "sdk/wire/other.py", "if TYPE_CHECKING:\n    from trunkline.wire.sample import take\n"
)


def texts(places: object) -> list[str]:
    return [place.text for place in places]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("find", "expected"),
    [
        (house.long_files, []),
        (house.wide_classes, []),
        (house.positional_fields, ["a, b = fields", "fields[3]"]),
        (house.ternaries, ["_help(fields[3]) if a else b"]),
        (house.one_word_names, ["take", "_help"]),
        (house.helpers_called_once, ["_help"]),
        (house.vague_words, ["it"]),
    ],
)
def test_a_sign_names_the_places_that_count(find: object, expected: list[str]) -> None:
    assert sorted(texts(find(SAMPLE))) == sorted(expected)  # type: ignore[operator]


def test_a_long_file_and_a_wide_class_count() -> None:
    body = "\n".join(f"        self.a{n} = {n}" for n in range(21))
    source = Source("sdk/x.py", f"class X:\n    def __init__(self):\n{body}\n" + "\n" * 500)
    assert texts(house.wide_classes(source)) == ["X: 21 attributes"]
    assert len(texts(house.long_files(source))) == 1


def test_modules_that_import_each_other_are_a_circle() -> None:
    assert texts(house.import_circles([SAMPLE, OTHER])) == [
        "trunkline.wire.other <-> trunkline.wire.sample"
    ]
    assert house.import_circles([SAMPLE, TYPES_ONLY]) == []


def test_a_core_module_is_tested_where_a_unit_test_imports_the_module() -> None:
    assert [place.file for place in house.untested_modules([SAMPLE], set())] == [
        "sdk/wire/sample.py"
    ]
    assert house.untested_modules([SAMPLE], {"trunkline.wire.sample"}) == []


def test_the_shares_count_lines_of_prose_and_of_code() -> None:
    found = {figure.name: figure for figure in house.figures([SAMPLE], set())}
    assert SAMPLE.code_lines() == 6
    assert found["docstring and comment lines, %"].value == pytest.approx(100 * 2 / 13)
    assert found["one-word function names, %"].value == 100
    assert not found["positional message fields"].is_met
    assert found["import circles"].is_met


def test_the_list_begins_with_the_file_that_has_most_places() -> None:
    places = [house.Place("a.py", 1, "x"), house.Place("b.py", 2, "y"), house.Place("b.py", 3, "z")]
    lines = house.render_places([house.Figure("signs", 3, 0, places=places)]).splitlines()
    assert lines == ["", "signs: 3", "  b.py: 2", "    2: y", "    3: z", "  a.py: 1", "    1: x"]
