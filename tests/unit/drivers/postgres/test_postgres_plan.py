"""What a postgres address means for psycopg2: every parameter, and nothing that the address does not say."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from trunkline.actors.driver import FatalError
from trunkline.actors.drivers.postgres.plan import (
    PARAMETERS,
    connect_arguments,
    connect_seconds,
    forget_environment,
)
from trunkline.address import parse_address, postgres
from trunkline.deadline import Deadline

CASES: list[dict[str, Any]] = [
    case
    for case in json.loads(
        (Path(__file__).parents[3] / "data" / "dsn_cases.json").read_text("utf-8")
    )
    if case["scheme"] == "postgres" and case["valid"] and case["dial"]
]
REFUSED = ("sslinline=yes", "krbspn", "krbsrvname")


def plan(text: str, **environ: str) -> dict[str, str]:
    return connect_arguments(parse_address(f"postgres://{text}", environ=environ))[1]


def test_every_parameter_of_libpq_and_pq_has_a_use() -> None:
    place = set(postgres._PLACE)
    assert set(PARAMETERS) == postgres._KNOWN - place


@pytest.mark.parametrize("case", CASES, ids=lambda case: ascii(case["dsn"])[:80])
def test_every_valid_address_gives_what_libpq_takes_or_a_reason(case: dict[str, Any]) -> None:
    address = parse_address(
        case["dial"], environ=dict(pair.split("=", 1) for pair in case.get("env", ()))
    )
    if any(word in case["dsn"] for word in REFUSED) or "service" in address.params:
        with pytest.raises(FatalError):
            connect_arguments(address)
        return
    found = connect_arguments(address)[1]
    assert parse_dsn(make_dsn(**found)) == found
    expected = case["expect"]
    hosts = expected.get("hosts") or [{"host": expected["host"], "port": expected["port"]}]
    assert found["host"].split(",") == [host["host"] for host in hosts]
    assert found["port"].split(",") == [str(host["port"]) for host in hosts]
    assert found["password"] == (expected.get("password") or "")
    assert found["dbname"] == (expected.get("database") or "")
    assert found["client_encoding"] == "UTF8"


@pytest.mark.parametrize(
    ("text", "keyword", "value"),
    [
        ("h/d", "host", "h"),
        ("", "host", "localhost"),
        ("host=/run/pg", "host", "/run/pg"),
        ("host=/run/pg", "sslmode", "disable"),
        ("a,b?port=1,2", "port", "1,2"),
        ("a,,b?hostaddr=1.1.1.1,,2.2.2.2", "hostaddr", "1.1.1.1,,2.2.2.2"),
        ("a,,b?hostaddr=1.1.1.1,,2.2.2.2", "host", "a,localhost,b"),
        ("h?hostaddr=127.0.0.1", "hostaddr", "127.0.0.1"),
        ("user=x dbname=A database=B", "dbname", "B"),
        ("u:p%40s@h/d", "password", "p@s"),
        ("h/d", "password", ""),
        ("h/d?passfile=/pw", "passfile", "/pw"),
        ("h/d?options=-c%20a%3Db", "options", "-c a=b"),
        ("h/d?application_name=x", "application_name", "x"),
        ("h/d?fallback_application_name=x", "fallback_application_name", "x"),
        ("h/d", "fallback_application_name", "trunkline"),
        ("h/d", "sslmode", "prefer"),
        ("h/d?sslmode=require", "sslmode", "require"),
        ("h/d?sslrootcert=system", "sslmode", "verify-full"),
        ("h/d?sslrootcert=/ca", "sslrootcert", "/ca"),
        ("h/d?sslcert=/c&sslkey=/k", "sslcert", "/c"),
        ("h/d?sslcert=/c&sslkey=/k", "sslkey", "/k"),
        ("h/d?sslsni=no", "sslsni", "0"),
        ("h/d?sslsni=t", "sslsni", "1"),
        ("h/d?sslmode=require&sslnegotiation=direct", "sslnegotiation", "direct"),
        ("h/d?ssl_min_protocol_version=TLSv1.3", "ssl_min_protocol_version", "TLSv1.3"),
        ("h/d?ssl_max_protocol_version=TLSv1.2", "ssl_max_protocol_version", "TLSv1.2"),
        ("h/d?target_session_attrs=read-write", "target_session_attrs", "read-write"),
        ("h/d?load_balance_hosts=random", "load_balance_hosts", "random"),
        ("h/d?require_auth=scram-sha-256", "require_auth", "scram-sha-256"),
        ("h/d?client_encoding=utf-8", "client_encoding", "UTF8"),
        ("h/d|cafile=/ca", "sslrootcert", "/ca"),
        ("h/d|cafile=/ca", "sslmode", "verify-full"),
        ("h/d?sslmode=require|cafile=/ca", "sslmode", "require"),
        ("h/d|certfile=/c&keyfile=/k", "sslcert", "/c"),
        ("h/d|certfile=/c&keyfile=/k", "sslkey", "/k"),
        ("h/d|insecureSkipVerify=true", "sslmode", "require"),
        ("h/d", "keepalives_idle", "15"),
        ("h/d", "gssencmode", "disable"),
    ],
)
def test_a_parameter_reaches_libpq_as(text: str, keyword: str, value: str) -> None:
    assert plan(text)[keyword] == value


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("h/d", {}),
        ("h/d?search_path=a,b&work_mem=1MB", {"search_path": "a,b", "work_mem": "1MB"}),
        ("search_path='a b\\\\c'", {"search_path": "a b\\c"}),
        ("h/d?options=-c%20x%3D1&work_mem=2", {"work_mem": "2"}),
        ("h/d?tz=UTC", {"timezone": "UTC"}),
        ("h/d?tz=UTC&timezone=Europe/Berlin", {"timezone": "Europe/Berlin"}),
        ("h/d?geqo=off", {"geqo": "off"}),
        ("datestyle='ISO, MDY'", {"datestyle": "ISO, MDY"}),
    ],
)
def test_settings_of_the_server_are_none_of_libpqs_options(
    text: str, settings: dict[str, str]
) -> None:
    _, arguments, found = connect_arguments(parse_address(f"postgres://{text}", environ={}))
    assert found == settings
    assert arguments["options"] == ("-c x=1" if "options" in text else "")


def test_what_is_settled_while_a_connection_begins_goes_as_options() -> None:
    _, arguments, found = connect_arguments(
        parse_address("postgres://h/d?post_auth_delay=1", environ={})
    )
    assert (found, arguments["options"]) == ({}, "-c post_auth_delay=1")


@pytest.mark.parametrize(
    "text",
    [
        "binary_parameters=yes",
        "disable_prepared_binary_result=yes",
        "max_protocol_version=latest",
        "min_protocol_version=3.0",
        "sslinline=no",
    ],
)
def test_what_libpq_has_no_need_of_changes_nothing(text: str) -> None:
    assert plan(f"h/d?{text}") == plan("h/d")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("h/d?sslinline=yes", "as paths"),
        ("h/d?krbspn=x", "Kerberos"),
        ("h/d?min_protocol_version=3.2", "3.0"),
        ("h/d?sslrootcert=/ca|cafile=/ca", "both"),
        ("h/d?sslmode=disable|cafile=/ca", "no use"),
        ("h/d?sslmode=verify-full|insecureSkipVerify=true", "drop one"),
        ("h/d|cafile=/ca&insecureSkipVerify=true", "drop one"),
    ],
)
def test_what_cannot_be_had_is_refused_with_a_reason(text: str, part: str) -> None:
    with pytest.raises(FatalError, match=part):
        plan(text)


def test_without_a_user_it_is_the_systems() -> None:
    assert plan("h/d")["user"] == pwd.getpwuid(os.geteuid()).pw_name
    assert plan("h/d", PGUSER="e")["user"] == "e"


# the worker's environment


def test_each_variable_of_libpq_is_covered_by_a_keyword_or_taken_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The list is libpq's, from its documentation of 17."""
    given = plan("h/d?connect_timeout=1")
    keywords = """host hostaddr port dbname user password passfile channel_binding options application_name
        sslmode sslcompression sslcert sslkey sslcertmode sslrootcert sslcrl sslcrldir sslsni requirepeer
        sslnegotiation ssl_min_protocol_version ssl_max_protocol_version gssencmode krbsrvname gsslib
        gssdelegation client_encoding target_session_attrs load_balance_hosts"""
    assert set(keywords.split()) <= set(given)
    gone = ("PGSERVICE", "PGSERVICEFILE", "PGREQUIREAUTH", "PGTZ", "PGDATESTYLE", "PGGEQO")
    for name in gone:
        monkeypatch.setenv(name, "x")
    forget_environment()
    assert not set(gone) & set(os.environ)


