"""Addresses that people really wrote: the original's documentation, and strategies in public."""

from __future__ import annotations

from typing import Any

import pytest

from trunkline.address import parse_address

LISTEN_KEY = "pqia91ma19a5s61cv6a81va65sdf19v8a65a1a5s61cv6a81va65sdf19v8a65a1"
SUBSCRIBE = '{"op": "subscribe", "args": [{"channel": "tickers", "instId": "BTC-USDT"}]}'
LOGIN = (
    '{"op": "login", "args": [{"apiKey": "k-1", "passphrase": "p&q|r", "timestamp": "1700000000.5", '
    '"sign": "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA="}]}'
)
ENCODED = "%7B%22op%22%3A%22subscribe%22%2C%22args%22%3A%5B%22spot%2Fdepth5%3ABTC-USDT%22%5D%7D"
RECONNECT = {"reconnect": True}
GZIP = {"compress": "gzip", "mode": "recv"}
RAW = {"compress": "gzip_raw", "mode": "recv"}

STREAMS: list[tuple[str, str, dict[str, Any]]] = [
    ("wss://stream.binance.com:9443/ws/!ticker@arr", "", {}),
    ("wss://stream.binance.com:9443/ws/!ticker@arr", "reconnect=true", RECONNECT),
    ("wss://stream.binance.com:9443/ws/btcusdt@trade", "", {}),
    (f"wss://stream.binance.com:9443/ws/{LISTEN_KEY}", "", {}),
    (f"wss://stream.binance.com:9443/ws/{LISTEN_KEY}", "reconnect=true", RECONNECT),
    ("wss://stream.binance.com:9443/ws/ethusdt@ticker", "reconnect=true", RECONNECT),
    ("wss://fstream.binance.com/ws/btcusdt@aggTrade", "reconnect=true", RECONNECT),
    (
        "wss://stream.binance.com:9443/stream?streams=btcusdt@aggTrade/ethusdt@aggTrade",
        "reconnect=true",
        RECONNECT,
    ),
    ("wss://dstream.binance.com/ws/btcusd_perp@aggTrade", "reconnect=true", RECONNECT),
    (f"wss://dstream.binance.com/ws/{LISTEN_KEY}", "", {}),
    ("wss://fstream.binance.com/ws/btcusdt@forceOrder", "reconnect=true", RECONNECT),
    ("wss://fstream.binance.com/stream?streams=!forceOrder@arr", "reconnect=true", RECONNECT),
    (
        "wss://api.huobi.pro/ws",
        'compress=gzip&mode=recv&reconnect=true&payload={"sub": "market.btcusdt.detail", "id": "id1"}',
        {**GZIP, **RECONNECT, "payload": ('{"sub": "market.btcusdt.detail", "id": "id1"}',)},
    ),
    ("wss://api.hbdm.com/notification", "compress=gzip&mode=recv", GZIP),
    ("wss://real.okex.com:10441/websocket?compress=true", "compress=gzip_raw&mode=recv", RAW),
    (
        "wss://real.okex.com:8443/ws/v3",
        f"compress=gzip_raw&mode=recv&reconnect=true&payload={SUBSCRIBE}",
        {**RAW, **RECONNECT, "payload": (SUBSCRIBE,)},
    ),
    (
        "wss://real.okex.com:8443/ws/v3",
        f"compress=gzip_raw&mode=recv&reconnect=true&payload={ENCODED}",
        {**RAW, **RECONNECT, "payload": ('{"op":"subscribe","args":["spot/depth5:BTC-USDT"]}',)},
    ),
    (
        "wss://ws.okex.com:8443/ws/v5/private",
        f"reconnect=true&payload={LOGIN}",
        {**RECONNECT, "payload": (LOGIN,)},
    ),
    ("wss://ws.okx.com:8443/ws/v5/private", "", {}),
    ("wss://ws.okx.com:8443/ws/v5/public", "", {}),
    (
        "wss://ws.okx.com:8443/ws/v5/public",
        f"compress=gzip_raw&mode=recv&reconnect=true&payload={SUBSCRIBE}",
        {**RAW, **RECONNECT, "payload": (SUBSCRIBE,)},
    ),
    ("wss://www.bitmex.com/realtime", "", {}),
    (
        "wss://www.bitmex.com/realtime",
        'reconnect=true&payload={"op":"subscribe","args":["trade:XBTUSD"]}',
        {**RECONNECT, "payload": ('{"op":"subscribe","args":["trade:XBTUSD"]}',)},
    ),
    ("wss://www.deribit.com/ws/api/v2", "", {}),
    ("wss://ws-feed.pro.coinbase.com", "", {}),
    (
        "wss://socket.coinex.com/v2/futures",
        'compress=gzip&mode=recv&payload={"method":"server.sign","params":{"signed_str":"ab=="},"id":1}',
        {**GZIP, "payload": ('{"method":"server.sign","params":{"signed_str":"ab=="},"id":1}',)},
    ),
    ("wss://wbs-api.mexc.com/ws", 'payload={"method":"PING"}', {"payload": ('{"method":"PING"}',)}),
    ("wss://api.binance.com/sapi/wss?random=1&topic=com_announcement_en&signature=ab", "", {}),
    ("ws://127.0.0.1:8088/wss", "compress=gzip", {"compress": "gzip"}),
    ("udp://time.windows.com:123", "", {}),
    ("unix:///var/run/market.sock", "", {}),
    ("tcp://www.baidu.com:80", "", {}),
    ("tcp://127.0.0.1:8089", "", {}),
    ("tls://www.baidu.com:443", "", {}),
    (
        "wss://stream.binance.com:9443/ws/btcusdt@ticker",
        "reconnect=true&interval=5000",
        {**RECONNECT, "interval": 5000},
    ),
    (
        "wss://ws.backpack.exchange",
        'payload={"method":"SUBSCRIBE","params":["account.orderUpdate"],"signature":["a=","b==","1","5000"]}',
        {
            "payload": (
                '{"method":"SUBSCRIBE","params":["account.orderUpdate"],"signature":["a=","b==","1","5000"]}',
            )
        },
    ),
]


