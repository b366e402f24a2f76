"""postgres, addresses: what they say is in force at the server, which is asked."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import trunkline
from tests.servers.postgres import Postgres
from tests.support.certs import Certs
from tests.support.postgres_side import ask, own_schema
from tests.support.statements import rows
from trunkline.errors import AddressError, DialError, TrunklineError


def value(address: str, sql: str) -> Any:
    with trunkline.connect(address, linger=0.2) as conn:
        return rows(conn, sql)[0][0]


def setting(name: str) -> str:
    return f"SELECT current_setting('{name}')"


TLS = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.mark.parametrize(
    "form",
    [
        "postgres://user=u dbname=postgres sslmode=disable password=p host=localhost port={port}",
        "postgres://user='u' password = p host=127.0.0.1 port={port} database=postgres",
        "postgres://u:p@localhost:{port}/postgres?sslmode=disable",
        "postgresql://u:p@127.0.0.1:{port}/postgres",
        "postgres://u:%70@localhost/postgres?port={port}",
        "postgres://u:p@/postgres?host={folder}&port={port}",
        "postgres://u:p@nowhere.invalid:{port}/postgres?hostaddr=127.0.0.1",
        "postgres://u:p@127.0.0.1,127.0.0.1/postgres?port=1,{port}",
        "postgres://u:p@127.0.0.1,127.0.0.1/postgres?port=1,{port}&target_session_attrs=read-write",
    ],
)
def test_each_form_is_dialled(postgres: Postgres, form: str) -> None:
    address = form.format(port=postgres.port, folder=postgres.folder)
    assert value(address, "SELECT current_user || ' ' || current_database()") == "u postgres"


@pytest.mark.parametrize(
    ("params", "sql", "expected"),
    [
        ("", setting("client_encoding"), "UTF8"),
        ("client_encoding=utf-8", setting("client_encoding"), "UTF8"),
        ("", setting("datestyle"), "ISO, MDY"),
        ("datestyle=ISO,+MDY", setting("datestyle"), "ISO, MDY"),
        ("search_path=a,pg_temp", setting("search_path"), "a,pg_temp"),
        ("search_path=%22a+b%22", setting("search_path"), '"a b"'),
        ("work_mem=123kB", setting("work_mem"), "123kB"),
        ("statement_timeout=4567", setting("statement_timeout"), "4567ms"),
        ("my.setting=a%5Cb+c%27d", setting("my.setting"), "a\\b c'd"),
        ("timezone=Asia/Tokyo", setting("timezone"), "Asia/Tokyo"),
        ("tz=Asia/Tokyo", setting("timezone"), "Asia/Tokyo"),
        ("geqo=off", setting("geqo"), "off"),
        ("options=-c%20geqo%3Doff%20-c%20work_mem%3D99kB", setting("work_mem"), "99kB"),
        ("application_name=my+app", setting("application_name"), "my app"),
        ("fallback_application_name=fall", setting("application_name"), "fall"),
        ("", setting("application_name"), "trunkline"),
        ("default_transaction_read_only=on", setting("transaction_read_only"), "on"),
        ("sslmode=disable", TLS, False),
        ("sslmode=allow", TLS, False),
        ("sslmode=prefer", TLS, True),
        ("sslmode=require", TLS, True),
        ("", TLS, True),
        ("sslmode=verify-ca&sslrootcert={ca}", TLS, True),
        ("sslmode=verify-full&sslrootcert={ca}", TLS, True),
        (
            "sslmode=require&ssl_max_protocol_version=TLSv1.2",
            "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
            "TLSv1.2",
        ),
        (
            "sslmode=require&ssl_min_protocol_version=TLSv1.3",
            "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
            "TLSv1.3",
        ),
        (
            "sslcert={cert}&sslkey={key}&sslmode=require",
            TLS,
            True,
        ),
        ("require_auth=scram-sha-256", "SELECT 1", 1),
        ("target_session_attrs=primary&load_balance_hosts=random", "SELECT 1", 1),
        (
            "binary_parameters=yes&disable_prepared_binary_result=yes&connect_timeout=9&sslsni=0",
            "SELECT 1",
            1,
        ),
    ],
)
def test_a_parameter_is_in_force(
    postgres: Postgres, certs: Certs, params: str, sql: str, expected: Any
) -> None:
    files = {"ca": certs.ca, "cert": certs.client.cert, "key": certs.client.key}
    assert (
        value(f"postgres://u:p@{postgres.address}/postgres?{params.format(**files)}", sql)
        == expected
    )


def test_statements_are_committed_one_by_one(postgres: Postgres) -> None:
    with own_schema(postgres) as schema:
        address = f"postgres://u:p@{postgres.address}/postgres?search_path={schema}"
        with (
            trunkline.connect(address, linger=0.2) as one,
            trunkline.connect(address, linger=0.2) as other,
        ):
            one.exec("CREATE TABLE t (id INT)")
            one.exec("INSERT INTO t VALUES (1)")
            assert rows(other, "SELECT * FROM t") == [[1]]


@pytest.mark.parametrize(
    ("params", "part"),
    [
        ("?sslmode=verify-full&sslrootcert={stranger}", "certificate verify failed"),
        ("?sslmode=verify-ca&sslrootcert=/gone/ca.pem", "does not exist"),
        ("|cafile={stranger}", "certificate verify failed"),
        ("?require_auth=none", "require_auth"),
        ("?sslmode=require&sslnegotiation=direct", ""),
        ("?min_protocol_version=3.2", "3.0"),
        ("?sslinline=yes", "as paths"),
    ],
)
def test_what_protects_the_connection_is_kept_or_refused(
    postgres: Postgres, certs: Certs, params: str, part: str
) -> None:
    address = f"postgres://u:Secret1@{postgres.address}/postgres{params.format(stranger=certs.stranger.cert)}"
    with pytest.raises(DialError) as caught:
        trunkline.connect(address)
    assert part in str(caught.value)
    assert "Secret1" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("password", ["a'b\\ c", "p@:/?#%", "50% +1", "=x|y", "pässword 😀", " x "])
def test_any_password_can_be_written(postgres: Postgres, password: str) -> None:
    name = f"user{uuid.uuid4().hex[:12]}"
    ask(postgres, f"CREATE USER {name} PASSWORD %s", password)
    pair = password.replace("\\", "\\\\").replace("'", "\\'")
    try:
        for address in (
            f"postgres://{name}:{quote(password, safe='')}@{postgres.address}/postgres",
            f"postgres://host=127.0.0.1 port={postgres.port} user={name} password='{pair}' dbname=postgres||",
        ):
            assert value(address, "SELECT current_user") == name
    finally:
        ask(postgres, f"DROP USER {name}")


def test_a_server_of_another_role_is_refused(postgres: Postgres) -> None:
    with pytest.raises(DialError, match="standby"):
        trunkline.connect(
            f"postgres://u:p@{postgres.address}/postgres?target_session_attrs=standby"
        )


def test_an_invalid_address_is_no_dial() -> None:
    with pytest.raises(AddressError) as caught:
        trunkline.connect("postgres://u:Secret1@h/d?sslmode=sslmeharder")
    assert "Secret1" not in str(caught.value)


def test_files_are_the_callers(
    postgres: Postgres, certs: Certs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(certs.ca.parent)
    more = f"sslmode=verify-full&sslrootcert={certs.ca.name}"
    assert value(f"postgres://u:p@{postgres.address}/postgres?{more}", TLS) is True


def test_the_environment_is_the_callers(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(postgres.port),
        "PGUSER": "u",
        "PGPASSWORD": "p",
        "PGDATABASE": "postgres",
        "PGTZ": "Asia/Tokyo",
        "PGAPPNAME": "mine",
    }.items():
        monkeypatch.setenv(name, text)
    sql = "SELECT current_setting('timezone') || ' ' || current_setting('application_name')"
    assert value("postgres://", sql) == "Asia/Tokyo mine"


def test_a_password_file_is_read(postgres: Postgres, tmp_path: Path) -> None:
    path = tmp_path / "pw"
    path.touch(mode=0o600)
    path.write_text(f"127.0.0.1:{postgres.port}:*:u:p\n")
    assert value(f"postgres://u@{postgres.address}/postgres?passfile={path}", "SELECT 1") == 1
    path.write_text("127.0.0.1:*:*:u:Wrong1\n")
    with pytest.raises(TrunklineError, match="password authentication failed") as caught:
        trunkline.connect(f"postgres://u@{postgres.address}/postgres?passfile={path}")
    assert "Wrong1" not in str(caught.value)


def test_a_service_is_dialled(postgres: Postgres, tmp_path: Path) -> None:
    path = tmp_path / "services"
    path.write_text(
        f"[mine]\nhost=127.0.0.1\nport={postgres.port}\nuser=u\npassword=p\ndbname=postgres\n"
    )
    assert (
        value(f"postgres://service=mine servicefile={path} work_mem=99kB", setting("work_mem"))
        == "99kB"
    )