# time


@pytest.mark.parametrize(
    ("text", "left", "expected"),
    [
        ("h/d", 30.5, 29),
        ("h/d", None, 0),
        ("h/d?connect_timeout=3", 30, 3),
        ("h/d?connect_timeout=3", 1.5, 1),
        ("h/d?connect_timeout=0", 30.5, 29),
        ("h/d?connect_timeout=-1", None, 0),
        ("h/d", 0.2, 1),
        ("a,b,c/d", 30, 9),
    ],
)
def test_the_smaller_of_both_timeouts_counts(text: str, left: float | None, expected: int) -> None:
    assert (
        connect_seconds(parse_address(f"postgres://{text}", environ={}), Deadline(left)) == expected
    )


# service files


@pytest.fixture
def services(tmp_path: Path) -> Path:
    path = tmp_path / "services"
    path.write_text(
        "# ours\n[other]\nhost=elsewhere\n\n[svc]\nhost=svchost\nport=7\n"
        "password=it's \\ secret\nsearch_path=s\n[more]\nuser=m\n[broken]\nuser m\n[wrong]\nport=x\n[last]\n"
    )
    return path


def test_a_service_wins_over_what_stands_beside_it(services: Path) -> None:
    found = plan(f"service=svc servicefile={services} host=dsnhost user=me dbname=d work_mem=1")
    assert (found["host"], found["port"], found["user"], found["dbname"]) == (
        "svchost",
        "7",
        "me",
        "d",
    )
    assert found["password"] == "it's \\ secret"
    _, _, settings = connect_arguments(
        parse_address(
            f"postgres://service=svc servicefile={services} host=dsnhost work_mem=1", environ={}
        )
    )
    assert settings == {"work_mem": "1", "search_path": "s"}
    found = plan(f"service=more servicefile={services} host=a,b port=1,2 user=me")
    assert (found["host"], found["port"], found["user"]) == ("a,b", "1,2", "m")


def test_the_service_may_come_from_the_callers_environment(services: Path) -> None:
    assert plan("h/d", PGSERVICE="svc", PGSERVICEFILE=str(services))["host"] == "svchost"


@pytest.mark.parametrize(
    ("service", "part"),
    [
        ("none", "there is no service none"),
        ("broken", "line 13 .* is not key=value"),
        ("wrong", "the service wrong is not valid"),
    ],
)
def test_a_service_that_cannot_be_used_is_refused(services: Path, service: str, part: str) -> None:
    with pytest.raises(FatalError, match=part):
        plan(f"service={service} servicefile={services}")


def test_an_empty_service_changes_nothing(services: Path) -> None:
    text = "host=a,b hostaddr=1.1.1.1,2.2.2.2 user=me"
    assert plan(f"{text} service=last servicefile={services}") == plan(text)
    text = "host=/run/pg password='a\\'b'"
    assert plan(f"{text} service=last servicefile={services}") == plan(text)


def test_a_service_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FatalError, match="gone"):
        plan(f"service=x servicefile={tmp_path}/gone")
