"""The pure parts of the Redis driver: the plan, patterns, entries, gaps, and the server's words."""

from __future__ import annotations

import re
from typing import Any

import pytest
import redis.exceptions as library
from hypothesis import given
from hypothesis import strategies as st

from trunkline.actors.driver import FatalError
from trunkline.actors.drivers.redis.entries import Entry, delivery_of, entries_of, fields_of, id_key
from trunkline.actors.drivers.redis.gaps import Gaps, StreamState
from trunkline.actors.drivers.redis.patterns import brings, pattern_regex
from trunkline.actors.drivers.redis.plan import CLAIM_IDLE_S, plan_of
from trunkline.actors.drivers.redis.words import (
    code_of,
    is_missing_group,
    refused_link,
    refused_message,
)
from trunkline.address import parse_address
from trunkline.errors import AddressError, DialError

# addresses


def test_an_address_with_everything() -> None:
    address = parse_address(
        "redis://u:p@h1,u2:p2@h2:7000/3?stream=a,b&group=g&consumer=c&claim_idle=5000&start=all&maxlen=10"
        "&field=body&name=desk|buffer=7&pingInterval=3000"
    )
    plan = plan_of(address)
    assert plan.servers == (("h1", 6379), ("h2", 7000))
    assert [(login.user, login.password) for login in plan.logins] == [("u", "p"), ("u2", "p2")]
    assert (plan.database, plan.name, plan.maxlen, plan.data_field) == (3, "desk", 10, b"body")
    assert (plan.write_stream, plan.write_channel, plan.writes_streams) == ("a", None, True)
    assert plan.streams is not None
    assert (plan.streams.names, plan.streams.start, plan.streams.window) == (("a", "b"), "0-0", 7)
    assert plan.streams.group is not None
    assert (plan.streams.group.name, plan.streams.group.consumer) == ("g", "c")
    assert plan.streams.group.claim_idle_s == 5.0
    assert plan.streams.block_s == 2.0  # a third of the time for an answer
    assert "p2" not in f"{address} {address!r} {address.display} {plan!r}"


def test_what_is_left_out() -> None:
    plan = plan_of(parse_address("redis://:secret@h?channel=a,b&pattern=c.*"))
    assert (plan.channels, plan.patterns, plan.streams) == (("a", "b"), ("c.*",), None)
    assert (plan.write_channel, plan.write_stream, plan.database) == ("a", None, 0)
    assert plan.logins[0].password == "secret"
    assert not plan_of(parse_address("redis://h?write_channel=c")).reads
    assert plan_of(parse_address("redis://h?pattern=c.*")).write_channel is None
    streams = plan_of(parse_address("redis://h?stream=s")).streams
    assert streams is not None
    assert (streams.start, streams.group) == ("$", None)
    streams = plan_of(parse_address("redis://h?stream=s&group=g")).streams
    assert streams is not None
    assert streams.group is not None
    assert (streams.start, streams.group.claim_idle_s) == ("0-0", CLAIM_IDLE_S)


@pytest.mark.parametrize(
    ("start", "behind"),
    [
        ("new", "$"),
        ("$", "$"),
        ("all", "0-0"),
        ("0", "0-0"),
        ("1526919030474-55", "1526919030474-55"),
        ("2026-01-31T12:00:00Z", "1769860799999-18446744073709551615"),
    ],
)
def test_where_reading_starts(start: str, behind: str) -> None:
    assert parse_address(f"redis://h?stream=s&start={start}").extra["start"] == behind


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("redis://h", "needs 'channel', 'pattern', 'stream', 'write_channel' or 'write_stream'"),
        ("redis://h/db?channel=c", "it is the number of a database"),
        ("redis://h?channel=c&stream=s", "reads channels or streams"),
        ("redis://h?write_channel=c&write_stream=s", "name one of them"),
        ("redis://h?channel=c&group=g", "parameter 'group' belongs to a stream"),
        ("redis://h?stream=s&consumer=c", "parameter 'consumer' belongs to a consumer group"),
        ("redis://h?stream=s&group=g&claim_idle=1", "use a whole number from 200"),
        ("redis://h?channel=c&maxlen=5", "parameter 'maxlen' belongs to a stream"),
        ("redis://h?stream=s&start=yesterday", "parameter 'start' does not take 'yesterday'"),
        ("redis://u@h?channel=c", "a user without a password"),
        ("redis://h?topic=c", "use channel=, pattern= or stream="),
        ("redis://h?channel=c|origin=x", "makes no sense for redis"),
        ("redis://h?channel=c|certfile=x", "makes no sense for redis"),
        ("valkey://h?channel=c", "did you mean 'redis'"),
        ("redis+tls://h?channel=c", "did you mean 'rediss'"),
    ],
)
def test_addresses_that_are_refused(address: str, words: str) -> None:
    with pytest.raises(AddressError, match=re.escape(words)):
        parse_address(address)


