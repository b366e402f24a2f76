"""The globals that reach out: _G, DBExec, HttpQuery, Mail, GetCommand."""

from __future__ import annotations

import base64
import contextlib
import http.server
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.certs import Certs
from tests.support.sockets import Peer, SocketServer, unused_port
from trunkline.strategy.commands import Commands
from trunkline.strategy.database import Database
from trunkline.strategy.httpquery import HttpQuery
from trunkline.strategy.mail import Mail
from trunkline.strategy.storage import Store, strategy_folder


def test_values_outlive_the_store_and_keys_have_no_case(tmp_path: Path) -> None:
    Store(tmp_path)("Key", {"a": [1, None, "中"]})
    store = Store(tmp_path)
    assert store("KEY") == {"a": [1, None, "中"]}
    assert store("missing") is None
    assert store("key", 2) == 2
    assert store("kEy") == 2


def test_none_deletes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store("a", 1)
    store("b", False)
    store("a", None)
    assert (store("a"), store("b")) == (None, False)
    store(None)
    assert store("b") is None


def test_the_id_stays_the_same(tmp_path: Path) -> None:
    assert Store(tmp_path)() == Store(tmp_path)()
    assert Store(tmp_path)() != Store(tmp_path / "other")()


def test_a_value_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="_G keeps what JSON can hold, and not this value of a"):
        Store(tmp_path)("a", {1, 2})


def test_several_threads_may_write_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store(f"k{number % 4}", number), range(40)))
    assert all(store(f"k{number}") is not None for number in range(4))


def test_two_scripts_of_the_same_name_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRUNKLINE_DATA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    first, second = (strategy_folder(tmp_path / name / "main.py") for name in "ab")
    assert first != second
    assert first.parent == second.parent == tmp_path / "trunkline"
    assert strategy_folder(Path("x.py"), tmp_path / "given").parent == tmp_path / "given"


class _Connection:
    def __init__(self, address: str) -> None:
        self.address = address
        self.closed = False
        self.statements: list[tuple[Any, ...]] = []

    def exec(self, *statement: Any) -> dict[str, Any]:
        self.statements.append(statement)
        return {"columns": [], "values": []}

    def close(self) -> None:
        self.closed = True


def test_dbexec_dials_when_it_is_used_and_once(tmp_path: Path) -> None:
    dialled: list[_Connection] = []

    def dial(address: str) -> _Connection:
        dialled.append(_Connection(address))
        return dialled[-1]

    database = Database(dial, tmp_path / "s")
    assert not dialled
    database("SELECT ?", 1)
    database(":SELECT 2")
    database("SELECT 3")
    assert [c.address for c in dialled] == [
        f"sqlite3://{tmp_path}/s/strategy.db",
        "sqlite3://:memory:",
    ]
    assert dialled[0].statements == [("SELECT ?", 1), ("SELECT 3",)]
    assert dialled[1].statements == [("SELECT 2",)]
    database.close()
    assert all(c.closed for c in dialled)


def test_dbexec_takes_text_alone(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="DBExec takes SQL as text, not int"):
        Database(lambda address: None, tmp_path)(5)  # type: ignore[arg-type]


def test_dbexec_gives_none_when_the_database_cannot_be_opened(tmp_path: Path) -> None:
    assert Database(lambda address: None, tmp_path)("SELECT 1") is None


def test_dbexec_refuses_a_folder_that_no_address_can_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no '\\|' may be"):
        Database(lambda address: None, tmp_path / "a|b")("SELECT 1")


