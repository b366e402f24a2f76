"""The present link of a stream, and what belongs to one link alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.support.recorder import Recorder
from tests.unit.stream.rig import driver_class
from trunkline.actors.stream.current import CurrentLink, Link
from trunkline.address import parse_address


def with_link(body: Callable[[Link], None], *, splits: bool = False, decodes: bool = False) -> None:
    async def run() -> None:
        driver = driver_class()(parse_address("tcp://127.0.0.1:1"), Recorder())
        body(Link(driver, splits=splits, decodes=decodes))

    asyncio.run(run())


def test_the_first_reason_of_an_end_counts() -> None:
    def body(link: Link) -> None:
        assert not link.ended.is_set()
        first = ConnectionResetError("first")
        link.note_end(first)
        link.note_end(OSError("second"))
        assert link.ended.is_set()
        assert link.reason is first

    with_link(body)


def test_an_end_in_good_order_has_no_reason() -> None:
    def body(link: Link) -> None:
        link.note_end(None)
        link.note_end(OSError("later"))
        assert link.reason is None

    with_link(body)


@pytest.mark.parametrize(
    ("decodes", "rest"), [(False, [b"\xe2\x82"]), (True, ["\ufffd"])], ids=["splits", "decodes"]
)
def test_half_of_a_character_is_handed_over_at_the_end(
    decodes: bool, rest: list[str | bytes]
) -> None:
    def body(link: Link) -> None:
        if link.splitter is not None:
            link.splitter.feed(b"\xe2\x82")
        if link.decoder is not None:
            assert link.decoder.decode(b"\xe2\x82") == ""
        assert link.flush_character() == rest
        assert link.flush_character() == []

    with_link(body, splits=not decodes, decodes=decodes)


def test_a_link_of_whole_messages_has_no_rest() -> None:
    with_link(lambda link: _no_rest(link))


def _no_rest(link: Link) -> None:
    assert link.flush_character() == []


def test_there_is_no_link_at_first() -> None:
    assert CurrentLink().link is None
