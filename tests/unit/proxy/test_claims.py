"""Which Dials of this process nobody works on any more."""

from __future__ import annotations

import weakref
from types import SimpleNamespace
from typing import Any

import pytest

from trunkline.proxy.claims import Claim, Claims


class Object:
    """What `Claims` asks a connection for."""

    def __init__(self, name: bytes, detached: bool = False) -> None:
        self._member = SimpleNamespace(holder_id=name, detached=detached)


def claim_of(connection: Any = None) -> Claim:
    made = Claim()
    if connection is not None:
        made.connection = weakref.ref(connection)
    return made


@pytest.fixture
def claims() -> Claims:
    return Claims()


def test_a_dial_that_was_broken_off_is_found_once(claims: Claims) -> None:
    claims.add(b"a", claim_of())
    assert claims.forsaken() == [b"a"]
    assert claims.forsaken() == []


def test_a_dial_that_is_worked_on_is_none(claims: Claims) -> None:
    claim = claim_of()
    claims.add(b"a", claim)
    with claim.lock:
        assert claims.forsaken() == []
    assert claims.forsaken() == [b"a"]


def test_what_was_said_about_is_none(claims: Claims) -> None:
    claims.add(b"a", claim_of())
    claims.drop(b"a")
    claims.drop(b"a")
    assert claims.forsaken() == []


def test_the_claim_of_a_living_object_stays(claims: Claims) -> None:
    connection = Object(b"a")
    claims.add(b"a", claim_of(connection))
    assert claims.forsaken() == []
    del connection
    assert claims.forsaken() == [b"a"]


def test_an_object_with_another_name_is_known_by_that(claims: Claims) -> None:
    connection = Object(b"a2")
    claims.add(b"a", claim_of(connection))
    assert claims.forsaken() == []
    del connection
    assert claims.forsaken() == [b"a2"]


def test_an_object_that_was_closed_needs_no_word(claims: Claims) -> None:
    connection = Object(b"a", detached=True)
    claims.add(b"a", claim_of(connection))
    assert claims.forsaken() == []
    del connection
    assert claims.forsaken() == []
