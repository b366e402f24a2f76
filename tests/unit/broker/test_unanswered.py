"""Answers in place of a worker that is gone."""

from __future__ import annotations

from typing import Any

from trunkline.broker.directory import Connection
from trunkline.broker.outbox import Outbox
from trunkline.broker.unanswered import answer_in_place_of_worker, answer_inflight
from trunkline.wire.envelope import Kind, header, parse


class Asking:
    """A program that asks about a connection, and what it hears."""

    def __init__(self) -> None:
        self.connection = Connection(b"12345678", 1, {}, restart=True, linger_s=0.0)
        self.connection.reason = "its worker ended"
        self._heard: list[list[bytes]] = []
        self.outbox = Outbox(self._send)

    def _send(self, frames: list[bytes]) -> bool:
        self._heard.append(frames)
        return True

    def answers(self) -> list[tuple[Kind, int, list[Any]]]:
        return [parse(frames[2]) for frames in self._heard]


def test_a_statement_that_ran_has_an_unknown_outcome_and_one_that_did_not_has_not_run() -> None:
    asking = Asking()
    head = header(Kind.EXEC, 3)
    asking.connection.inflight[b"a"] = head
    answer_in_place_of_worker(asking.outbox, asking.connection, b"a", head)
    answer_in_place_of_worker(asking.outbox, asking.connection, b"b", head)
    names = [(kind, request_id, error["name"]) for kind, request_id, [error] in asking.answers()]
    assert names == [(Kind.ERROR, 3, "OutcomeUnknown"), (Kind.ERROR, 3, "WorkerDied")]


def test_all_requests_in_flight_are_answered_once() -> None:
    asking = Asking()
    asking.connection.inflight = {b"a": header(Kind.STATS, 1), b"b": header(Kind.WRITE, 2)}
    answer_inflight(asking.outbox, asking.connection)
    answer_inflight(asking.outbox, asking.connection)
    assert [request_id for _, request_id, _ in asking.answers()] == [1, 2]


def test_a_request_to_an_unknown_connection_is_told_why_it_ended() -> None:
    asking = Asking()
    answer_in_place_of_worker(asking.outbox, None, b"a", header(Kind.STATS, 1), ": it was killed")
    [(_, _, [error])] = asking.answers()
    assert error["text"] == "the connection has ended: it was killed; dial its address again"


def test_a_read_is_told_whether_another_worker_comes() -> None:
    asking = Asking()
    head = header(Kind.READ, 0)
    answer_in_place_of_worker(asking.outbox, asking.connection, b"a", head)
    asking.connection.life.order_worker()
    asking.connection.life.lose_worker(0.0, "ended", is_dialled=False)
    answer_in_place_of_worker(asking.outbox, asking.connection, b"a", head)
    answer_in_place_of_worker(asking.outbox, None, b"a", head)
    told = [(fields[0], fields[2]) for _, _, fields in asking.answers()]
    assert told == [(False, 1), (True, 2), (True, 0)]


def test_words_that_want_no_answer_get_none() -> None:
    asking = Asking()
    answer_in_place_of_worker(asking.outbox, asking.connection, b"a", header(Kind.ACK, 0))
    answer_in_place_of_worker(asking.outbox, asking.connection, b"a", b"no header")
    assert asking.answers() == []
