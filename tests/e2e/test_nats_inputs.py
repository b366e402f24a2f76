"""What operators and users may do with NATS that was read wrong or said nothing: topics that overlap,
subjects that are too long, consumers and streams that acknowledge otherwise, rights that are taken away.
"""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable

import pytest

from tests.servers.nats import Nats
from tests.support.nats_side import NatsSide
from tests.support.waiting import until
from trunkline import BrokenError, Dial, connect, last_error
from trunkline.errors import DialError, RefusedError

Start = Callable[..., Nats]


@pytest.mark.parametrize("topics", ["*,b,b", "b,*", ">,*,b", "*.x,b.*"])
def test_topics_that_overlap_bring_each_message_once(nats_server: Nats, topics: str) -> None:
    name, url = nats_server.unique("t"), f"nats://127.0.0.1:{nats_server.port}"
    query = ",".join(f"{name}.{topic}" for topic in topics.split(","))
    with connect(f"{url}?topic={query}") as conn, NatsSide(url) as side:
        for number in range(3):
            side.publish(f"{name}.b.x" if ".x" in topics else f"{name}.b", str(number))
        assert [conn.read(5000) for _ in range(3)] == ["0", "1", "2"]
        assert conn.read(-1) is None


def test_a_subject_for_which_the_server_ends_the_link_is_refused(nats_server: Nats) -> None:
    name, url = nats_server.unique("t"), f"nats://127.0.0.1:{nats_server.port}"
    with connect(f"{url}?topic={name}") as conn:
        for own in ({"topic": "x" * 4001}, {"topic": "x" * 2000, "reply_to": "y" * 2001}):
            with pytest.raises(RefusedError, match="more than 4000 bytes"):
                conn.write("d", **own)
        with pytest.raises(RefusedError, match=r"topic='a\\nb' is no subject"):
            conn.write("d", topic="a\nb")
        assert conn.write("d", topic="x" * 4000) == 1
        assert conn.write("here") == 4
        assert conn.read(5000) == "here"
    assert Dial(f"{url}?topic={'x' * 4001}") is None
    assert "more than 4000 bytes" in (last_error() or "")


@pytest.mark.parametrize("policy", ["none", "all"])
def test_a_consumer_that_loses_what_no_reader_had_is_refused(jetstream: Nats, policy: str) -> None:
    name, url = jetstream.unique("S"), f"nats://127.0.0.1:{jetstream.port}"
    with NatsSide(url) as side:
        side.stream(name, name)
        side.add_consumer(name, durable_name="d", filter_subject=name, ack_policy=policy)
        with pytest.raises(DialError, match=f"durable=d has ack_policy={policy}"):
            connect(f"{url}?topic={name}&stream={name}&durable=d")
        side.delete_stream(name)


def test_a_work_queue_says_that_it_is_read_with_durable(jetstream: Nats) -> None:
    name, url = jetstream.unique("S"), f"nats://127.0.0.1:{jetstream.port}"
    with NatsSide(url) as side:
        side.stream(name, name, retention="workqueue")
        with pytest.raises(DialError, match="it is read with durable=name"):
            connect(f"{url}?stream={name}")
        side.delete_stream(name)


def test_what_was_unread_of_a_stream_that_is_made_anew_is_counted(jetstream: Nats) -> None:
    name, url = jetstream.unique("S"), f"nats://127.0.0.1:{jetstream.port}"
    with NatsSide(url) as side:
        side.stream(name, name)
        side.store(name, *map(str, range(10)))
        with connect(f"{url}?stream={name}&deliver=all", buffer=3) as conn:
            assert conn.read(5000) == "0"
            until(lambda: conn.stats().messages_in >= 3, "the buffer is full")
            taken = conn.stats().messages_in
            side.delete_stream(name)
            side.stream(name, name)
            side.store(name, "new")
            assert [conn.read(5000) for _ in range(taken - 1)] == [str(n) for n in range(1, taken)]
            while True:
                try:
                    assert conn.read(20_000) == "new"
                    break
                except BrokenError:
                    continue
            assert conn.stats().dropped == 10 - taken
        side.delete_stream(name)


@pytest.mark.parametrize(
    ("left", "says"), [("$JS.API.>", "acknowledge messages"), ("$JS.ACK.>", "does not allow to")]
)
def test_rights_that_reading_a_stream_needs_are_missed_aloud(
    start_nats: Start, left: str, says: str
) -> None:
    def config(publish: list[str]) -> str:
        rights = json.dumps({"publish": publish})
        users = f"{{user: a, password: a}}, {{user: b, password: b, permissions: {rights}}}"
        return f"authorization {{ users: [{users}] }}"

    server = start_nats(jetstream=True, config=config([">"]))
    with NatsSide(f"nats://a:a@127.0.0.1:{server.port}") as side:
        side.stream("S", "s")
        with connect(f"nats://b:b@127.0.0.1:{server.port}?topic=s&stream=S&durable=d") as conn:
            server._config = config(["s", left])
            server.configure()
            server._signal(signal.SIGHUP)
            until(
                lambda: "Reloaded server configuration" in server.log, "the rights are taken away"
            )
            side.store("s", "1")
            with contextlib.suppress(BrokenError):
                while conn.read(20_000) is not None:  # the request that was out already brings it
                    pass
            until(lambda: says in (conn.stats().last_error or ""), "the missing right is named")


@pytest.mark.parametrize("stream", ["", "&stream={}", "&stream={}&durable=d&ack_wait=500"])
def test_a_message_over_max_size_is_discarded_and_counted(jetstream: Nats, stream: str) -> None:
    name, url = jetstream.unique("S"), f"nats://127.0.0.1:{jetstream.port}"
    with NatsSide(url) as side:
        side.stream(name, name)
        with connect(f"{url}?topic={name}{stream.format(name)}", max_size=100) as conn:
            side.publish(name, "x" * 101, "y" * 100)
            assert conn.read(10_000) == "y" * 100
            until(lambda: conn.stats().dropped == 1, "it is counted")
            if "durable" in stream:
                until(lambda: side.consumer(name, "d").num_ack_pending == 0, "it is not waited for")
            side.publish(name, "z")
            assert conn.read(10_000) == "z"
            assert conn.stats().dropped == 1
        side.delete_stream(name)
