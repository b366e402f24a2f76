"""Each database driver says by whose rules its SQL is cut."""

from __future__ import annotations

from typing import ClassVar

import pytest

from trunkline.actors.database.sql.statements import split
from trunkline.actors.driver import ExecDriver
from trunkline.sqltext import Dialect


class OfOthers(ExecDriver):
    schemes: ClassVar[tuple[str, ...]] = ("theirs",)


class OfOthersLikeMysql(OfOthers):
    dialect: ClassVar[str] = "mysql"


@pytest.mark.parametrize(
    ("driver", "refused"), [(OfOthers, False), (OfOthersLikeMysql, True)], ids=["standard", "mysql"]
)
def test_the_text_of_a_driver_of_others_is_cut_by_its_own_rules(
    driver: type[ExecDriver], refused: bool
) -> None:
    """`$$...$$` is a string for PostgreSQL alone, a `\\'` inside a string for MySQL."""

    first = split("SELECT $$ ; COMMIT ; $$", Dialect(driver.dialect))
    assert len(first) == 3
    second = split(r"SELECT 'a\'; COMMIT; --'", Dialect(driver.dialect))
    assert (len(second) == 1) is refused