def test_tls_by_both_names() -> None:
    first, second = parse_address("rediss://h?channel=c"), parse_address("tls+redis://h?channel=c")
    assert first == second
    assert first.tls


def test_headers_need_a_stream() -> None:
    with pytest.raises(FatalError, match="belong to streams"):
        plan_of(parse_address("redis://h?channel=c", {"headers": {"a": "b"}}))
    with pytest.raises(FatalError, match="is the message itself"):
        plan_of(parse_address("redis://h?stream=c", {"headers": {"data": "b"}}))


# patterns


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("news.*", "news. news.a news.a.b", "new news"),
        ("h?llo", "hello h\nllo", "hllo heello"),
        ("h[ae]llo", "hello hallo", "hillo h[ae]llo"),
        ("h[^e]llo", "hallo", "hello"),
        ("h[a-c]llo", "hbllo", "hdllo"),
        ("h[c-a]llo", "hbllo", "hdllo"),
        (r"a\*b", "a*b", "axb"),
        ("a.b", "a.b", "axb"),
        ("[", "", "["),
        ("a[bc", "ab ac", "a ad"),
    ],
)
def test_patterns(pattern: str, yes: str, no: str) -> None:
    regex = pattern_regex(pattern.encode())
    assert all(regex.fullmatch(text.encode()) for text in yes.split(" ") if text)
    assert not any(regex.fullmatch(text.encode()) for text in no.split(" "))


@given(st.binary(max_size=20))
def test_every_pattern_can_be_read(pattern: bytes) -> None:
    pattern_regex(pattern)


def test_a_message_comes_by_the_first_subscription_alone() -> None:
    names = [b"a.*", b"*.b", b"a.b"]
    patterns = [pattern_regex(name) for name in names]
    exact = frozenset((b"a.c",))
    came = [name for name in names if brings(name, b"a.b", exact, patterns, names)]
    assert came == [b"a.*"]
    assert not [name for name in names if brings(name, b"a.c", exact, patterns, names)]
    assert brings(b"*.b", b"x.b", exact, patterns, names)


# entries


def test_entries_are_messages() -> None:
    found = entries_of(
        "s", [[b"1-2", [b"data", b"x", b"a", b"1", b"a", b"\xff"]], None, [b"1-3", None]]
    )
    assert [(each.id, each.fields is None) for each in found] == [("1-2", False), ("1-3", True)]
    delivery = delivery_of(found[0], b"data", group="g", again=True)
    assert (delivery.data, delivery.headers, delivery.redelivered) == (
        b"x",
        {"a": ["1", b"\xff"]},
        True,
    )
    assert delivery.token == delivery.identity == ("s", "1-2")
    assert delivery_of(found[0], b"data", group=None, again=False).identity is None


def test_entries_of_others() -> None:
    only = delivery_of(Entry("s", "1-0", [b"price", b"2"]), b"data", group=None, again=False)
    assert (only.data, only.headers) == (b"2", {"price": "2"})
    several = delivery_of(
        Entry("s", "1-0", [b"a", b"1", b"b", b"\xff"]), b"data", group=None, again=False
    )
    assert several.data == '{"a": "1", "b": "\ufffd"}'.encode()
    assert several.headers == {"a": "1", "b": b"\xff"}


def test_fields_to_write() -> None:
    assert fields_of(b"x", {"a": "é", "b": b"\xff"}, b"data") == [
        b"a",
        "é".encode(),
        b"b",
        b"\xff",
        b"data",
        b"x",
    ]


def test_ids_compare_as_redis_compares_them() -> None:
    assert id_key("9-0") < id_key(b"10-0") < id_key("10-1") < id_key("10-10")


