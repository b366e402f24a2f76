"""`trunkline dial` against real servers: what it prints, sends and says, and how it ends."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

import trunkline
from tests.support.certs import Certs
from tests.support.commands import Command, Ended, run
from tests.support.servers import WsServer, close_with, feed, hold, refuse_with
from tests.support.sockets import SocketServer, UdpServer, say, unused_port

SECRET = "s3cr3t-Pa55"


def dial(*arguments: str, stdin: str = "", env: dict[str, str | None] | None = None) -> Ended:
    return run("dial", *arguments, stdin=stdin, env=env)


def objects(ended: Ended) -> list[dict[str, object]]:
    return [json.loads(line) for line in ended.out.splitlines()]


def test_tcp_is_netcat_lines_go_out_and_what_arrives_is_printed() -> None:
    with SocketServer() as server, Command("dial", server.url) as command:
        command.say("hello")
        command.wait_out("hello")
        server.drop()
        ended = command.end()
    assert (ended.code, ended.out) == (0, "hello")


def test_at_the_end_of_its_input_it_reads_on_until_the_peer_closes() -> None:
    with SocketServer() as server, Command("dial", server.url) as command:
        command.say("question")
        command.end_input()
        command.wait_out("question")
        server.peers[0].send(b"late answer\n")
        command.wait_out("late answer")
        server.drop()
        assert command.end().code == 0


def test_q_ends_it_some_time_after_its_input() -> None:
    with SocketServer() as server:
        ended = dial(server.url, "-q", "0.5", stdin="one\ntwo\n")
    assert (ended.code, ended.out) == (0, "one\ntwo")


def test_tls_checks_the_certificate(certs: Certs) -> None:
    with SocketServer(tls=certs.server_context()) as server:
        refused = dial(server.url)
        trusted = dial(server.url, "-o", f"cafile={certs.ca}", "-q", "0.5", stdin="hi\n")
    assert (refused.code, refused.out) == (1, "")
    assert "certificate" in refused.err
    assert (trusted.code, trusted.out) == (0, "hi")


def test_udp() -> None:
    server = UdpServer()
    try:
        ended = dial(server.url, "--count", "1", stdin="datagram\n")
    finally:
        server.close()
    assert (ended.code, ended.out) == (0, "datagram")


def test_ws_prints_one_line_per_message_and_stops_at_the_count() -> None:
    with WsServer(feed(10)) as server:
        ended = dial(server.url, "--count", "3")
    assert (ended.code, ended.out) == (0, "0\n1\n2")


def test_json_tells_text_from_bytes() -> None:
    with WsServer(close_with(1000, after=["text", b"\xff\x00"])) as server:
        ended = dial(server.url, "--json")
    text, data, end = objects(ended)
    assert ended.code == 0
    assert text["data"] == "text"
    assert data["bytes"] == base64.b64encode(b"\xff\x00").decode()
    assert end["event"] == "end"
    assert isinstance(text["time"], float)


def test_hex_shows_bytes_and_text() -> None:
    with (
        SocketServer(say(b"Az\x00\xff")) as server,
        Command("dial", server.url, "--hex") as command,
    ):
        line = command.wait_out("00000000")
        command.interrupt()
        assert command.end().code == 130
    assert line.split("  ")[1].startswith("41 7a 00 ff")
    assert line.endswith("|Az..|")


def test_outages_are_told_in_their_place_and_said_on_stderr() -> None:
    options = ("-o", "reconnect=true", "-o", "interval=50")
    with WsServer(feed(1)) as server, Command("dial", server.url, "--json", *options) as command:
        command.wait_out('"data": "0"')
        server.drop_all()
        command.wait_out('"data": "0"', count=2)
        command.wait_err("was lost")
        command.interrupt()
        ended = command.end()
    assert ended.code == 130
    assert [each.get("event") or each["data"] for each in objects(ended)] == [
        "0",
        "down",
        "up",
        "0",
    ]


def test_a_payload_option_may_be_repeated() -> None:
    with WsServer() as server:
        ended = dial(
            server.url, "-o", "payload=a=1&b=2", "-o", 'payload={"x": "|"}', "--count", "2"
        )
    assert ended.out == 'a=1&b=2\n{"x": "|"}'


def test_ctrl_c_ends_it_with_130_and_says_nothing() -> None:
    with WsServer(feed(1)) as server, Command("dial", server.url) as command:
        command.wait_out("0")
        command.interrupt()
        ended = command.end()
    assert (ended.code, ended.out, ended.err) == (130, "0", "")


def test_ctrl_c_while_dialling() -> None:
    def silent(peer: object) -> None:
        peer.stopping.wait()  # type: ignore[attr-defined]

    with (
        SocketServer(silent) as server,
        Command("dial", server.url.replace("tcp", "ws")) as command,
    ):
        server.wait_peers(1)
        command.interrupt()
        ended = command.end()
    assert ended.code == 130
    assert "Traceback" not in ended.output


def test_a_reader_that_leaves_ends_it_quietly() -> None:
    with WsServer(feed(100_000)) as server:
        first = subprocess.Popen(
            [sys.executable, "-m", "trunkline", "dial", server.url],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with first:
            assert first.stdout
            assert first.stderr
            assert first.stdout.readline().strip().isdigit()  # the feed is faster than its reader
            first.stdout.close()
            errors = first.stderr.read()
            assert first.wait(30) == 0
    lines = errors.decode().splitlines()  # that the feed is too fast may be said
    assert [line for line in lines if " dropped, " not in line] == []


@pytest.mark.parametrize(
    ("address", "code", "why"),
    [
        ("mqt://127.0.0.1:1", 2, "did you mean"),
        ("127.0.0.1:1", 2, "scheme"),
        ("tcp://127.0.0.1:1|reconect=true", 2, "did you mean 'reconnect'"),
        ("tcp://127.0.0.1:99999", 2, "port"),
        ("", 2, "empty"),
        ("@/nowhere/at/all", 1, "cannot be read"),
        ("sqlite3:///nowhere/at/all.db?mode=ro", 1, "nowhere"),
    ],
)
def test_a_wrong_address_is_said_in_one_line(address: str, code: int, why: str) -> None:
    ended = dial(address)
    assert (ended.code, ended.out) == (code, "")
    assert why in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_refused_port_is_said_in_one_line() -> None:
    with unused_port() as port:
        ended = dial(f"tcp://127.0.0.1:{port}")
    assert (ended.code, ended.out) == (1, "")
    assert "refused" in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_refused_handshake_shows_no_secret() -> None:
    with WsServer(on_request=refuse_with(403)) as server, unused_port() as port:
        address = f"{server.url}/ws?token={SECRET}"
        refused = dial(address, "-o", f"payload={SECRET}", "-o", f'headers={{"X-Key": "{SECRET}"}}')
        behind = dial(f"{address}|proxy=socks5://me:{SECRET}@127.0.0.1:{port}")
        malformed = dial(f"postgres://me:{SECRET}@127.0.0.1:nonsense/db")
    assert [refused.code, behind.code, malformed.code] == [1, 1, 2]
    assert all(SECRET not in each.output for each in (refused, behind, malformed))


def test_a_peer_that_never_answers_is_given_up_after_the_timeout() -> None:
    def silent(peer: object) -> None:
        peer.stopping.wait()  # type: ignore[attr-defined]

    with SocketServer(silent) as server:
        ended = dial(server.url.replace("tcp", "ws"), "--timeout", "0.3")
    assert ended.code == 1
    assert ended.err


def test_the_address_may_come_from_a_file_a_variable_or_standard_input(tmp_path: Path) -> None:
    with WsServer(feed(1)) as server:
        (tmp_path / "address").write_text(f"{server.url}|payload=x=1&y=2\n")
        by_file = dial(f"@{tmp_path}/address", "--count", "1")
        by_input = dial("-", "--count", "1", stdin=f"{server.url}\nnot the address\n")
        by_variable = dial("--count", "1", env={"TRUNKLINE_ADDRESS": server.url})
        assert server.wait_received(1)[0] == "x=1&y=2"
    assert [each.out for each in (by_file, by_input, by_variable)] == ["0", "0", "0"]


def test_a_handle_joins_a_connection_of_another_program() -> None:
    with WsServer(hold) as server:
        connection = trunkline.connect(server.url)
        with Command("dial", str(connection.fd())) as command:
            command.say("from the other program")
            assert server.wait_received(1) == ["from the other program"]
            command.interrupt()
            assert command.end().code == 130


def test_a_handle_that_names_nothing() -> None:
    ended = dial("4611686018427387905")
    assert ended.code == 1
    assert "handle" in ended.err


def test_the_handle_is_said_on_demand() -> None:
    with WsServer(hold) as server, Command("dial", server.url, "--handle") as command:
        handle = command.wait_err("handle").split()[-1]
        with trunkline.connect(int(handle)) as shared:
            shared.write("here")
            assert server.wait_received(1) == ["here"]
        command.interrupt()
        command.end()


def test_sql_from_the_arguments_is_shown_as_tables(tmp_path: Path) -> None:
    ended = dial(
        f"sqlite3://{tmp_path}/a.db", "-e", "CREATE TABLE t (a, b)",
        "-e", "INSERT INTO t VALUES (1, 'x'), (2, NULL), (3, x'00ff')", "-e", "SELECT * FROM t",
    )  # fmt: skip
    assert ended.code == 0
    assert "done, 3 rows affected" in ended.out
    assert "| 2 | NULL    |" in ended.out
    assert "| 3 | x'00ff' |" in ended.out


def test_sql_from_standard_input_as_json(tmp_path: Path) -> None:
    lines = "CREATE TABLE t (a)\n\nINSERT INTO t VALUES (9007199254740993)\nSELECT a, x'ff' AS b FROM t\n"
    ended = dial(f"sqlite3://{tmp_path}/a.db", "--json", stdin=lines)
    results = objects(ended)
    assert ended.code == 0
    assert results[1]["affected"] == 1
    assert results[2]["values"] == [[9007199254740993, {"bytes": "/w=="}]]


def test_a_refused_statement_is_said_and_the_next_one_runs() -> None:
    ended = dial("sqlite3://:memory:", "--json", stdin="SELEC 1\nSELECT 1\n")
    refused, result = objects(ended)
    assert ended.code == 1
    assert "syntax error" in ended.err
    assert "syntax error" in str(refused["error"])
    assert result["values"] == [[1]]


def test_sql_on_what_is_no_database() -> None:
    with SocketServer() as server:
        ended = dial(server.url, "-e", "SELECT 1")
    assert ended.code == 1
    assert "no exec" in ended.err
