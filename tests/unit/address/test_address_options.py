# ruff: noqa: E501 - the sentences are pinned whole, one to a line
"""The option table: types, ranges, defaults, which scheme takes what, and the sentence for every slip."""

from __future__ import annotations

from typing import Any

import pytest

from trunkline.address import OPTIONS, SCHEMES, Proxy, parse_address
from trunkline.errors import AddressError, UnknownScheme

GOOD: list[tuple[str, str, Any]] = [
    ("reconnect", "TRUE", True),
    ("reconnect", "no", False),
    ("reconnect", "1", True),
    ("interval", "10000", 10000),
    ("retry", "0", 0),
    ("compress", "flate", "deflate"),
    ("compress", "GZIP", "gzip"),
    ("mode", "dual", "dual"),
    ("enableCompression", "yes", True),
    ("subprotocols", "a,b", ("a", "b")),
    ("subprotocols", "v1%2C%20v2", ("v1", "v2")),
    ("origin", "https://example.com", "https://example.com"),
    ("headers", '{"A": "x&y", "B": 1}', {"A": "x&y", "B": "1"}),
    ("headers", "%7B%22A%22%3A%22x%22%7D", {"A": "x"}),
    ("headers", "A: x%0AB: y:z", {"A": "x", "B": "y:z"}),
    ("pingInterval", "0", 0),
    ("pingMessage", '{"op":"ping&mode=recv"}', '{"op":"ping&mode=recv"}'),
    ("pingType", "text", "text"),
    ("idle", "30000", 30000),
    ("cafile", "certs/ca%20x.pem", "certs/ca x.pem"),
    ("servername", "example.com", "example.com"),
    ("insecureSkipVerify", "true", True),
    ("local_ip", "[::1]", "::1"),
    ("buffer", "1", 1),
    ("buffer", "1000000", 1_000_000),
    ("decode", "bytes", "bytes"),
    ("timeout", "2.5", 2.5),
    ("linger", "0", 0.0),
    ("max_size", "1024", 1024),
]


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_option_in_the_address(name: str, text: str, value: Any) -> None:
    address = parse_address(
        f"wss://h|{name}={text}&mode=recv" if name != "mode" else f"wss://h|mode={text}"
    )
    assert address.option(name) == address.options[name] == value


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("reconnect", True, True),
        ("interval", 5.0, 5),
        ("timeout", 60, 60.0),
        ("timeout", "1e-2", 0.01),
        ("subprotocols", ["a"], ("a",)),
        ("headers", {"A": 5}, {"A": "5"}),
        ("payload", b"x", ("x",)),
        ("pingMessage", {"a": [1]}, '{"a": [1]}'),
        ("proxy", Proxy("http", "h", 1), Proxy("http", "h", 1)),
        ("proxy", "none", None),
    ],
)
def test_option_beside_the_address(name: str, given: object, value: Any) -> None:
    assert parse_address("wss://h", {name: given}).option(name) == value


def test_option_in_the_address_wins() -> None:
    address = parse_address("ws://h|interval=7", {"interval": 9, "retry": 3, "origin": None})
    assert address.options == {"interval": 7, "retry": 3}


def test_defaults() -> None:
    ws, tcp = parse_address("ws://h"), parse_address("tcp://h:1")
    assert ws.options == {}
    assert {name: ws.option(name) for name in OPTIONS} == {
        "reconnect": False,
        "interval": 1000,
        "maxInterval": 30000,
        "retry": 0,
        "payload": (),
        "payloadInterval": 20,
        "limit": None,
        "compress": None,
        "mode": "recv",
        "enableCompression": False,
        "proxy": None,
        "headers": {},
        "subprotocols": (),
        "origin": None,
        "pingInterval": 20000,
        "pingMessage": None,
        "pingType": "control",
        "pingTimeout": None,
        "idle": 0,
        "cafile": None,
        "certfile": None,
        "keyfile": None,
        "servername": None,
        "insecureSkipVerify": False,
        "local_ip": None,
        "interface": None,
        "buffer": 2000,
        "buffer_bytes": 64 * 1024 * 1024,
        "decode": "auto",
        "timeout": 30.0,
        "max_size": 16 * 1024 * 1024,
        "linger": 300.0,
    }
    assert tcp.option("pingInterval") == 0
    with pytest.raises(KeyError):
        ws.option("no_such")


def test_every_option_is_described() -> None:
    for option in OPTIONS.values():
        assert option.help
        assert option.schemes
        assert set(option.schemes) <= set(SCHEMES)


