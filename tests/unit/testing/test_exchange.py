"""The exchange does what it is told, says what it was told, and leaves nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.support.certs import Certs
from tests.support.waiting import Background
from trunkline.testing import Exchange


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    with Exchange() as exchange:
        yield exchange


def dial(exchange: Exchange, path: str = "/", **options: object) -> ClientConnection:
    return connect(exchange.url + path, proxy=None, open_timeout=10, **options)  # type: ignore[arg-type]


def leaves(client: ClientConnection) -> int:
    """The code by which the exchange has ended the link."""
    with pytest.raises(ConnectionClosed):
        client.recv(10)
    assert client.close_code is not None
    return client.close_code


class TestSaying:
    def test_each_client_gets_everything_in_order(self, exchange: Exchange) -> None:
        with dial(exchange) as first, dial(exchange) as second:
            exchange.wait_clients(2)
            exchange.say("a", b"\xff", "c")
            for client in (first, second):
                assert [client.recv(10) for _ in range(3)] == ["a", b"\xff", "c"]

    def test_saying_waits_for_a_client(self, exchange: Exchange) -> None:
        saying = Background(lambda: exchange.say("early"))
        with dial(exchange) as client:
            assert client.recv(10) == "early"
        saying.result()

    def test_saying_to_nobody_ends(self, exchange: Exchange) -> None:
        with pytest.raises(AssertionError, match="no client to say something to"):
            exchange.say("a", timeout=0.05)

    def test_one_client_alone(self, exchange: Exchange) -> None:
        with dial(exchange) as first, dial(exchange) as second:
            one, two = exchange.wait_clients(2)
            two.say("only you")
            one.say("you")
            assert (first.recv(10), second.recv(10)) == ("you", "only you")

    def test_a_client_that_has_left_is_no_error(self, exchange: Exchange) -> None:
        with dial(exchange):
            (client,) = exchange.wait_clients(1)
        exchange.wait_clients(0)
        client.say("too late")

    def test_a_client_that_takes_nothing_is_told_of(self, exchange: Exchange) -> None:
        with dial(exchange, max_queue=1):
            exchange.wait_clients(1)
            with pytest.raises(AssertionError, match="did not answer in"):
                exchange.say(*["x" * 1_000_000] * 50, timeout=0.2)

    def test_what_is_no_message_is_misuse(self, exchange: Exchange) -> None:
        with pytest.raises(TypeError, match="not dict: use json"):
            Exchange(greeting=[{"a": 1}])  # type: ignore[list-item]
        with dial(exchange):
            exchange.wait_clients(1)
            with pytest.raises(TypeError, match="not dict"):
                exchange.say({"a": 1})  # type: ignore[arg-type]


class TestScripts:
    def test_the_greeting_comes_before_all_else(self, exchange: Exchange) -> None:
        exchange.greeting = ["hello", "welcome"]
        saying = Background(lambda: exchange.say("tick"))
        with dial(exchange) as client:
            assert [client.recv(10) for _ in range(3)] == ["hello", "welcome", "tick"]
        saying.result()

    def test_an_answer_may_be_none_one_or_many(self) -> None:
        answers = {"one": "1", "many": ["1", b"2"], "none": None}
        with (
            Exchange(answer=lambda message: answers[str(message)]) as exchange,
            dial(exchange) as client,
        ):
            for message in ("none", "one", "many"):
                client.send(message)
            assert [client.recv(10) for _ in range(3)] == ["1", "1", b"2"]

    def test_a_failing_answer_fails_the_test(self) -> None:
        exchange = Exchange(answer=lambda message: {}[message])
        with dial(exchange) as client:
            client.send("unknown")
            exchange.wait_written(1)
            exchange.say("the link is still there")
            assert client.recv(10) == "the link is still there"
        with pytest.raises(KeyError, match="unknown"):
            exchange.stop()
        exchange.stop()

    def test_an_answer_that_calls_the_exchange_is_told_so(self, exchange: Exchange) -> None:
        exchange.answer = lambda message: exchange.say("me")  # type: ignore[func-returns-value]
        with dial(exchange) as client:
            client.send("x")
            exchange.wait_written(1)
            exchange.say("on")
            assert client.recv(10) == "on"
        assert "would wait for itself" in str(exchange.failures.pop())


class TestRecords:
    def test_what_was_written_by_whom(self, exchange: Exchange) -> None:
        with (
            dial(exchange, "/ws?a=b", additional_headers={"X-Key": "k"}) as first,
            dial(exchange) as second,
        ):
            one, two = exchange.wait_clients(2)
            first.send("text")
            exchange.wait_written(1)
            second.send(b"bytes")
            assert exchange.wait_written(2) == ["text", b"bytes"]
            assert (one.written, two.written) == (["text"], [b"bytes"])
            assert (one.path, one.headers["x-key"], one.number) == ("/ws?a=b", "k", 0)
            assert (one.close_code, one.is_open) == (None, True)
            assert repr(one) == "Client(0, /ws?a=b, open, 1 written)"
        exchange.wait_clients(0)
        assert [client.close_code for client in exchange.clients] == [1000, 1000]
        assert "0 of 2 links open" in repr(exchange)

    def test_a_wait_says_what_there_was_instead(self, exchange: Exchange) -> None:
        with dial(exchange) as client:
            client.send("this")
            exchange.wait_written(1)
            with pytest.raises(
                AssertionError, match=r"no 2 messages of clients in 0.05 s: .*\['this'\]"
            ):
                exchange.wait_written(2, timeout=0.05)
            with pytest.raises(AssertionError, match="no 2 open links"):
                exchange.wait_clients(2, timeout=0.05)
            with pytest.raises(AssertionError, match="no 2 handshakes"):
                exchange.wait_handshakes(2, timeout=0.05)


class TestFaults:
    def test_cut_loses_every_link_without_a_close_frame(self, exchange: Exchange) -> None:
        with dial(exchange) as first, dial(exchange) as second:
            exchange.wait_clients(2)
            exchange.cut()
            assert exchange.live == []
            assert (leaves(first), leaves(second)) == (1006, 1006)
        with dial(exchange):
            exchange.wait_clients(1)

    def test_clients_are_closed_with_a_code_and_a_reason(self, exchange: Exchange) -> None:
        with dial(exchange) as client:
            exchange.wait_clients(1)
            reading = Background(lambda: leaves(client))
            exchange.close_clients(4001, "maintenance")
            assert reading.result() == 4001
            assert client.close_reason == "maintenance"
        assert exchange.clients[0].close_code == 4001

    def test_one_link_is_cut_or_closed_and_the_rest_stay(self, exchange: Exchange) -> None:
        with dial(exchange) as first, dial(exchange) as second, dial(exchange) as third:
            one, two, _ = exchange.wait_clients(3)
            one.cut()
            two.close(1012)
            assert (leaves(first), leaves(second)) == (1006, 1012)
            exchange.say("still")
            assert third.recv(10) == "still"

    def test_a_client_that_does_not_answer_a_close_frame_is_ended(self, exchange: Exchange) -> None:
        with socket.create_connection(("127.0.0.1", exchange.port), 10) as sock:
            sock.sendall(
                b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            exchange.wait_clients(1)
            exchange.close_clients()
            assert exchange.live == []

    def test_refused_handshakes_get_the_status_until_it_is_healed(self, exchange: Exchange) -> None:
        with dial(exchange) as before:
            exchange.wait_clients(1)
            exchange.refuse(429, {"Retry-After": "7"})
            with pytest.raises(InvalidStatus) as refused:
                dial(exchange)
            assert refused.value.response.status_code == 429
            assert refused.value.response.headers["Retry-After"] == "7"
            exchange.say("the links there are stay")
            assert before.recv(10)
            exchange.heal()
            with dial(exchange):
                exchange.wait_clients(2)
        exchange.wait_handshakes(3)
        assert (exchange.handshakes, len(exchange.clients)) == (3, 2)


class TestLife:
    def test_stopping_ends_links_port_and_thread(self) -> None:
        with Exchange() as exchange:
            clients = [dial(exchange) for _ in range(3)]
            exchange.wait_clients(3)
        for client in clients:
            with client, pytest.raises(ConnectionClosedError):
                client.recv(10)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", exchange.port), 1)
        assert not [thread for thread in threading.enumerate() if thread.name == "exchange"]
        exchange.stop()
        with pytest.raises(RuntimeError, match="was stopped"):
            exchange.cut()

    def test_stopping_does_not_wait_for_a_handshake_that_never_comes(self) -> None:
        with (
            Exchange() as exchange,
            socket.create_connection(("127.0.0.1", exchange.port), 10) as sock,
        ):
            sock.sendall(b"GET / HTTP/1.1\r\n")
            exchange.stop()
            assert not [thread for thread in threading.enumerate() if thread.name == "exchange"]

    def test_over_tls_with_a_subprotocol(self, certs: Certs) -> None:
        with (
            Exchange(
                tls=certs.server_context(), subprotocols=["v2.feed"], greeting=["safe"]
            ) as exchange,
            dial(
                exchange, ssl=certs.client_context(), subprotocols=["v1.feed", "v2.feed"]
            ) as client,  # type: ignore[list-item]
        ):
            assert exchange.url.startswith("wss://")
            assert client.recv(10) == "safe"
            assert client.subprotocol == "v2.feed"
