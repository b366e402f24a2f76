"""Lanes: entries and runs move together, whatever is taken from which end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trunkline.actors.driver import Delivery
from trunkline.actors.stream.lane import Entry, Lane, Run

SIZES = st.lists(st.integers(1, 5), max_size=6)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "popleft", "pop", "remove", "mark", "back"]), st.integers(0, 9)
    )
)


def lane_of(sizes: list[int]) -> Lane:
    """Each message holds the time of its run."""
    lane = Lane()
    for at, size in enumerate(sizes, 1):
        lane.extend([str(at)] * size, Run(size, at))
    return lane


def pairs(entries: list[Entry], runs: list[Run]) -> list[tuple[Entry, int]]:
    times = [run.at for run in runs for _ in range(run.count)]
    return list(zip(entries, times, strict=True))


def check(got: list[tuple[Entry, int]]) -> None:
    assert all(isinstance(entry, int) or int(entry) == at for entry, at in got)


@given(SIZES, STEPS)
def test_each_entry_keeps_its_run(sizes: list[int], steps: list[tuple[str, int]]) -> None:
    lane = lane_of(sizes)
    model: list[Entry] = list(lane)
    for step, number in steps:
        if step == "take":
            entries, runs = lane.take(number)
            check(pairs(entries, runs))
            assert entries == model[:number]
            del model[:number]
            if number % 2:
                lane.put_back(entries, runs)
                model[:0] = entries
        elif step == "mark":
            lane.append(number) if number % 2 else lane.appendleft(number)
            model.insert(len(model) if number % 2 else 0, number)
        elif step == "back":
            entries, runs = lane.drain()
            check(pairs(entries, runs))
            lane.join(entries, runs)
        elif model and step == "popleft":
            assert lane.popleft() == model.pop(0)
        elif model and step == "pop":
            entry, run = lane.pop()
            check(pairs([entry], [run]))
            assert entry == model.pop()
        elif model and step == "remove":
            lane.remove(number % len(model))
            del model[number % len(model)]
        assert list(lane) == model
        assert len(lane) == len(model)
    check(pairs(*lane.drain()))


def test_a_run_of_one_message_is_the_same_object_wherever_it_goes() -> None:
    lane, run = Lane(), Run()
    lane.extend(["a"], Run(1, 1))
    lane.extend(["b"], run)
    _, runs = lane.take(2)
    other = Lane()
    other.put_back(["a", "b"], runs)
    assert other.pop()[1] is run


def test_a_batch_is_told_apart_message_by_message() -> None:
    batch = [Delivery(str(n), token=n) for n in range(6)]
    lane, run = Lane(), Run(6, 1)
    run.batch, run.tokens, run.link = batch, [each.token for each in batch], "old"
    lane.extend([each.data for each in batch], run)
    lane.popleft()
    assert lane.pop()[1].owing() == [5]
    _, (first,) = lane.take(2)
    assert (first.owing(), [each.data for each in first.deliveries()]) == ([1, 2], ["1", "2"])
    singles = lane.singles()
    assert [single.owing() for single in singles] == [[3], [4]]
    singles[0].take_over("new", "x")
    assert (singles[0].owing(), singles[0].link, singles[0].deliveries()[0].data) == (
        ["x"],
        "new",
        "3",
    )
    assert (singles[1].owing(), singles[1].link) == ([4], "old")
    assert list(lane) == ["3", "4"]
    assert list(lane.runs) == singles
