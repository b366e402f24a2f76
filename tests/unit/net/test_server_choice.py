"""Which of several servers is taken, and what is said when none is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from trunkline.actors.driver import FatalError
from trunkline.actors.net.servers import (
    first_that_opens,
    first_that_opens_here,
    join_failures,
    time_to_tell,
)
from trunkline.deadline import Deadline
from trunkline.errors import DialError, DialTimeout

Opener = Callable[[Sequence[Any], Callable[[Any, Deadline], Any], Deadline], Any]


def _on_a_loop(
    servers: Sequence[Any], attempt: Callable[[Any, Deadline], Any], deadline: Deadline
) -> Any:
    def begin(server: Any, share: Deadline) -> Awaitable[Any]:
        async def run() -> Any:
            return attempt(server, share)

        return run()

    return asyncio.run(first_that_opens(servers, begin, deadline))


both = pytest.mark.parametrize(
    "opener", [_on_a_loop, first_that_opens_here], ids=["loop", "thread"]
)


def _outcome(server: Any, share: Deadline) -> Any:
    """Servers that are errors fail with them."""
    if isinstance(server, BaseException):
        raise server
    return server


@both
def test_the_first_that_opens_is_taken(opener: Opener) -> None:
    tried: list[Any] = []

    def attempt(server: Any, share: Deadline) -> Any:
        tried.append(server)
        return _outcome(server, share)

    refused, gone = FatalError("wrong login"), ConnectionRefusedError("not there")
    assert opener([refused, gone, "good", "another"], attempt, Deadline(10)) == "good"
    assert tried == [refused, gone, "good"]


@both
def test_when_all_fail_each_reason_is_told(opener: Opener) -> None:
    with pytest.raises(DialError, match=r"^wrong login; not there$") as caught:
        opener([FatalError("wrong login"), OSError("not there")], _outcome, Deadline(10))
    assert not isinstance(caught.value, FatalError)


@both
def test_an_error_of_the_code_is_no_reason_to_go_on(opener: Opener) -> None:
    with pytest.raises(ZeroDivisionError):
        opener([ZeroDivisionError(), "good"], _outcome, Deadline(10))


@both
def test_each_server_has_its_share_of_the_time(opener: Opener) -> None:
    shares: list[float] = []

    def attempt(server: Any, share: Deadline) -> Any:
        shares.append(share.left())
        raise DialTimeout("silent")

    with pytest.raises(DialError):
        opener([1, 2, 3], attempt, Deadline(30))
    assert [round(share) for share in shares] == [10, 15, 30]


@both
def test_without_a_deadline_no_server_has_one(opener: Opener) -> None:
    def attempt(server: Any, share: Deadline) -> Any:
        return share.timeout()

    assert opener([1, 2], attempt, Deadline(None)) is None


def test_one_failure_is_told_as_it_is() -> None:
    only = OSError("not there")
    assert join_failures([only]) is only


def test_only_failures_that_are_all_fatal_are_fatal_together() -> None:
    assert isinstance(join_failures([FatalError("a"), FatalError("b")]), FatalError)
    assert not isinstance(join_failures([FatalError("a"), DialError("b")]), FatalError)


def test_the_same_reason_is_told_once_and_the_shortest_wait_counts() -> None:
    failures = [
        DialError("busy", code=503, retry_after_s=20),
        DialError("busy", code=503, retry_after_s=5),
        DialError("busy", code=503),
    ]
    joined = join_failures(failures)
    assert isinstance(joined, DialError)
    assert (str(joined), joined.code, joined.retry_after_s) == ("busy", 503, 5)
    other = join_failures([DialError("a", code=1), DialError("b", code=2)])
    assert isinstance(other, DialError)
    assert other.code is None


def test_an_error_without_words_is_named_by_its_kind() -> None:
    assert str(join_failures([ConnectionResetError(), DialError("b")])) == "ConnectionResetError; b"


def test_an_attempt_leaves_time_to_be_told() -> None:
    assert time_to_tell(Deadline(100)) == 1.0
    assert 0.4 < time_to_tell(Deadline(2)) <= 0.5
