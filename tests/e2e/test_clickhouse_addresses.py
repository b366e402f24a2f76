"""What a clickhouse address says is in force, as the server itself tells, or refused."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trunkline
from tests.servers.clickhouse import ClickHouse
from tests.support.statements import rows
from trunkline.errors import AddressError, DialError, OutcomeUnknown
from trunkline.testing.faultproxy import FaultProxy

CASES = json.loads((Path(__file__).parents[1] / "data" / "dsn_cases.json").read_text())


WHO = "SELECT user, currentDatabase() FROM system.processes WHERE query LIKE '%currentDatabase%' LIMIT 1"


def setting(db: trunkline.Connection, name: str) -> str:
    [[value]] = rows(db, "SELECT value FROM system.settings WHERE name = ?", name)
    return str(value)


def test_the_forms_of_an_address_reach_the_same_place(clickhouse: ClickHouse) -> None:
    place = clickhouse.address
    for address in (
        f"clickhouse://tcp://{place}?username=u&password=p&database=system",
        f"clickhouse://u:p@{place}/system",
        f"clickhouse://{place}/default?username=u&password=p&database=system",
        f"clickhouse://tcp://u:p@{place}/system",
    ):
        with trunkline.connect(address, linger=0.2) as db:
            assert rows(db, WHO) == [["u", "system"]]


def test_the_defaults_are_those_of_clickhouse_go(clickhouse: ClickHouse) -> None:
    with trunkline.connect(f"clickhouse://{clickhouse.address}", linger=0.2) as db:
        assert rows(db, WHO) == [["default", "default"]]


@pytest.mark.parametrize(
    ("query", "name", "value"),
    [
        ("max_threads=3", "max_threads", "3"),
        ("use_uncompressed_cache=true", "use_uncompressed_cache", "1"),
        ("distributed_product_mode=LOCAL", "distributed_product_mode", "local"),
        ("max_execution_time=60", "max_execution_time", "60"),
    ],
)
def test_settings_are_in_force_also_after_the_server_has_closed_the_link(
    clickhouse: ClickHouse, query: str, name: str, value: str
) -> None:
    with trunkline.connect(
        f"clickhouse://u:p@{clickhouse.address}/default?{query}", linger=0.2
    ) as db:
        assert setting(db, name) == value
        with pytest.raises(trunkline.StatementError):
            db.exec("SELCT 1")
        assert setting(db, name) == value
        with db.query("SELECT value FROM system.settings WHERE name = ?", name) or [] as found:
            assert list(found) == [[value]]


def test_block_size_is_that_of_inserts(clickhouse: ClickHouse) -> None:
    table = f"b{uuid.uuid4().hex[:12]}"
    apart = "min_insert_block_size_rows=1&min_insert_block_size_bytes=1"  # the server does not join them
    address = f"clickhouse://u:p@{clickhouse.address}/default?block_size=10&{apart}"
    with trunkline.connect(address, linger=0.2) as db:
        # this engine keeps the blocks as they come
        db.exec(f"CREATE TABLE {table} (a UInt8) ENGINE = Memory")
        assert db.executemany(f"INSERT INTO {table} VALUES", [(n,) for n in range(35)]) == {
            "columns": [],
            "values": [],
            "affected": 35,
        }
        found = rows(db, f"SELECT DISTINCT blockSize() FROM {table}")
        assert sorted(found) == [[5], [10]]


@pytest.mark.parametrize("method", ["lz4", "lz4hc", "zstd", "true", "none"])
def test_compression_is_used(clickhouse: ClickHouse, method: str) -> None:
    with FaultProxy(clickhouse.port) as proxy:
        address = f"clickhouse://u:p@127.0.0.1:{proxy.port}/default?compress={method}"
        with trunkline.connect(address, linger=0.2) as db:
            assert (
                len(rows(db, "SELECT 'xxxxxxxxxx' AS x FROM system.numbers LIMIT 100000"))
                == 100_000
            )
            assert (proxy.taken("down") < 100_000) == (method != "none")


def test_tls_is_verified_and_may_be_told_not_to(clickhouse: ClickHouse) -> None:
    place, ca = f"127.0.0.1:{clickhouse.ports['tls']}", clickhouse.certs.ca
    with pytest.raises(DialError, match="not trusted"):
        trunkline.connect(f"clickhouse://u:p@{place}/default?secure=true")
    for rest in (
        "?secure=true&skip_verify=true",
        "?secure",
        "?secure=true&tls_server_name=localhost",
    ):
        options = "" if "skip" in rest else f"|cafile={ca}"
        with trunkline.connect(
            f"clickhouse://u:p@{place}/default{rest}{options}", linger=0.2
        ) as db:
            assert rows(db, "SELECT 1") == [[1]]
    with pytest.raises(DialError, match="not trusted"):
        trunkline.connect(
            f"clickhouse://u:p@{place}/default?secure=true&tls_server_name=elsewhere|cafile={ca}"
        )


def test_a_plain_port_and_a_tls_port_are_told_apart(clickhouse: ClickHouse) -> None:
    with pytest.raises(DialError, match="TLS"):
        trunkline.connect(
            f"clickhouse://u:p@127.0.0.1:{clickhouse.port}/default?secure=true", timeout=5
        )
    with pytest.raises(DialError, match="secure=true"):
        trunkline.connect(
            f"clickhouse://u:p@127.0.0.1:{clickhouse.ports['tls']}/default", timeout=5
        )


def test_the_name_of_the_client_is_seen_by_the_server(clickhouse: ClickHouse) -> None:
    address = f"clickhouse://u:p@{clickhouse.address}/default?client_info_product=desk/7"
    with trunkline.connect(address, linger=0.2) as db:
        found = rows(
            db, "SELECT client_name FROM system.processes WHERE query LIKE '%client_name%'"
        )
        assert ["ClickHouse trunkline desk/7"] in found


def test_the_first_server_that_answers_is_taken(
    clickhouse: ClickHouse, start_server: Callable[..., Any]
) -> None:
    gone = start_server(ClickHouse)
    gone.kill()
    address = f"clickhouse://u:p@{gone.address}/system?alt_hosts={clickhouse.address}"
    for strategy in ("in_order", "round_robin", "random", "time_random"):
        with trunkline.connect(f"{address}&connection_open_strategy={strategy}", linger=0.2) as db:
            assert rows(db, "SELECT currentDatabase()") == [["system"]]


def test_read_timeout_ends_a_silence(clickhouse: ClickHouse) -> None:
    address = f"clickhouse://u:p@{clickhouse.address}/default?read_timeout=300ms"
    with trunkline.connect(address, linger=0.2) as db:
        with pytest.raises(OutcomeUnknown, match="in time"):
            db.exec("SELECT sleep(2)")
        assert rows(db, "SELECT 1") == [[1]]


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        ("?no_such_setting=1", "no setting 'no_such_setting'"),
        ("?max_threads=many", "settings of the address: max_threads takes no .many."),
        ("?compress=gzip", "over HTTP only"),
        ("?http_path=/x", "http_path"),
    ],
)
def test_what_the_server_or_the_protocol_does_not_have_is_told_at_once(
    clickhouse: ClickHouse, rest: str, reason: str
) -> None:
    with pytest.raises(DialError, match=reason):
        trunkline.connect(f"clickhouse://u:p@{clickhouse.address}/default{rest}")


def test_http_is_refused_with_what_to_write_instead(clickhouse: ClickHouse) -> None:
    with pytest.raises(DialError, match="native port"):
        trunkline.connect(f"clickhouse://http://127.0.0.1:{clickhouse.ports['http']}/default")


def test_a_refused_login_names_no_secret(clickhouse: ClickHouse) -> None:
    with pytest.raises(DialError) as refused:
        trunkline.connect(f"clickhouse://u:s3cr3t@{clickhouse.address}/default")
    assert "s3cr3t" not in str(refused.value)
    assert refused.value.code == 193


def test_what_clickhouse_go_refuses_is_refused_at_once() -> None:
    invalid = [
        case["dial"] for case in CASES if case["scheme"] == "clickhouse" and not case["valid"]
    ]
    tried = 0
    for dial in filter(None, invalid):
        with contextlib.suppress(AddressError):
            trunkline.parse_address(dial)
            continue  # the other of the two grammars takes it
        with pytest.raises(AddressError) as caught:
            trunkline.connect(dial)
        assert "p@" not in str(caught.value)
        tried += 1
    assert tried
