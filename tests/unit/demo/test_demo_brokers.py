"""What the brokers' demo decides without a server: what happens to whom, and whether its figures add up."""

from __future__ import annotations

from typing import Any

import pytest

from trunkline import parse_address
from trunkline.demo.broker_feeds import BROKERS, Feed, events, feeds_of
from trunkline.demo.broker_report import Report, make_report

KEPT = Feed("kept", "mqtt", "kept", "", "", True)
PASSING = Feed("passing", "mqtt", "passing", "", "", False)


def plan(brokers: list[str], foreign: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    return [(event.what, event.broker) for event in events(brokers, foreign)]


def test_each_broker_has_a_misfortune_of_its_own() -> None:
    assert plan(list(BROKERS)) == [
        ("restart", "mqtt"),
        ("freeze", "amqp"),
        ("kill", "nats"),
        ("kill", "kafka"),
    ]


def test_one_broker_has_them_all() -> None:
    assert plan(["amqp"]) == [("restart", "amqp"), ("freeze", "amqp"), ("kill", "amqp")]


def test_what_is_not_ours_is_neither_restarted_nor_frozen() -> None:
    assert plan(["kafka"], ("kafka",)) == [("kill", "kafka")]
    assert plan(["mqtt", "kafka"], ("kafka",)) == [
        ("restart", "mqtt"),
        ("freeze", "mqtt"),
        ("kill", "kafka"),
    ]


@pytest.mark.parametrize("broker", BROKERS)
def test_the_addresses_are_valid_and_name_their_topic(broker: str) -> None:
    for feed in feeds_of(broker, "127.0.0.1:1", "s3cret"):
        assert feed.topic in parse_address(feed.read).display  # by this its worker is found
        assert "s3cret" not in parse_address(feed.write).display


def report(feed: Feed = PASSING, **changes: Any) -> Report:
    """10 numbers, of which 4 was not confirmed; 5 to 6 came while the link was down, which is 2 lost."""
    published = {"last": 10, "failed": [4], "again": 0}
    result: dict[str, Any] = {
        "runs": [[1, 3, False], [7, 10, True]], "read": 7, "messages_in": 7, "dropped": 0, "returned": 0,
        "incarnation": 1, "outages": 1, "down": False, "delay": "1 ms",
    }  # fmt: skip
    kills, restarted = changes.pop("kills", 0), changes.pop("restarted", ["mqtt"])
    return make_report(
        [feed], {feed.name: published}, {feed.name: {**result, **changes}}, kills, restarted
    )


def wrong(made: Report) -> list[str]:
    return [check.text for check in made.checks if not check.holds]


def test_what_an_outage_took_is_lost_where_nothing_is_promised() -> None:
    made = report()
    assert made.ok
    (figures,) = made.figures
    assert (figures.written, figures.received, figures.lost, figures.unexplained) == (9, 7, 2, 0)


def test_it_may_not_be_lost_where_it_is_acknowledged() -> None:
    assert wrong(report(KEPT)) == ["kept: at least once: lost"]


def test_duplicates_are_the_price_of_at_least_once_alone() -> None:
    runs = {
        "runs": [[1, 3, False], [3, 3, True], [5, 10, False]],
        "read": 10,
        "messages_in": 12,
        "returned": 2,
    }
    made = report(KEPT, **runs)
    assert made.ok
    assert made.figures[0].duplicates == 1
    assert "passing: at most once: duplicates" in wrong(report(PASSING, **runs))


def test_a_message_whose_write_was_not_confirmed_may_have_arrived() -> None:
    made = report(runs=[[1, 4, False], [7, 10, True]], read=8, messages_in=8)
    assert made.ok
    assert made.figures[0].unconfirmed == 1


def test_what_is_missing_at_the_end_needs_an_outage_too() -> None:
    short = {"runs": [[1, 3, False], [7, 9, True]], "read": 6, "messages_in": 6}
    assert wrong(report(**short)) == [
        "passing: at most once: lost without an outage and not counted as dropped"
    ]
    assert report(**short, down=True).ok


def test_what_was_dropped_explains_as_many_as_were_counted() -> None:
    gap = {"runs": [[1, 3, False], [7, 10, False]]}
    assert wrong(report(**gap)) == [
        "passing: at most once: lost without an outage and not counted as dropped"
    ]
    assert not report(**gap, dropped=1, messages_in=8).ok
    assert report(**gap, dropped=2, messages_in=9).ok


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"read": 8}, "received + duplicates = read, as the connections count"),
        ({"messages_in": 8}, "the same = all that came, less dropped and given back"),
        (
            {"runs": [[1, 3, False], [7, 11, True]], "read": 8, "messages_in": 8},
            "numbers that nobody wrote",
        ),
    ],
)
def test_a_difference_names_its_feed(changes: dict[str, Any], text: str) -> None:
    assert f"passing: {text}" in wrong(report(**changes))


def test_a_killed_worker_is_replaced_and_a_restart_is_noticed() -> None:
    assert wrong(report(kills=1)) == ["workers replaced = workers killed"]
    assert report(kills=1, incarnation=2).ok
    assert wrong(report(outages=0)) == ["feeds of a restarted broker that noticed it"]
