"""The driver of a connection and its link: dialled, lost, and kept open for a thread that borrows it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.waiting import Background
from tests.unit.database.scripted import ADDRESS, Script, driver_class
from trunkline.actors.database import link as module
from trunkline.actors.database.admission import OVER
from trunkline.actors.database.jobs import Job, LinkLost, do_nothing
from trunkline.actors.database.link import Link
from trunkline.address import parse_address
from trunkline.deadline import Deadline
from trunkline.errors import BrokenError, StatementError


def make(script: Script, **options: Any) -> Link:
    def ignore(text: str) -> None:
        pass

    return Link(parse_address(ADDRESS, options), driver_class(script), ignore, ignore)


def job() -> Job:
    return Job(b"sender", 1, do_nothing, Deadline(None), Deadline(10))


def ready(link: Link, in_block: bool = False, is_transaction_open: bool = False) -> Any:
    return link.ready_driver(job(), in_block=in_block, is_transaction_open=is_transaction_open)


def test_a_link_that_is_there_is_used_again() -> None:
    script = Script()
    link = make(script)
    link.connect(Deadline(1))
    assert ready(link) is ready(link) is link.driver
    assert script.count("open") == 1
    assert not link.drop_if_lost()


def test_a_link_that_the_server_has_ended_is_replaced() -> None:
    script = Script()
    link = make(script)
    link.connect(Deadline(1))
    first, script.is_alive = link.driver, False
    assert ready(link) is not first
    assert (link.outages, link.reconnects, script.count("close")) == (1, 1, 1)


def test_a_transaction_is_not_carried_to_another_link() -> None:
    script = Script()
    link = make(script)
    link.connect(Deadline(1))
    script.is_alive = False
    with pytest.raises(LinkLost):
        ready(link, in_block=True, is_transaction_open=True)
    link.drop()
    with pytest.raises(StatementError) as caught:
        ready(link, in_block=True)
    assert caught.value.code == OVER
    assert script.count("open") == 1


def test_a_link_that_is_gone_for_good_is_not_dialled() -> None:
    script = Script()
    link = make(script, reconnect=False)
    link.connect(Deadline(1))
    assert not link.has_ended
    script.is_alive = False
    assert link.drop_if_lost()
    assert link.has_ended
    with pytest.raises(BrokenError):
        ready(link)
    assert script.count("open") == 1


def test_a_lost_link_is_closed_once_and_whatever_that_raises() -> None:
    def fail(driver: Any) -> None:
        driver.note("close")
        raise OSError("bad descriptor")

    script = Script()
    link = Link(parse_address(ADDRESS), driver_class(script, close=fail), print, print)
    link.connect(Deadline(1))
    link.drop()
    link.drop()
    assert link.outages == script.count("close") == 1


def test_other_threads_reach_a_driver_only_while_there_is_a_link() -> None:
    script = Script()
    link = make(script)
    for call in (link.interrupt, link.abort, link.borrow_driver, link.give_back):
        call()
    assert script.calls == []
    link.connect(Deadline(1))
    link.interrupt()
    link.abort()
    assert (script.count("interrupt"), script.count("abort")) == (1, 1)


def test_a_borrowed_driver_is_not_closed_until_it_is_given_back() -> None:
    script = Script()
    link = make(script)
    link.connect(Deadline(1))
    assert link.borrow_driver() is link.driver
    dropping = Background(link.drop)
    while link.driver is not None:
        assert dropping.running()
    assert script.count("close") == 0
    link.give_back()
    dropping.result()
    assert script.count("close") == 1


def test_a_driver_that_is_not_given_back_is_closed_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BORROWED_S", 0.01)
    script = Script()
    link = make(script)
    link.connect(Deadline(1))
    link.borrow_driver()
    link.drop()
    assert script.count("close") == 1
