"""The work of jobs that begin and end transactions."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.database.scripted import ADDRESS, Script, ScriptedDriver, driver_class
from trunkline.actors.database.jobs import (
    LONGEST_ERROR,
    begin_transaction,
    commit_transaction,
    do_nothing,
    is_in_transaction,
    roll_back_transaction,
    shorten_error,
)
from trunkline.address import parse_address
from trunkline.errors import StatementError
from trunkline.wire import values


def driver_of(script: Script, **attributes: Any) -> ScriptedDriver:
    return driver_class(script, **attributes)(parse_address(ADDRESS))


def refuse(driver: Any) -> None:
    raise StatementError("deferred constraint")


def lose(driver: Any) -> bool:
    raise ConnectionError("gone")


def test_a_transaction_begins_and_ends() -> None:
    script = Script()
    driver = driver_of(script)
    for work in (begin_transaction, commit_transaction, do_nothing):
        assert values.unpack(work(driver)) is None
    begin_transaction(driver, "READ ONLY")
    assert is_in_transaction(driver)
    roll_back_transaction(driver)
    assert [call for call, _ in script.calls if call != "in_transaction"] == [
        "make", "begin", "commit", "begin READ ONLY", "rollback"
    ]  # fmt: skip


def test_a_transaction_that_cannot_be_committed_is_rolled_back() -> None:
    script = Script()
    driver = driver_of(script, commit=refuse)
    begin_transaction(driver)
    with pytest.raises(StatementError, match="deferred constraint"):
        commit_transaction(driver)
    assert script.count("rollback") == 1


def test_nothing_is_rolled_back_where_no_transaction_is_open() -> None:
    script = Script()
    roll_back_transaction(driver_of(script))
    assert script.count("rollback") == 0


def test_a_driver_that_cannot_tell_has_lost_its_transaction() -> None:
    assert not is_in_transaction(None)
    assert not is_in_transaction(driver_of(Script(), in_transaction=lose))


def test_a_long_error_is_cut_in_its_middle() -> None:
    short = StatementError("short", code=7)
    assert shorten_error(short) is short
    for error in (StatementError("a" * 9000 + "z", code=7), ValueError("a" * 9000 + "z")):
        cut = shorten_error(error)
        assert type(cut) is type(error)
        assert len(str(cut)) <= LONGEST_ERROR
        assert str(cut).startswith("aaa")
        assert str(cut).endswith("z")
        assert getattr(cut, "code", None) == getattr(error, "code", None)