class _Handler(http.server.BaseHTTPRequestHandler):
    login: str | None = None

    def do_GET(self) -> None:
        _Handler.login = self.headers.get("Authorization")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        seen = [
            self.command,
            self.path,
            self.headers.get("X-Test"),
            self.headers.get("Cookie"),
            body.decode(),
        ]
        answer = repr(seen).encode()
        self.send_response(404 if "missing" in self.path else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.send_header("Set-Cookie", "a=1")
        self.send_header("Set-Cookie", "b=2")
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET

    def log_message(self, *values: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _query(failures: list[str] | None = None) -> HttpQuery:
    heard: list[str] = [] if failures is None else failures
    return HttpQuery(heard.append)


def test_httpquery_gives_the_body(web: str) -> None:
    assert _query()(f"{web}/x?y=1") == repr(["GET", "/x?y=1", None, None, ""])


def test_httpquery_takes_method_headers_cookie_and_body(web: str) -> None:
    options = {
        "method": "POST",
        "headers": {"X-Test": "t"},
        "cookie": "c=1",
        "body": "a=1",
        "timeout": 5000,
    }
    assert _query()(web, options) == repr(["POST", "/", "t", "c=1", "a=1"])
    assert _query()(web, {"body": {"a": "1 2"}}) == repr(["POST", "/", None, None, "a=1+2"])


def test_httpquery_understands_the_older_form(web: str) -> None:
    assert _query()(web, "a=1", "c=1", "X-Test: t") == repr(["POST", "/", "t", "c=1", "a=1"])
    answer = _query()(web, "", "", {}, True)
    assert not isinstance(answer, str)
    assert answer.StatusCode == 200


def test_httpquery_with_debug_gives_the_whole_answer(web: str) -> None:
    answer = _query()(f"{web}/missing", {"debug": True})
    assert not isinstance(answer, str)
    assert answer["StatusCode"] == answer.StatusCode == 404
    assert answer.Header["Set-Cookie"] == answer.Cookies == ["a=1", "b=2"]
    assert "/missing" in answer.Body
    assert answer.Error == ""


def test_an_answer_that_is_an_error_is_still_an_answer(web: str) -> None:
    assert "/missing" in str(_query()(f"{web}/missing"))


def test_httpquery_that_fails_gives_an_empty_string_and_a_reason_without_secrets() -> None:
    failures: list[str] = []
    with unused_port() as port:
        url = f"http://user:secret@127.0.0.1:{port}/x?key=secret"
        assert _query(failures)(url) == ""
        answer = _query(failures)(url, {"debug": True})
    assert not isinstance(answer, str)
    assert answer.StatusCode == 0
    assert answer.Error == failures[0] == failures[1]
    assert f"http://127.0.0.1:{port}/x" in failures[0]
    assert "secret" not in failures[0]


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("http://user:s3cret@127.0.0.1:80x/", {}, "the port is no number"),
        ("http://user:s3cret@[::1/?k=s3cret", {}, "cannot be sent as it is given"),
        ("http://h/a\r\nb?key=s3cret", {}, "a control character"),
        ("https://user:s3cret@127.0.0.1/https://h/", {"timeout": "s3cret"}, "the timeout must be"),
        ("user:s3cret@127.0.0.1/x?key=s3cret", {}, "must begin with http://"),
        ("http://h/", {"headers": {"X-Key": "s3cret\n"}}, "the header X-Key holds a line end"),
        ("http://h/", {"headers": {"X-Key": "s3cret漢"}}, "the header X-Key holds characters"),
        ("http://h/", {"cookie": "s3cret\r\nX: y"}, "the header Cookie holds a line end"),
        ("http://h/", {"headers": ["s3cret"]}, "the headers must be a dict"),
        ("http://h/", {"body": ["s3cret"]}, "the body must be text"),
        ("http://h/", {"method": "PO ST", "body": "s3cret"}, "the method must be one word"),
        ("http://exa mple/?k=s3cret", {}, "names no host"),
        (None, {}, "the address must be text, not NoneType"),
    ],
)
def test_httpquery_says_what_is_wrong_with_a_request_and_quotes_no_secret(
    url: Any, options: dict[str, Any], words: str
) -> None:
    failures: list[str] = []
    assert _query(failures)(url, options) == ""
    assert words in failures[0]
    assert "s3cret" not in failures[0]


def test_httpquery_takes_a_login_and_any_letters_in_the_address(web: str) -> None:
    text = str(_query()(web.replace("//", "//us%40er:pw@") + "/a b/é?x=%20ü"))
    assert "/a%20b/%C3%A9?x=%20%C3%BC" in text
    assert _Handler.login == f"Basic {base64.b64encode(b'us@er:pw').decode()}"


@pytest.mark.parametrize("slow", ["head", "body"])
def test_httpquery_ends_in_time_however_slowly_the_server_answers(slow: str) -> None:
    """A byte now and then begins a socket's timeout anew."""
    head = b"HTTP/1.1 200 OK\r\nX: "
    if slow == "body":
        head += b"y\r\n\r\n"

    def drip(peer: Peer) -> None:
        peer.read_until(b"\r\n\r\n")
        peer.send(head)
        with contextlib.suppress(OSError):
            while not peer.stopping.wait(0.05):
                peer.send(b"z")

    failures: list[str] = []
    with SocketServer(drip) as server:
        assert _query(failures)(server.url.replace("tcp", "http"), {"timeout": 300}) == ""
    assert failures[0].endswith(": no whole answer within 300 ms")


def test_httpquery_reads_no_files() -> None:
    failures: list[str] = []
    assert _query(failures)("file:///etc/passwd") == ""
    assert "http://" in failures[0]


