"""Which objects of a process live: they are added by any thread and taken out by the garbage collector."""

from __future__ import annotations

import gc

from trunkline.proxy.members import Members


class Thing:
    """Something that can be referred to weakly."""


def test_those_that_live_are_listed_and_not_kept() -> None:
    members: Members[Thing] = Members()
    one, other = Thing(), Thing()
    members.add(one)
    members.add(other)
    assert sorted(map(id, members)) == sorted(map(id, (one, other)))
    del other
    gc.collect()
    assert [*members] == [one]
    assert len(members) == 1


def test_one_that_is_taken_out_may_be_taken_out_again() -> None:
    members: Members[Thing] = Members()
    one = Thing()
    members.add(one)
    members.discard(one)
    members.discard(one)
    assert len(members) == 0


def test_one_that_goes_while_they_are_looked_through_harms_nobody() -> None:
    members: Members[Thing] = Members()
    things = [Thing() for _ in range(5)]
    for thing in things:
        members.add(thing)
    del thing
    seen = 0
    for _ in members:
        things.clear()
        seen += 1
    assert seen == 5
    del _
    gc.collect()
    assert len(members) == 0


def test_an_object_that_has_got_the_number_of_a_former_one_stays() -> None:
    members: Members[Thing] = Members()
    for _ in range(100):  # the memory of each is used again for the next
        thing = Thing()
        members.add(thing)
    assert [*members] == [thing]