SENTENCES = [
    ("ws://h|interval=5s", "option 'interval' does not take '5s': use milliseconds as a whole number from 1 to 86400000"),
    ("ws://h|interval=0", "option 'interval' does not take '0': use milliseconds as a whole number from 1 to 86400000"),
    ("ws://h|reconnect=maybe", "option 'reconnect' does not take 'maybe': use true or false"),
    ("ws://h|buffer=0", "option 'buffer' does not take '0': use a whole number from 1 to 1000000"),
    ("ws://h|buffer=1000001", "option 'buffer' does not take '1000001': use a whole number from 1 to 1000000"),
    ("ws://h|timeout=-1", "option 'timeout' does not take '-1': use seconds from 0.001 to 86400"),
    ("ws://h|timeout=nan", "option 'timeout' does not take 'nan': use seconds from 0.001 to 86400"),
    ("ws://h|mode=both", "option 'mode' does not take 'both': use one of recv, send, dual"),
    ("ws://h|compress=lz4", "option 'compress' does not take 'lz4': use one of gzip, gzip_raw, deflate, zlib"),
    ("ws://h|local_ip=here", "option 'local_ip' does not take 'here': use an IP address of this machine"),
    ("ws://h|subprotocols=a b", "option 'subprotocols' does not take 'a b': use a list of names, or names separated by commas"),
    ("ws://h|headers=nothing", "option 'headers' does not take a value: use a dict, JSON text of one, or lines of 'Name: value'"),
    ("ws://h|origin=", "option 'origin' does not take '': use text of one line"),
    ("ws://h|proxy=h:1080", "option 'proxy' must start with socks5://, socks5h://, socks4://, socks4a://, http:// or https:// and name a host"),
    ("amqp://h/?queue=q|pingTimeout=1", "option 'pingTimeout' needs pingType=text beside it with amqp: its own pings have no answer of their own; heartbeat says how soon a silent broker is lost"),
    ("kafka://h/t|pingTimeout=1", "option 'pingTimeout' needs pingType=text beside it with kafka: its own pings have no answer of their own; pingInterval says how soon a silent broker is lost"),
    ("ws://h|proxy=socks4://u:p@h:1", "option 'proxy' names a socks4 proxy, which knows no password: use socks5://"),
    ("ws://h|proxy=socks5://", "option 'proxy' names no host: write one after the '://'"),
    ("ws://h|proxy=socks5://h:0", "option 'proxy' has port 0: a port is 1 to 65535"),
    ("ws://h|reconect=true", "unknown option 'reconect': did you mean 'reconnect'"),
    ("ws://h|Reconnect=true", "unknown option 'Reconnect': did you mean 'reconnect'"),
    ("ws://h|xyzzy=true", "unknown option 'xyzzy': see `trunkline dial --help` for the options there are, and write & in a value as %26"),
    ("ws://h|mode=recv&mode=send", "option 'mode' is given twice: write it once"),
    ("ws://h|mode", "what follows the '|' must be options as name=value&name=value: write %7C for a '|' that belongs to the address"),
    ("sqlite3://a.db|compress=gzip", "option 'compress' makes no sense for sqlite3: leave it out"),
    ("mysql://u:p@tcp(h:1)/d|payload=x", "option 'payload' makes no sense for mysql: leave it out"),
    ("tcp://h:1|headers={}", "option 'headers' makes no sense for tcp: leave it out"),
    ("unix:///s|proxy=socks5://h:1", "option 'proxy' makes no sense for unix: leave it out"),
    ("udp://h:1|proxy=socks5://h:1", "option 'proxy' makes no sense for udp: leave it out"),
    ("ws://h|cafile=x", "option 'cafile' makes no sense for ws without an https:// proxy: leave it out"),
    ("mysql://u:p@tcp(h:1)/d|timout=5", "unknown option 'timout': did you mean 'timeout'"),
    ("mqtt://h?topic=t|qoss=1", "unknown option 'qoss': did you mean 'qos'"),
    ("", "an address starts with its scheme: write wss://host/path, tcp://host:port and so on"),
    ("h:1", "an address starts with its scheme: write wss://host/path, tcp://host:port and so on"),
    ("tcp:h:1", "an address starts with its scheme: write wss://host/path, tcp://host:port and so on"),
    ("tcp://h", "a tcp address needs a port: write tcp://host:port"),
    ("udp://h:", "a udp address needs a port: write udp://host:port"),
    ("tls://h", "a tls address needs a port: write tls://host:port"),
    ("tcp://:80", "a tcp address names no host: write one after the '://'"),
    ("ws://", "a ws address names no host: write one after the '://'"),
    ("tcp://h:65536", "a tcp address has port 65536: a port is 1 to 65535"),
    ("tcp://h:http", "a tcp address has a port that is not a number: write host:port, and special characters in a password percent-encoded"),
    ("tcp://::1:80", "a tcp address has a malformed host: write host:port, an IPv6 address in brackets, and special characters in a password percent-encoded"),
    ("tcp://[::g]:80", "a tcp address has a malformed IPv6 address in its brackets"),
    ("tcp://a b:80", "a tcp address has a malformed host name: letters, digits, '-' and '.' only"),
    ("tcp://a..b:80", "a tcp address has a malformed host name: letters, digits, '-' and '.' only"),
    ("tcp://é..b:80", "a tcp address has a host name that cannot be written in ASCII (IDNA)"),
    ("tcp://h:80/x", "a tcp address has nothing behind the port: write tcp://host:port and options after a '|'"),
    ("tcp://h:80?reconnect=true", "a tcp address has nothing behind the port: write tcp://host:port and options after a '|'"),
    ("tcp://u:p@h:80", "a tcp address takes no user and password: write tcp://host:port"),
    ("tcp://h\n:80", "a tcp address must be one line without control characters"),
    ("ws://h\ud800", "a ws address must be valid text: it holds half of a surrogate pair"),
    ("ws://h/p#x", "a ws address has no '#' part: write %23 for a '#' that belongs to it"),
    ("ws://%ff@h", "a ws address has a user or password whose percent-escapes are not UTF-8 text"),
    ("unix://", "a unix address needs the path of a socket, such as unix:///path/to/socket"),
    ("mqtt://h", "an mqtt address needs 'topic' or 'write_topic': write mqtt://host?topic=name"),
    ("nats://h", "a nats address needs 'topic', 'stream' or 'write_topic': write nats://host?topic=name"),
    ("amqp://h/", "an amqp address needs 'queue', 'exchange', 'routing_key' or 'write_topic': write amqp://user:password@host/?queue=name"),
    ("kafka://h", "a kafka address needs 'topic' or 'write_topic': write kafka://host/topic"),
    ("kafka://h/a?topic=b", "a kafka address names its topic twice: write it in the path alone"),
    ("mqtt://h/t", "an mqtt address has no path: write mqtt://host?topic=name"),
    ("mqtt://h?topik=t", "unknown option 'topik': did you mean 'topic'"),
    ("mqtt://h?topic=t&qos=3", "parameter 'qos' does not take '3': use a whole number from 0 to 2"),
    ("mqtt://h?topic=t&retain=x", "parameter 'retain' does not take 'x': use true or false"),
    ("sqlite3://", "the sqlite3 address is not valid (it names no file; :memory: is a database in memory): write it like sqlite3://file.db"),
    (
        "mysql://u:p@h",
        "the mysql address is not valid (invalid DSN: missing the slash separating the database name): "
        "write it like mysql://user:password@tcp(host:3306)/database",
    ),
    (
        "postgres://h:x/d",
        "the postgres address is not valid (invalid port after host): "
        "write it like postgres://user:password@host:5432/database",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), SENTENCES)