def test_httpquery_goes_through_an_http_proxy(web: str) -> None:
    assert "http://nowhere.example/x" in str(_query()(f"{web}/http://nowhere.example/x"))


def test_httpquery_goes_through_a_socks_proxy_which_resolves_the_name() -> None:
    def proxy(peer: Peer) -> None:
        peer.read_exactly(peer.read_exactly(2)[1])
        peer.send(b"\x05\x02")
        head = peer.read_exactly(2)
        user = peer.read_exactly(head[1])
        assert (user, peer.read_exactly(peer.read_exactly(1)[0])) == (b"me", b"pwd")
        peer.send(b"\x01\x00")
        assert peer.read_exactly(4) == b"\x05\x01\x00\x03"
        assert peer.read_exactly(peer.read_exactly(1)[0]) == b"nowhere.example"
        peer.read_exactly(2)
        peer.send(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
        peer.read_until(b"\r\n\r\n")
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    with SocketServer(proxy) as server:
        url = f"socks5://me:pwd@127.0.0.1:{server.port}/http://nowhere.example/"
        assert _query()(url, {"timeout": 5000}) == "hi"


def _smtp(peer: Peer) -> None:
    """Just enough of a mail server."""
    peer.send(b"220 ready\r\n")
    while True:
        line = peer.read_until(b"\r\n")
        word = line[:4].strip().upper()
        if word == b"DATA":
            peer.send(b"354 go on\r\n")
            peer.read_until(b"\r\n.\r\n")
        elif word == b"EHLO":
            peer.send(b"250-me\r\n250 AUTH PLAIN\r\n")
            continue
        elif word == b"AUTH":
            peer.send(b"235 welcome\r\n")
            continue
        peer.send(b"221 bye\r\n" if word == b"QUIT" else b"250 fine\r\n")
        if word == b"QUIT":
            return


def test_mail_hands_a_message_to_the_server() -> None:
    failures: list[str] = []
    with SocketServer(_smtp) as server:
        place = f"127.0.0.1:{server.port}"
        assert (
            Mail(failures.append)(place, "me@x.example", "pw", "you@x.example", "Grüße", "body")
            is True
        )
        received = server.peers[0].received
    assert b"To: you@x.example" in received
    assert b"body" in received
    assert not failures


def test_mail_gives_no_password_to_a_server_that_nobody_vouches_for(certs: Certs) -> None:
    failures: list[str] = []
    with SocketServer(_smtp, tls=certs.stranger.server_context()) as server:
        place = f"ssl://127.1:{server.port}"  # not by a name that means this machine
        assert not Mail(failures.append)(place, "me@x.example", "pw", "you@x.example", "t", "b")
        assert not server.peers  # they did not agree on TLS
    assert "certificate verify failed" in failures[0]


def test_mail_takes_any_certificate_of_a_server_of_this_machine(certs: Certs) -> None:
    failures: list[str] = []
    with SocketServer(_smtp, tls=certs.stranger.server_context()) as server:
        place = f"ssl://127.0.0.1:{server.port}"
        assert Mail(failures.append)(place, "me@x.example", "pw", "you@x.example", "t", "b")
    assert not failures


def test_mail_that_fails_is_false_and_says_why_without_the_password() -> None:
    failures: list[str] = []
    with unused_port() as port:
        assert Mail(failures.append)(f"127.0.0.1:{port}", "me", "secret", "you", "t", "b") is False
    assert "refused" in failures[0].lower()
    assert "secret" not in failures[0]


def test_mail_names_the_server_without_what_stands_before_it() -> None:
    failures: list[str] = []
    with unused_port() as port:
        assert (
            Mail(failures.append)(f"smtp://u:s3cret@127.0.0.1:{port}", "u", "p", "to@x", "t", "b")
            is False
        )
    assert f"Mail through 127.0.0.1:{port}:" in failures[0]
    assert "s3cret" not in failures[0]


def test_mail_refuses_a_title_that_smuggles_a_header() -> None:
    failures: list[str] = []
    assert (
        Mail(failures.append)("127.0.0.1:1", "me", "pw", "you", "t\r\nBcc: x@x.example", "b")
        is False
    )
    assert failures


def test_commands_are_lines_and_none_when_there_is_none() -> None:
    reading, writing = os.pipe()
    commands = Commands(reading)
    assert commands() is None
    os.write(writing, b"buy:1\n\nse")
    assert [commands(), commands()] == ["buy:1", None]
    os.write(writing, b"ll\nlast")
    os.close(writing)
    assert [commands(), commands(), commands(), commands()] == ["sell", "last", None, None]
    os.close(reading)


def test_commands_without_an_input_are_none() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    os.close(reading)
    assert Commands(reading)() is None
