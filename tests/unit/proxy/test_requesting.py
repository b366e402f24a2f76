"""Requests of an object: when they are sent, sent again, and refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from trunkline.deadline import Deadline
from trunkline.errors import ClosedError, DeadHandle, OperationTimeout
from trunkline.proxy.requesting import Requests
from trunkline.proxy.turn import Turn
from trunkline.wire.envelope import Kind
from trunkline.wire.messages import Gone


class Route:
    def __init__(self) -> None:
        self.is_joined = True
        self.answers: list[list[bytes] | None] = []
        self.news: list[Any] = []
        self.asked: list[tuple[Any, ...]] = []

    def try_request(self, kind: Kind, fields: tuple[Any, ...], *_: Any, **__: Any) -> Any:
        self.asked.append((kind, *fields))
        return self.answers.pop(0)

    def request(self, kind: Kind, fields: tuple[Any, ...], *_: Any) -> Any:
        self.asked.append((kind, *fields))
        return self.answers.pop(0)

    def peek(self, timeout_s: float) -> Any:
        return self.news[0] if self.news else None

    def done(self) -> None:
        del self.news[0]


def member(**changes: Any) -> Any:
    about = SimpleNamespace(executes=True, peer="sqlite3://x.db", scheme="sqlite3")
    return SimpleNamespace(
        **{
            "route": Route(),
            "about": about,
            "closed": False,
            "gone": None,
            "resync": False,
            "redial": None,
            "holder_id": b"holder",
            "turn": Turn(),
            "in_order": lambda: True,
            "client": SimpleNamespace(program_ends=False),
            **changes,
        }
    )


def ask(requests: Requests) -> list[bytes]:
    return requests.request_until_taken(Kind.EXEC, ("fields",), b"body", Deadline(20))


def test_a_request_has_the_name_of_its_holder_and_one_answer() -> None:
    given = member()
    given.route.answers = [[b"answer"]]
    assert ask(Requests(given)) == [b"answer"]
    assert given.route.asked == [(Kind.EXEC, b"holder", "fields")]


def test_a_request_that_no_worker_has_taken_is_sent_again() -> None:
    given = member()
    given.route.answers = [None, None, [b"answer"]]
    assert ask(Requests(given)) == [b"answer"]
    assert len(given.route.asked) == 3


@pytest.mark.parametrize("peer", ["sqlite3://x.db", "sqlite3://:memory:"])
def test_the_end_of_the_connection_ends_the_tries(peer: str) -> None:
    given = member()
    given.about.peer = peer
    given.route.answers = [None]
    fields = list(Gone(False, "its worker ended", 0))
    given.route.news = [SimpleNamespace(kind=Kind.GONE, fields=fields)]
    with pytest.raises(DeadHandle, match="has ended \\(its worker ended") as caught:
        ask(Requests(given))
    assert ("its database was in memory" in str(caught.value)) == (":memory:" in peer)


def test_a_worker_that_is_replaced_is_no_end() -> None:
    given = member()
    given.route.answers = [None, [b"answer"]]
    fields = list(Gone(True, "its worker was killed", 2))
    given.route.news = [SimpleNamespace(kind=Kind.GONE, fields=fields)]
    assert ask(Requests(given)) == [b"answer"]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"closed": True}, ClosedError, "was closed; dial again, or Dial its handle"),
        (
            {"closed": True, "client": SimpleNamespace(program_ends=True)},
            ClosedError,
            "was closed by the program's end",
        ),
        ({"gone": "its worker ended"}, DeadHandle, r"has ended \(its worker ended\); dial again"),
        ({"gone": "the connection has ended: told so"}, DeadHandle, "^the connection has ended"),
    ],
)
def test_a_connection_that_is_over_is_asked_nothing(
    changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    given = member(**changes)
    for request in (ask, lambda r: r.request(Kind.STATS, deadline=Deadline(1))):
        with pytest.raises(error, match=words):
            request(Requests(given))
    assert given.route.asked == []


def test_an_object_of_a_forked_child_joins_first() -> None:
    given = member(resync=True)
    given.route.answers = [[b"answer"]]

    def join(limit: Deadline) -> None:
        given.resync = False

    given.ask_to_join = join
    assert Requests(given).request(Kind.STATS, deadline=Deadline(20)) == [b"answer"]


def test_a_join_that_takes_too_long_is_told() -> None:
    given = member(resync=True, ask_to_join=lambda limit: None)
    with pytest.raises(OperationTimeout, match="could not be joined in the time allowed"):
        Requests(given).request(Kind.STATS, deadline=Deadline(0.3))
