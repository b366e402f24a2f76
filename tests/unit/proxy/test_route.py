"""Which way a route takes, over ways that only note what they are told."""

from __future__ import annotations

from typing import Any

import pytest

from trunkline.deadline import Deadline
from trunkline.errors import DeadHandle, WorkerDied
from trunkline.proxy import route as routes
from trunkline.proxy.route import Route
from trunkline.proxy.routes.requests import NoDoor
from trunkline.wire.envelope import Kind

KEY = b"key"
LONG, OVER = 60.0, 0.0


class Way:
    """A socket at the router, or a stream."""

    def __init__(self) -> None:
        self.generation = 1
        self.torn = False
        self.unsent = False
        self.closed = False
        self.sent: list[Kind] = []
        self.came: list[Any] = []
        self.ended = False

    def send(self, *args: Any) -> None:
        self.sent.append(next(arg for arg in args if isinstance(arg, Kind)))

    def peek(self, _: float) -> Any:
        if not self.came and self.ended:
            raise EOFError
        return self.came[0] if self.came else None

    def done(self) -> None:
        del self.came[0]

    def quiet(self) -> bool:
        return not self.came

    def close(self) -> None:
        self.closed = True


class Requests:
    def __init__(self, _: object) -> None:
        self.error: Exception | None = None

    def request(self, *_: Any) -> list[bytes]:
        if self.error is not None:
            raise self.error
        return [b"straight"]

    def close(self) -> None:
        pass


class Broker:
    address = "ipc:///nowhere/broker"
    generation = 1
    error: Exception | None = None

    def request(self, *_: Any, **__: Any) -> list[bytes]:
        if self.error is not None:
            raise self.error
        return [b"router"]


class Rig:
    """A route with its ways. `door` says whether the worker can be reached without the router."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.broker, self.router, self.stream, self.door = Broker(), Way(), Way(), True
        patch.setattr(routes, "RequestRoute", Requests)
        patch.setattr(routes, "StreamRoute", self.connect)
        patch.setattr(routes.endpoint, "door", lambda *_: "door")
        router: Any = self.router
        self.route = Route(self.broker, router, KEY)

    def connect(self, *_: object) -> Way:
        if not self.door:
            raise OSError
        return self.stream

    def refuse(self, error: Exception, cause: Exception | None = None) -> None:
        error.__cause__ = cause
        requests: Any = self.route._requests
        requests.error = error

    def ask(self, patience_s: float = LONG, *, can_redial: bool = False) -> list[bytes] | None:
        return self.route.try_request(
            Kind.EXEC,
            (),
            b"",
            Deadline(LONG),
            lambda: False,
            None,
            patience=Deadline(patience_s),
            can_redial=can_redial,
        )


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


def test_with_a_door_messages_go_straight_to_the_worker(rig: Rig) -> None:
    assert not rig.route.is_chosen
    assert rig.route.open_stream()
    assert not rig.route.open_stream()
    rig.route.send(Kind.START)
    assert (rig.stream.sent, rig.router.sent) == ([Kind.START], [])


def test_without_a_door_they_go_through_the_router_until_it_is_tried_again(rig: Rig) -> None:
    rig.door = False
    assert not rig.route.open_stream()
    assert rig.route.is_chosen
    rig.route.send(Kind.START)
    assert rig.router.sent == [Kind.START]
    rig.route.try_door_again()
    assert not rig.route.is_chosen


def test_nothing_is_sent_or_received_through_a_lost_broker(rig: Rig) -> None:
    rig.router.came = ["old"]
    rig.route.mark_stale()
    rig.route.send(Kind.START)
    assert rig.route.is_stale()
    assert rig.route.is_joined
    assert rig.router.sent == []
    assert rig.route.peek(0) is None


def test_a_message_stays_the_next_one_until_it_is_done(rig: Rig) -> None:
    rig.route.open_stream()
    rig.stream.came = ["first", "second"]
    assert [rig.route.peek(0), rig.route.peek(0)] == ["first", "first"]
    rig.route.done()
    assert rig.route.peek(0) == "second"


def test_after_the_streams_end_the_broker_is_heard(rig: Rig) -> None:
    rig.route.open_stream()
    rig.stream.ended = True
    rig.router.came = ["gone"]
    assert rig.route.peek(0) == "gone"
    assert rig.stream.closed
    assert not rig.route.has_stream


def test_done_leaves_alone_the_stream_that_came_after_the_message(rig: Rig) -> None:
    rig.route.open_stream()
    rig.stream.came = ["last"]
    assert rig.route.peek(0) == "last"
    rig.route.close_stream()
    rig.stream = Way()
    rig.stream.came = ["of the next worker"]
    rig.route.open_stream()
    rig.route.done()
    assert rig.route.peek(0) == "of the next worker"


def test_what_came_by_the_router_does_not_count_as_of_the_stream(rig: Rig) -> None:
    assert rig.route.peek_stream() is None
    rig.route.open_stream()
    rig.router.came, rig.stream.came = ["gone"], ["data"]
    assert rig.route.peek_stream() == "data"
    rig.route.done()
    rig.stream.ended = True
    assert rig.route.peek_stream() is None
    assert rig.router.came == ["gone"]


def test_only_a_sound_stream_is_quiet(rig: Rig) -> None:
    assert not rig.route.is_quiet()
    rig.route.open_stream()
    assert rig.route.is_quiet()
    rig.stream.torn = True
    assert not rig.route.is_quiet()
    assert rig.route.is_torn()


def test_leaving_gives_the_socket_at_the_router_back_unclosed(rig: Rig) -> None:
    rig.route.open_stream()
    router: Any = rig.router
    assert rig.route.give_up() is router
    assert (rig.stream.closed, rig.router.closed, rig.route.is_joined) == (True, False, False)


def test_requests_go_straight_or_through_the_router(rig: Rig) -> None:
    def ask() -> list[bytes]:
        return rig.route.request(Kind.STATS, (), None, Deadline(LONG), lambda: False)

    assert ask() == [b"straight"]
    rig.refuse(NoDoor())
    assert ask() == [b"router"]
    rig.refuse(WorkerDied("gone"))
    with pytest.raises(WorkerDied):
        ask()


def test_a_dead_worker_is_not_asked_through_the_router_while_there_is_patience(rig: Rig) -> None:
    for error, cause in ((NoDoor(), ConnectionRefusedError()), (WorkerDied("gone"), None)):
        rig.refuse(error, cause)
        assert rig.ask() is None
        assert rig.ask(OVER) == [b"router"]


def test_without_a_door_the_router_is_asked_at_once(rig: Rig) -> None:
    rig.refuse(NoDoor(), FileNotFoundError())
    assert rig.ask() == [b"router"]
    rig.broker.error = WorkerDied("gone")
    assert rig.ask() is None
    with pytest.raises(WorkerDied):
        rig.ask(OVER)


def test_an_unknown_connection_is_asked_again_only_where_it_may_come_again(rig: Rig) -> None:
    rig.refuse(NoDoor(), FileNotFoundError())
    rig.broker.error = DeadHandle("unknown")
    assert rig.ask(can_redial=True) is None
    with pytest.raises(DeadHandle):
        rig.ask()
    with pytest.raises(DeadHandle):
        rig.ask(OVER, can_redial=True)
