"""The servers that stand in for the exchanges, seen by a plain WebSocket client."""

from __future__ import annotations

import gzip
import json
import os
import socket
import ssl
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.support.exchanges import (
    Authority,
    BinanceTicker,
    Exchange,
    HuobiPublic,
    OkxPrivate,
    OkxPublic,
    WebPage,
    environment,
)
from trunkline.strategy.encode import encode


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def _client(authority: Authority, server: Exchange, path: str | None = None) -> ClientConnection:
    host = server.place.partition(":")[0]
    context = ssl.create_default_context(cafile=str(authority.file))
    sock = socket.create_connection(("127.0.0.1", server.port), 5)
    try:
        return connect(
            f"wss://{server.place}{path or server.path}",
            ssl=context,
            sock=sock,
            server_hostname=host,
        )
    except BaseException:
        sock.close()
        raise


def _say(ws: ClientConnection, **request: Any) -> None:
    ws.send(json.dumps(request))


def test_binance_sends_numbered_arrays(authority: Authority) -> None:
    with BinanceTicker(authority) as server, _client(authority, server) as ws:
        server.wait_subscribed(1)
        server.tick()
        server.tick()
        prices = [json.loads(ws.recv(5))[0]["c"] for _ in range(2)]
        assert prices == ["1.5", "2.5"]


def test_another_path_is_not_found(authority: Authority) -> None:
    with BinanceTicker(authority) as server, pytest.raises(InvalidStatus, match="404"):
        _client(authority, server, "/ws/other")


def test_okx_deflates_every_frame_and_wants_a_subscription(authority: Authority) -> None:
    def receive(ws: ClientConnection) -> str:
        return zlib.decompress(ws.recv(5, decode=False), -zlib.MAX_WBITS).decode()

    with OkxPublic(authority) as server, _client(authority, server) as ws:
        server.tick()
        ws.send("ping")
        assert receive(ws) == "pong"
        _say(ws, op="subscribe", args=[{"channel": "tickers", "instId": "BTC-USDT"}])
        assert json.loads(receive(ws))["event"] == "subscribe"
        assert server.tick() == 2
        assert json.loads(receive(ws))["data"][0]["last"] == "2.5"
        _say(ws, op="other")
        assert json.loads(receive(ws))["code"] == "60012"


@pytest.fixture
def huobi(authority: Authority) -> Iterator[HuobiPublic]:
    with HuobiPublic(authority) as server:
        yield server


def _unzip(ws: ClientConnection) -> Any:
    return json.loads(gzip.decompress(ws.recv(5, decode=False)))


def test_huobi_zips_every_frame(authority: Authority, huobi: HuobiPublic) -> None:
    with _client(authority, huobi) as ws:
        _say(ws, sub="market.btcusdt.detail", id="id1")
        answer = _unzip(ws)
        assert (answer["subbed"], answer["status"]) == ("market.btcusdt.detail", "ok")
        huobi.tick()
        assert _unzip(ws)["tick"]["id"] == 1


def test_huobi_takes_the_right_pong_and_throws_out_who_does_not_answer(
    authority: Authority, huobi: HuobiPublic
) -> None:
    with _client(authority, huobi) as ws:
        _say(ws, sub="market.btcusdt.detail", id="id1")
        _unzip(ws)
        number = huobi.ping()
        assert _unzip(ws) == {"ping": number}
        _say(ws, pong=number)
        huobi.wait_pong(number)
        huobi.ping()
        _say(ws, pong=1)
        huobi.ping()
        huobi.ping()
        assert huobi.thrown_out == 1
        assert [_unzip(ws)["ping"] for _ in range(2)] == [number + 5000, number + 10000]
        with pytest.raises(ConnectionClosed):
            ws.recv(5)


def _login(ws: ClientConnection, **changes: str) -> dict[str, str]:
    stamp = changes.pop("timestamp", str(time.time()))
    secret = changes.pop("secret", "s")
    sign = str(encode("sha256", "raw", "base64", f"{stamp}GET/users/self/verify", "raw", secret))
    account = {"apiKey": "a", "passphrase": "p", "timestamp": stamp, "sign": sign}
    _say(ws, op="login", args=[account | changes])
    answer: dict[str, str] = json.loads(ws.recv(5))
    return answer


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"apiKey": "b"}, "60005"),
        ({"timestamp": "1000000000.5"}, "60006"),
        ({"secret": "other"}, "60007"),
        ({"passphrase": "q"}, "60024"),
    ],
)
def test_okx_refuses_a_wrong_login(authority: Authority, wrong: dict[str, str], code: str) -> None:
    with OkxPrivate(authority, {"a": ("s", "p")}) as server, _client(authority, server) as ws:
        assert _login(ws, **wrong)["code"] == code
        _say(ws, op="subscribe", args=[{"channel": "positions"}])
        assert json.loads(ws.recv(5))["code"] == "60011"


def test_okx_gives_positions_after_a_right_login(authority: Authority) -> None:
    with OkxPrivate(authority, {"a": ("s", "p")}) as server, _client(authority, server) as ws:
        assert _login(ws)["event"] == "login"
        _say(ws, op="subscribe", args=[{"channel": "positions", "instType": "ANY"}])
        assert json.loads(ws.recv(5))["event"] == "subscribe"
        server.tick()
        assert json.loads(ws.recv(5))["data"][0]["posId"] == "1"


def test_names_and_trust_are_arranged_by_the_environment_alone(
    authority: Authority, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text("""
import socket, urllib.request
print(urllib.request.urlopen("https://www.baidu.com/", timeout=5).read().decode())
try:
    socket.create_connection(("example.com", 443), 5)
except socket.gaierror as error:
    print(error)
""")
    with WebPage(authority) as page:
        env = {**environment(authority, page), "PYTHONIOENCODING": "utf-8"}
        done = subprocess.run(
            [sys.executable, program], env=env, capture_output=True, timeout=30, check=False
        )
        assert done.stdout.decode().splitlines()[0] == page.body
        assert b"example.com is not known in this test" in done.stdout
        assert page.requests[0].startswith(b"GET / HTTP/1.1")
    assert "TRUNKLINE_TEST_NAMES" not in os.environ
