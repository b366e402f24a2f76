"""Every case of `tests/data/dsn_cases.json`: what the Go drivers make of a DSN, so do we."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from trunkline.address import Address, clickhouse, mysql, parse_address, postgres, sqlite
from trunkline.address.golang import Dsn, DsnError
from trunkline.errors import AddressError

Case = dict[str, Any]

CASES: list[Case] = json.loads(
    (Path(__file__).parents[2] / "data" / "dsn_cases.json").read_text("utf-8")
)
# errors that only opening the file can tell
AT_OPEN = "unable to open database file"
OPTIONAL = (
    "system_variables",
    "runtime",
    "settings",
    "hosts",
    "hostaddr",
    "effective",
    "tls_server_name",
)


def _id(case: Case) -> str:
    name = "-".join(filter(None, (case["scheme"], case.get("driver"))))
    return f"{name}: {case['dsn']}"[:90].encode("ascii", "backslashreplace").decode()


def _environ(case: Case) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in case.get("env", ()))


def _parse(case: Case) -> Dsn:
    if case["scheme"] == "mysql":
        return mysql.parse(case["dsn"])
    if case["scheme"] == "postgres":
        return postgres.parse(case["dsn"], _environ(case))
    if case["scheme"] == "clickhouse":
        return clickhouse.parse(case["dsn"], case["driver"])
    return sqlite.parse(case["dsn"])


def _opens_late(case: Case) -> bool:
    return str(case.get("error", "")).startswith(AT_OPEN)


VALID = [case for case in CASES if case["valid"]]
REFUSED = [case for case in CASES if not case["valid"] and not _opens_late(case)]
LATE = [case for case in CASES if _opens_late(case)]
# one address has one meaning: of a DSN that the two ClickHouse drivers read differently, v2's counts
DIALLED = [case for case in VALID if case["dial"] is not None and case.get("driver") != "v1"]


def _without_dot(path: str) -> str:
    return path.removeprefix("./")


@pytest.mark.parametrize("case", VALID, ids=_id)
def test_go_parser_finds_the_same_fields(case: Case) -> None:
    found = _parse(case)
    for name, expected in case["expect"].items():
        actual = getattr(found, name) if name in Dsn.__slots__ else found.fields.get(name)
        assert actual == (_without_dot(expected) if name == "file" else expected), name
    for name in OPTIONAL:
        assert name in case["expect"] or not found.fields.get(name), name


@pytest.mark.parametrize("case", REFUSED, ids=_id)
def test_go_parser_refuses_with_the_same_sentence(case: Case) -> None:
    with pytest.raises(DsnError) as caught:
        _parse(case)
    # we never repeat the URL, nor a port or key that may be half a password; the driver forgets a quote
    expected = re.sub(r'^parse ".*": ', "", case["error"])
    expected = re.sub(r'invalid port ".*" after', "invalid port after", expected)
    expected = re.sub(r'(missing "=" after) ".*"', r'\1 "***"', expected)
    expected = expected.partition(": refused at connect")[0]
    assert str(caught.value).rstrip("'") == expected.rstrip("'")


@pytest.mark.parametrize("case", LATE, ids=_id)
def test_a_file_that_must_exist_is_refused_when_it_is_opened(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fields = parse_address(case["dial"]).extra
    with pytest.raises(sqlite3.OperationalError, match=AT_OPEN):
        sqlite3.connect(fields["name"], uri=fields["name_is_uri"])


@pytest.mark.parametrize("case", DIALLED, ids=_id)
def test_dial_address_means_the_same(case: Case) -> None:
    address = parse_address(case["dial"], environ=_environ(case))
    assert address.target == case["dsn"]
    assert address.scheme == case["scheme"]
    for name, expected in case["expect"].items():
        if name not in ("settings", "typed") or case["scheme"] != "clickhouse":
            _check(address, name, expected)


def _check(address: Address, name: str, expected: Any) -> None:
    if name in ("user", "password", "database") and expected == "" and address.scheme != "postgres":
        expected = None
    if name in ("password", "database") and expected == "":
        expected = None
    if name == "port" and expected is None and address.scheme == "clickhouse":
        expected = clickhouse.default_port(address.extra)
    if name == "hosts":
        default = address.port
        assert address.hosts == tuple((host["host"], host["port"] or default) for host in expected)
    elif name == "file":
        assert address.path == address.extra["file"] == _without_dot(expected)
    elif name in Address.__slots__:
        assert getattr(address, name) == expected, name
    else:
        assert address.extra.get(name) == expected, name


# v1 takes what v2 refuses here: a number of seconds
REFUSED_DIAL = [
    case
    for case in REFUSED
    if case["dial"] and case.get("driver") != "v1" and "read_timeout=10" not in case["dsn"]
]


@pytest.mark.parametrize("case", REFUSED_DIAL, ids=_id)
def test_dial_address_that_go_refuses_is_an_address_error(case: Case) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address(case["dial"], environ=_environ(case))
    assert str(caught.value).startswith(f"the {case['scheme']} address is not valid (")


def test_every_case_is_used() -> None:
    assert len(VALID) + len(REFUSED) + len(LATE) == len(CASES)
    assert len(LATE) == 2


@pytest.mark.parametrize(
    ("dsn", "host", "port", "user", "password", "database"),
    [
        ("u:p@h:3306/db", "h", 3306, "u", "p", "db"),
        ("u:p%40%2Fx@h/db", "h", 3306, "u", "p@/x", "db"),
        ("u:p@h:3307/db?parseTime=true", "h", 3307, "u", "p", "db"),
        ("u@[::1]:3306/", "::1", 3306, "u", None, None),
        ("u:p@[::1]/db", "::1", 3306, "u", "p", "db"),
        ("db.example.com/x%2Fy", "db.example.com", 3306, None, None, "x/y"),
    ],
)
def test_mysql_takes_plain_urls_that_go_refuses(
    dsn: str, host: str, port: int, user: str | None, password: str | None, database: str | None
) -> None:
    with pytest.raises(DsnError, match="default addr for network"):
        mysql.parse(dsn)
    address = parse_address(f"mysql://{dsn}")
    assert (address.host, address.port) == (host, port)
    assert (address.user, address.password, address.database) == (user, password, database)


@pytest.mark.parametrize(
    "dsn", ["net()/", "user:pw@tcp6/db", "udp/db", "u:p@h host/db", "u:p@h:x/db"]
)
def test_mysql_plain_urls_do_not_reach_what_go_means_otherwise(dsn: str) -> None:
    with pytest.raises(AddressError, match="default addr for network"):
        parse_address(f"mysql://{dsn}")


def test_clickhouse_address_takes_the_words_of_both_drivers() -> None:
    address = parse_address(
        "clickhouse://tcp://u:p@h1:9000/db?read_timeout=10&dial_timeout=1500ms&alt_hosts=h2:9001"
        "&write_timeout=20&max_threads=4&insecure=true&secure=1"
    )
    assert (address.user, address.password, address.database) == ("u", "p", "db")
    assert address.hosts == (("h1", 9000), ("h2", 9001))
    assert address.extra["settings"] == {"max_threads": 4}
    assert address.extra["typed"] == {
        "read_timeout_seconds": 10.0,
        "dial_timeout_seconds": 1.5,
        "write_timeout_seconds": 20.0,
        "skip_verify": True,
        "secure": True,
    }


@pytest.mark.parametrize(
    ("text", "port"),
    [("h", 9000), ("h/db?secure=true", 9440), ("http://h/", 8123), ("h:1234", 1234)],
)
def test_clickhouse_default_port(text: str, port: int) -> None:
    assert parse_address(f"clickhouse://{text}").port == port


def test_clickhouse_misspelt_secure_is_not_plain() -> None:
    with pytest.raises(AddressError, match="secure"):
        parse_address("clickhouse://tcp://h:9000?secure=yes")


@pytest.mark.parametrize(
    ("address", "part"),
    [
        ("clickhouse://h?dial_timeout=10", 'missing unit in duration "10"'),
        ("clickhouse://[127.0.0.1]:9000", "invalid IP-literal"),
        ("clickhouse://[::1]:9000,[host]:9000", "invalid IP-literal"),
        ("postgres://[127.0.0.1]:5432/d", "invalid IP-literal"),
        ("postgres://h1:5432,h2:5432/d", "h1,h2/db?port=5432,5433"),
        ("postgres://h1:5432,h2/d", "invalid port after host"),
        ("postgres://[::1]:5432,[::2]:5432/d", "invalid IP-literal"),
        ("sqlite3://x.db?_pragma=foreign_keys(1);DROP", "semicolon"),
        ("sqlite3://x.db?_pragma=foreign_keys(1)%3BDROP", "Invalid _pragma"),
        ("sqlite3://x.db?_pragma=", "Invalid _pragma"),
    ],
)
def test_what_go_refuses_is_refused(address: str, part: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address(address)
    assert part in str(caught.value)


def test_what_go_takes_is_taken() -> None:
    assert parse_address("postgres://host=h require_auth=").params["require_auth"] == ""
    assert parse_address("clickhouse://[::1]:9000").host == "::1"
    assert parse_address("postgres://[fe80::1%25lo]:5432/d").host == "fe80::1%lo"
    assert parse_address("clickhouse://h?timeout=10").extra["typed"] == {"timeout_seconds": 10.0}


def test_an_ignored_sqlite_parameter_has_a_line_with_the_nearest_name() -> None:
    ignored = parse_address(
        "sqlite3://x.db?journal_mode=WAL&_foriegn_keys=1&mode=ro&_fk=1&zz=1"
    ).extra["ignored"]
    assert [
        next((part for part in ("_journal_mode", "_foreign_keys", "file:") if part in line), None)
        for line in ignored
    ] == ["_journal_mode", "_foreign_keys", "file:", None]
    assert parse_address("sqlite3://file:x.db?mode=ro&cache=shared&_fk=1").extra["ignored"] == []


def test_postgres_environment_is_under_the_dsn() -> None:
    environ = {"PGHOST": "envhost", "PGPORT": "7", "PGUSER": "envuser", "PGPASSWORD": "envpw"}
    address = parse_address("postgres://user=me dbname=d", environ=environ)
    assert (address.host, address.port, address.user, address.password) == (
        "envhost",
        7,
        "me",
        "envpw",
    )
    with pytest.raises(AddressError, match="PGREQUIRESSL"):
        parse_address("postgres://h/d", environ={"PGREQUIRESSL": "1"})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h2m3.5s", 3723.5),
        ("0", 0),
        ("-1.5h", -5400),
        (".5s", 0.5),
        ("100us", 1e-4),
        ("1µs", 1e-6),
    ],
)
def test_go_duration(text: str, seconds: float) -> None:
    found = mysql.parse(f"/db?timeout={text}").fields["typed"]["timeout_seconds"]
    assert found == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "1", "1x", "1s2", ".s", "1.2.3s", "999999999h", "+", "1 s"]
)
def test_go_duration_refused(text: str) -> None:
    with pytest.raises(DsnError, match="time: "):
        mysql.parse(f"/db?timeout={text}")
