"""Requests to begin and to end a transaction."""

from __future__ import annotations

import pytest

from tests.unit.database.scripted import HOLDER, OTHER, Script, hosting, run
from trunkline.actors.database import transactions
from trunkline.actors.database.admission import OVER
from trunkline.errors import BrokenError

FIRST, SECOND = b"first token", b"second token"


def test_transactions_wait_for_each_other() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            await host.answer(host.transaction(FIRST, "begin"))
            second = host.transaction(SECOND, "begin", holder=OTHER)
            assert len(host.actor.line.waiting) == 1
            await host.answer(host.transaction(FIRST, "rollback"))
            await host.answer(second)
            assert (host.actor.line.owner, host.actor.line.owner_holder) == (SECOND, OTHER)

    run(body())


def test_a_commit_of_a_transaction_that_is_over_is_refused_and_its_rollback_is_not() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            error = await host.error(host.transaction(FIRST, "commit"))
            assert getattr(error, "code", None) == OVER
            assert await host.answer(host.transaction(FIRST, "rollback")) is None
            assert host.script.count("rollback") == 0

    run(body())


def test_a_transaction_is_over_when_its_link_is_lost() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            await host.answer(host.transaction(FIRST, "begin"))
            lost, waits = host.exec("LOSE", token=FIRST), host.exec("b", token=FIRST)
            for number in (lost, waits, host.transaction(FIRST, "commit")):
                assert getattr(await host.error(number), "code", None) == OVER
            assert host.actor.line.owner is None

    run(body())


def test_the_loss_of_the_link_with_a_begin_is_told() -> None:
    def lose(driver: object) -> None:
        raise ConnectionError("gone")

    async def body() -> None:
        async with hosting(Script(), begin=lose) as host:
            assert isinstance(await host.error(host.transaction(FIRST, "begin")), BrokenError)

    run(body())


def test_only_so_many_transactions_that_were_given_up_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transactions, "MOST_GIVEN_UP", 1)

    async def body() -> None:
        async with hosting(Script()) as host:
            for token in (FIRST, SECOND):
                await host.answer(host.transaction(token, "rollback"))
            await host.answer(host.transaction(FIRST, "begin", holder=HOLDER))
            await host.answer(host.transaction(FIRST, "rollback"))
            assert "given up" in str(await host.error(host.transaction(SECOND, "begin")))

    run(body())


def test_a_request_of_another_name_is_malformed() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            with pytest.raises(KeyError):
                host.transaction(FIRST, "savepoint")

    run(body())