# gaps


class Model:
    """A stream as a server keeps it."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.added = 0

    def add(self, count: int) -> None:
        for _ in range(count):
            self.added += 1
            self.ids.append(self.added)

    def state(self) -> StreamState:
        first, last = (
            (self.entry(self.ids[0]), self.entry(self.ids[-1])) if self.ids else (None, None)
        )
        said: dict[bytes, Any] = {
            b"length": len(self.ids),
            b"last-generated-id": f"{self.added}-0".encode(),
        }
        said |= {b"first-entry": first, b"last-entry": last, b"entries-added": self.added}
        return StreamState([word for pair in said.items() for word in pair])

    @staticmethod
    def entry(number: int) -> list[Any]:
        return [f"{number}-0".encode(), [b"a", b"b"]]


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "trim", "delete", "read", "look"]), st.integers(1, 5))
    )
)
def test_what_was_lost_is_counted_exactly_once(steps: list[tuple[str, int]]) -> None:
    model, gaps = Model(), Gaps()
    read = reads = counted = 0
    assert gaps.look(model.state(), (0, 0)) == 0
    for step, count in [*steps, ("read", 1000), ("look", 0)]:
        if step == "add":
            model.add(count)
        elif step == "trim":
            del model.ids[:count]
        elif step == "delete":
            del model.ids[len(model.ids) // 2 : len(model.ids) // 2 + 1]
        elif step == "read":
            new = [number for number in model.ids if number > read][:count]
            if new:
                read, reads = new[-1], reads + len(new)
                gaps.delivered(len(new))
        else:
            counted += gaps.look(model.state(), (read, 0))
        assert counted + reads <= model.added
    assert counted + reads == model.added


def test_an_old_server_counts_nothing() -> None:
    gaps = Gaps()
    state = StreamState([b"length", 0, b"last-generated-id", b"5-0", b"first-entry", None])
    assert gaps.look(state, (1, 0)) == 0


def test_a_stream_that_does_not_exist_has_lost_nothing_yet() -> None:
    gaps, model = Gaps(), Model()
    assert gaps.look(StreamState(None), (0, 0)) == 0
    model.add(5)
    del model.ids[:2]
    assert gaps.look(model.state(), (0, 0)) == 2


# words


@pytest.mark.parametrize(
    ("error", "code", "words", "final"),
    [
        (library.AuthenticationError("Authentication required."), "NOAUTH", "wants a login", True),
        (
            library.AuthenticationError("WRONGPASS invalid pair"),
            "NOAUTH",
            "refused the login",
            True,
        ),
        (
            library.BusyLoadingError("Redis is loading the dataset in memory"),
            "LOADING",
            "is loading",
            False,
        ),
        (library.ReadOnlyError("You can't write"), "READONLY", "is a replica", True),
        (
            library.MovedError("3999 127.0.0.1:6381"),
            "MOVED",
            "127.0.0.1:6381: dial that node",
            True,
        ),
        (
            library.ClusterDownError("Hash slot not served"),
            "CLUSTERDOWN",
            "the cluster of h:1 is down",
            False,
        ),
        (
            library.ResponseError("WRONGTYPE Operation"),
            "WRONGTYPE",
            "other than a stream",
            True,
        ),
        (
            library.ResponseError("DENIED Redis is running in protected mode"),
            "DENIED",
            "no connection",
            True,
        ),
        (
            library.ResponseError("unknown command 'XADD'"),
            "ERR",
            "refused to read s: unknown command",
            True,
        ),
    ],
)
def test_answers_in_words(error: Exception, code: str, words: str, final: bool) -> None:
    address = parse_address("redis://u:hunter2@h?channel=c")
    assert code_of(error) == code
    told = refused_link(error, "h:1", address, "read s")
    assert words in str(told)
    assert isinstance(told, FatalError) is final
    assert isinstance(told, DialError)


def test_an_answer_that_repeats_a_secret_is_hidden() -> None:
    address = parse_address("redis://u:hunter2@h?channel=c")
    told = refused_message(library.ResponseError("strange hunter2"), "h:1", address, "write")
    assert "hunter2" not in str(told)
    assert is_missing_group(library.ResponseError("NOGROUP No such key 's' or consumer group 'g'"))
