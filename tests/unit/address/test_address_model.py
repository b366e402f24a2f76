"""The Address value: hosts, ports, display, travelling, and files made absolute."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path

import msgpack
import pytest

from trunkline.address import Address, parse_address

ADDRESSES = [
    "tcp://h:1",
    "unix://@abstract",
    'wss://u:p@h/p?a=b|reconnect=true&payload={"a":1}&payload=x&subprotocols=a,b&headers={"A":"b"}',
    "wss://h|proxy=socks5://u:p%40@[::1]:1&timeout=2.5",
    "nats://token@a,b:1?topic=t",
    "kafka://a,b/t?group=g",
    "mqtts://u:p@h?topic=t&qos=1",
    "sqlite3://file:a.db?mode=rwc&_fk=1",
    "mysql://u:p@tcp(h:1)/d?parseTime=true&a=1",
    "postgres://u:p@a,b/d?search_path=x",
    "clickhouse://u:p@a,b:1/d?max_threads=1&client_info_product=a/1",
]


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_address_is_the_same_after_a_journey(text: str) -> None:
    address = parse_address(text, environ={})
    packed = msgpack.packb(address.to_wire())
    assert Address.from_wire(msgpack.unpackb(packed)) == address


def test_an_address_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse_address("tcp://h:1").host = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("ws://h", 80),
        ("WSS://h", 443),
        ("mqtt://h?topic=t", 1883),
        ("mqtts://h?topic=t", 8883),
        ("nats://h?topic=t", 4222),
        ("tls+nats://h?topic=t", 4222),
        ("amqp://h?queue=q", 5672),
        ("amqps://h?queue=q", 5671),
        ("kafka://h/t", 9092),
        ("mysql://u@tcp(h)/", 3306),
        ("postgresql://h", 5432),
        ("clickhouse://h", 9000),
        ("ws://h:", 80),
    ],
)
def test_default_port(text: str, port: int) -> None:
    assert parse_address(text, environ={}).port == port


@pytest.mark.parametrize(
    ("text", "host", "target"),
    [
        ("tcp://[::1]:80", "::1", "tcp://[::1]:80"),
        ("tcp://[fe80::1%25eth0]:80/", "fe80::1%eth0", "tcp://[fe80::1%eth0]:80"),
        (
            "ws://münchen.example/ü p",
            "xn--mnchen-3ya.example",
            "ws://xn--mnchen-3ya.example/%C3%BC%20p",
        ),
        ("wss://u:p@h_1.example.:8443", "h_1.example.", "wss://h_1.example.:8443"),
        ("  ws://h/p  ", "h", "ws://h/p"),
        ("ws://h?", "h", "ws://h?"),
    ],
)
def test_host_and_target(text: str, host: str, target: str) -> None:
    address = parse_address(text)
    assert (address.host, address.target) == (host, target)


def test_absent_is_none_or_empty() -> None:
    address = parse_address("unix://s")
    assert (address.net, address.host, address.port, address.user, address.password) == (
        "unix",
        None,
        None,
        None,
        None,
    )
    assert (address.database, address.params, address.options, address.hosts) == (None, {}, {}, ())
    assert parse_address("wss://u@h").password is None
    assert parse_address("wss://u:@h").password == ""
    assert parse_address("wss://h?a=1&b=&c").params == {"a": "1", "b": "", "c": ""}


@pytest.mark.parametrize(
    ("text", "display"),
    [
        ("wss://u:p@h/p/q?token=x|reconnect=true", "wss://h:443/p/q"),
        ("tcp://[::1]:80", "tcp://[::1]:80"),
        ("unix:///run/s", "unix:///run/s"),
        ("nats://tok@h?topic=t", "nats://h:4222?topic=t"),
        ("kafka://h/t", "kafka://h:9092/t"),
        ("mysql://u:p@tcp(h:1)/d", "mysql://h:1/d"),
        ("mysql://u:p@unix(/run/m)/d", "mysql:///run/m"),
        ("mysql://u:p@other(somewhere)/d", "mysql://somewhere/d"),
        ("postgres://host=/run dbname=d", "postgres:///run/.s.PGSQL.5432"),
        ("sqlite3://file:a.db?_auth_pass=x", "sqlite3://a.db"),
        ("sqlite3://:memory:", "sqlite3://:memory:"),
        (f"wss://h/ws/{'a1' * 32}", "wss://h:443/ws/***"),
    ],
)
def test_display(text: str, display: str) -> None:
    assert parse_address(text, environ={}).display == display


@pytest.mark.parametrize(
    ("text", "path", "target"),
    [
        ("sqlite3://a.db", "/home/u/a.db", "/home/u/a.db"),
        ("sqlite3://a.db?_fk=1", "/home/u/a.db", "/home/u/a.db?_fk=1"),
        ("sqlite3:///x/a.db?_fk=1", "/x/a.db", "/x/a.db?_fk=1"),
        ("sqlite3://file:a%20b.db?mode=ro", "/home/u/a b.db", "file:/home/u/a%20b.db?mode=ro"),
        ("sqlite3://:memory:", "", ":memory:"),
        ("sqlite3://file:x?mode=memory&cache=shared", "", "file:x?mode=memory&cache=shared"),
        ("unix://run/s", "/home/u/run/s", "unix:///home/u/run/s"),
        ("unix:///run/s", "/run/s", "unix:///run/s"),
        ("unix://@s", "@s", "unix://@s"),
    ],
)
def test_relative_files_are_the_callers(text: str, path: str, target: str) -> None:
    address = parse_address(text).resolved("/home/u")
    assert (address.path, address.target) == (path, target)
    again = address.resolved("/elsewhere")
    assert (again.path, again.target) == (path, target)


def test_relative_certificates_are_the_callers() -> None:
    address = parse_address("wss://h|cafile=ca.pem&keyfile=/k.pem").resolved("/home/u")
    assert address.options == {"cafile": "/home/u/ca.pem", "keyfile": "/k.pem"}


def test_relative_files_of_postgres_are_the_callers() -> None:
    text = "postgres://h/db?sslrootcert=ca.pem&sslcert=/c.pem&passfile=pw"
    assert parse_address(text, environ={}).resolved("/home/u").params == {
        "sslrootcert": "/home/u/ca.pem",
        "sslcert": "/c.pem",
        "passfile": "/home/u/pw",
    }
    for text in ("sslrootcert=system", "sslinline=yes&sslcert=PEM"):
        address = parse_address(f"postgres://h/db?{text}", environ={})
        assert address.resolved("/home/u") == address


@pytest.mark.parametrize(
    "dsn", ["a?b.db", "a.db?vfs=unix-none", "file:a.db?mode=rwc", "ü x.db?_fk=1"]
)
def test_a_resolved_file_opens_where_the_caller_is(dsn: str, tmp_path: Path) -> None:
    folder = tmp_path / "odd #? folder%20"
    folder.mkdir()
    fields = parse_address(f"sqlite3://{dsn}").resolved(str(folder)).extra
    link = sqlite3.connect(fields["name"], uri=fields["name_is_uri"])
    try:
        link.execute("CREATE TABLE t (a)")
    finally:
        link.close()
    assert [path.name for path in folder.iterdir()] == [Path(fields["file"]).name]