@pytest.mark.parametrize(("target", "tail", "options"), STREAMS)
def test_stream_address(target: str, tail: str, options: dict[str, Any]) -> None:
    address = parse_address(f"{target}|{tail}" if tail else target)
    assert address.target == target
    assert address.options == options


def test_proxy_example_of_the_documentation() -> None:
    text = "wss://ws.okx.com:8443/ws/v5/public|proxy=socks5://name:pwd@192.168.0.1:1080&compress=gzip_raw"
    proxy = parse_address(text).options["proxy"]
    assert (proxy.scheme, proxy.host, proxy.port) == ("socks5", "192.168.0.1", 1080)
    assert (proxy.user, proxy.password) == ("name", "pwd")
    assert parse_address("wss://h|proxy=socks5://xxx:9999&mode=recv").options["proxy"].port == 9999


def test_headers_example_of_the_documentation() -> None:
    headers = {"X-MBX-APIKEY": "abc"}
    address = parse_address("wss://api.binance.com/sapi/wss?x=1", {"headers": headers})
    assert address.option("headers") == headers


def test_broker_examples_of_the_documentation() -> None:
    nats = parse_address("nats://admin@127.0.0.1:4222?topic=test_topic")
    assert (nats.extra["token"], nats.extra["topic"]) == ("admin", "test_topic")
    mqtt = parse_address("mqtt://127.0.0.1:1883?topic=test_topic")
    assert (mqtt.host, mqtt.port, mqtt.params) == ("127.0.0.1", 1883, {"topic": "test_topic"})
    amqp = parse_address("amqp://q:admin@127.0.0.1:5672/?queue=test_Queue")
    assert (amqp.user, amqp.password, amqp.extra["vhost"]) == ("q", "admin", "/")
    assert amqp.extra["queue"] == "test_Queue"
    kafka = parse_address("kafka://localhost:9092/test_topic")
    assert (kafka.host, kafka.port, kafka.extra["topic"]) == ("localhost", 9092, "test_topic")


def test_database_examples_of_the_documentation() -> None:
    assert parse_address("sqlite3://test1.db").extra["file"] == "test1.db"
    assert parse_address("sqlite3://:memory:").extra["memory"] is True
    assert (
        parse_address("sqlite3://file:test.db?cache=shared&mode=memory").extra["name_is_uri"]
        is True
    )
    mysql = parse_address(
        "mysql://username:yourpassword@tcp(localhost:3306)/yourdatabase?charset=utf8mb4"
    )
    assert (mysql.host, mysql.password, mysql.database) == (
        "localhost",
        "yourpassword",
        "yourdatabase",
    )
    postgres = parse_address(
        "postgres://user=postgres dbname=yourdatabase sslmode=disable password=yourpassword"
        " host=localhost port=5432",
        environ={},
    )
    assert (postgres.user, postgres.password, postgres.extra["sslmode"]) == (
        "postgres",
        "yourpassword",
        "disable",
    )
    clickhouse = parse_address(
        "clickhouse://tcp://host:9000?username=username&password=yourpassword&database=youdatabase"
    )
    assert (clickhouse.host, clickhouse.user, clickhouse.database) == (
        "host",
        "username",
        "youdatabase",
    )


def test_newer_stubs_of_the_original() -> None:
    assert parse_address("sqlite3:///strategy.db").extra["file"] == "/strategy.db"
    assert parse_address("mysql://user:pass@host:3306/dbname").host == "host"
    assert parse_address("clickhouse://user:pass@host:9440/db?secure=true").port == 9440
