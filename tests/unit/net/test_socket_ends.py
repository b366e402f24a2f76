"""The end of a socket: seen without reading, and broken off from another thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from trunkline.actors.net.socket_ends import break_socket, hung_up, reset_at_close


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected TCP sockets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname(), 10)
        theirs, _ = listener.accept()
    theirs.settimeout(10)
    with ours, theirs:
        yield ours, theirs


Pair = tuple[socket.socket, socket.socket]


def test_an_open_socket_has_not_hung_up(pair: Pair) -> None:
    ours, theirs = pair
    assert not hung_up(ours.fileno())
    theirs.send(b"a word")
    assert ours.recv(1) == b"a"
    assert not hung_up(ours.fileno())


def test_a_peer_that_closed_is_seen_before_its_last_words_are_read(pair: Pair) -> None:
    ours, theirs = pair
    theirs.send(b"last words")
    theirs.close()
    assert ours.recv(4) == b"last", "so that the end has come, too"
    while not hung_up(ours.fileno()):
        pass
    assert ours.recv(100) == b" words"


def test_a_closed_descriptor_counts_as_hung_up() -> None:
    assert hung_up(-1)


def test_the_peer_hears_at_once_that_nothing_more_is_taken(pair: Pair) -> None:
    ours, theirs = pair
    reset_at_close(ours.fileno())
    ours.close()
    with pytest.raises(ConnectionResetError):
        theirs.recv(1)


def test_a_thread_that_waits_goes_on_when_its_socket_is_broken(pair: Pair) -> None:
    ours, _ = pair
    ended: list[bytes | OSError] = []

    def wait() -> None:
        try:
            ended.append(ours.recv(1))
        except OSError as error:
            ended.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    break_socket(ours.fileno())
    thread.join(10)
    assert not thread.is_alive()
    assert len(ended) == 1
    assert ended[0] == b"" or isinstance(ended[0], OSError)


def test_a_socket_that_is_gone_is_no_error(pair: Pair) -> None:
    ours, _ = pair
    number = ours.fileno()
    ours.close()
    break_socket(number)
    reset_at_close(-1)