def test_sentence_of_a_slip(text: str, sentence: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address(text)
    assert str(caught.value) == sentence
    assert "\n" not in sentence
    assert ". " not in sentence


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"reconect": 1}, "unknown option 'reconect': did you mean 'reconnect'"),
        ({5: 1}, "unknown option '5': see `trunkline dial --help` for the options there are, and write & in a value as %26"),
        ({"interval": True}, "option 'interval' does not take 'True': use milliseconds as a whole number from 1 to 86400000"),
        ({"payload": b"\xff"}, "option 'payload' does not take a value: use text, UTF-8 bytes, or a dict that JSON can hold"),
        ({"payload": 5}, "option 'payload' does not take a value: use text, UTF-8 bytes, or a dict that JSON can hold"),
        ({"headers": {"A": "x\r\nB: y"}}, "option 'headers' does not take a value: use a dict, JSON text of one, or lines of 'Name: value'"),
        ({"headers": {"A b": "x"}}, "option 'headers' does not take a value: use a dict, JSON text of one, or lines of 'Name: value'"),
        ({"cafile": 5}, "option 'cafile' does not take '5': use text of one line"),
    ],
)  # fmt: skip
def test_sentence_of_a_slip_beside_the_address(options: Any, sentence: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address("wss://h", options)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("wsss", "did you mean 'wss'"),
        ("mqqt", "did you mean 'mqtt'"),
        ("http", "did you mean 'ws'"),
        ("https", "did you mean 'wss'"),
        ("sqlite", "did you mean 'sqlite3'"),
        ("postgre", "did you mean 'postgres'"),
        ("quic", f"use one of {', '.join(SCHEMES)}"),
    ],
)
def test_unknown_scheme_names_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UnknownScheme) as caught:
        parse_address(f"{name}://h")
    assert str(caught.value) == f"unknown scheme '{name}': {hint}"


def test_address_must_be_text() -> None:
    with pytest.raises(TypeError, match="an address is text, not int"):
        parse_address(5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "host", "port", "user", "password"),
    [
        ("socks5://name:pwd@192.168.0.1:1080", "192.168.0.1", 1080, "name", "pwd"),
        ("socks5://u:p%40%2F%3A@h", "h", 1080, "u", "p@/:"),
        ("socks5h://h:9999", "h", 9999, None, None),
        ("http://[::1]:3128/", "::1", 3128, None, None),
        ("https://u@h:1", "h", 1, "u", None),
        ("socks4://u@h", "h", 1080, "u", None),
        ("socks4a://h", "h", 1080, None, None),
        ("socks5%3A%2F%2Fu%3Ap%40h%3A1", "h", 1, "u", "p"),
    ],
)
def test_proxy(text: str, host: str, port: int, user: str | None, password: str | None) -> None:
    proxy = parse_address(f"tcp://t:1|proxy={text}").options["proxy"]
    assert (proxy.host, proxy.port, proxy.user, proxy.password) == (host, port, user, password)
    assert Proxy.parse(proxy.url) == proxy
