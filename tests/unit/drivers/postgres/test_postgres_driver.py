"""The postgres driver on a real server: results, queries, bulk rows, transactions, cancelling, errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest

from tests.servers.postgres import Postgres
from tests.support.certs import Certs
from tests.support.postgres_side import ask, own_schema, until_runs
from tests.support.sockets import Peer, SocketServer
from tests.support.waiting import Background, until
from trunkline.actors.driver import FIRST_ROWS, FatalError, Result
from trunkline.actors.drivers.postgres.bulk import PAGE
from trunkline.actors.drivers.postgres.cancel import Canceller, cancel_functions
from trunkline.actors.drivers.postgres.driver import PostgresDriver
from trunkline.address import parse_address
from trunkline.deadline import Deadline
from trunkline.errors import ClosedError, DialError, DialTimeout, StatementError

Open = Callable[..., PostgresDriver]


@pytest.fixture
def schema(postgres: Postgres) -> Iterator[str]:
    with own_schema(postgres) as name:
        yield name


@pytest.fixture
def open_(postgres: Postgres, schema: str) -> Iterator[Open]:
    opened: list[PostgresDriver] = []

    def go(more: str = "", *, server: Postgres = postgres, login: str = "u:p@") -> PostgresDriver:
        text = f"postgres://{login}{server.address}/postgres?search_path={schema}{more}"
        driver = PostgresDriver(parse_address(text, environ={}))
        opened.append(driver)
        driver.open(Deadline(10))
        return driver

    yield go
    for driver in opened:
        driver.close()


@pytest.fixture
def driver(open_: Open) -> PostgresDriver:
    return open_()


def values(driver: PostgresDriver, sql: str, *binds: Any) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in driver.execute(sql, binds).values]


def refused(driver: PostgresDriver, sql: str, *binds: Any) -> StatementError:
    with pytest.raises(StatementError) as caught:
        driver.execute(sql, binds)
    assert "\n" not in str(caught.value)
    return caught.value


# results


def test_a_long_result_is_fetched_bit_by_bit(driver: PostgresDriver) -> None:
    result = driver.execute("SELECT generate_series(1, 1000) AS n", ())
    assert result.columns == ["n"]
    assert list(result.values) == [(n,) for n in range(1, FIRST_ROWS + 1)]
    assert result.rest is not None
    assert list(result.rest.fetch(2)) == [(65,), (66,)]
    assert len(result.rest.fetch(10_000)) == 1000 - FIRST_ROWS - 2
    assert list(result.rest.fetch(1)) == []
    result.rest.close()


def test_other_statements_run_while_a_result_is_not_read(driver: PostgresDriver) -> None:
    rest = driver.execute("SELECT generate_series(1, 1000)", ()).rest
    assert values(driver, "SELECT 1") == [(1,)]
    assert rest is not None
    assert len(rest.fetch(5)) == 5
    rest.close()
    rest.close()
    assert list(rest.fetch(5)) == []


@pytest.mark.parametrize(
    ("sql", "affected"),
    [
        ("INSERT INTO t VALUES (4), (5)", 2),
        ("INSERT INTO t VALUES (4), (5) RETURNING id", 2),
        ("UPDATE t SET id = id + 10", 3),
        ("DELETE FROM t WHERE id > 1", 2),
        ("WITH x AS (SELECT 1) DELETE FROM t", 3),
        ("SELECT * FROM t", None),
        ("CREATE TABLE other AS SELECT * FROM t", None),
        ("TRUNCATE t", None),
        ("SET work_mem = '1MB'", None),
        ("SELECT FROM t", None),
        ("-- nothing", None),
        ("", None),
    ],
)
def test_affected_counts_what_was_changed(
    driver: PostgresDriver, sql: str, affected: int | None
) -> None:
    driver.execute("CREATE TABLE t (id INT); INSERT INTO t VALUES (1), (2), (3)", ())
    result = driver.execute(sql, ())
    assert (result.affected, result.last_id) == (affected, None)


def test_merge_is_counted(driver: PostgresDriver) -> None:
    driver.execute("CREATE TABLE t (id INT)", ())
    result = driver.execute(
        "MERGE INTO t USING (VALUES (1), (2)) v(x) ON t.id = v.x WHEN NOT MATCHED THEN INSERT VALUES (x)",
        (),
    )
    assert result.affected == 2


# several statements


def test_several_statements_give_all_their_rows_and_the_last_count(driver: PostgresDriver) -> None:
    result = driver.execute(
        "CREATE TABLE t (id INT); SELECT 1 AS a; INSERT INTO t VALUES (1), (2); SELECT 2 AS b; SET geqo = 0",
        (),
    )
    assert (result.columns, list(result.values), result.affected) == (["a"], [(1,)], 2)
    assert result.more == [Result(["b"], [(2,)])]
    long = "SELECT generate_series(1, 500) AS n"
    result = driver.execute(f"{long}; SELECT 1; {long}", ())
    assert [len(each.values) for each in (result, *result.more)] == [500, 1, 500]
    assert result.rest is None


def test_several_statements_are_one_transaction(driver: PostgresDriver) -> None:
    driver.execute("CREATE TABLE t (id INT PRIMARY KEY)", ())
    assert refused(driver, "INSERT INTO t VALUES (1); INSERT INTO t VALUES (1)").code == "23505"
    assert not driver.in_transaction()
    assert values(driver, "SELECT count(*) FROM t") == [(0,)]


def test_several_statements_in_an_open_transaction_are_part_of_it(driver: PostgresDriver) -> None:
    driver.begin()
    driver.execute("CREATE TABLE t (id INT); INSERT INTO t VALUES (1)", ())
    assert driver.in_transaction()
    driver.rollback()
    assert refused(driver, "SELECT * FROM t").code == "42P01"


def test_a_text_with_its_own_transaction_runs_as_written(driver: PostgresDriver) -> None:
    driver.execute("BEGIN; CREATE TABLE t (id INT); COMMIT; INSERT INTO t VALUES (1)", ())
    assert not driver.in_transaction()
    assert values(driver, "SELECT * FROM t") == [(1,)]


def test_several_statements_take_no_values(driver: PostgresDriver) -> None:
    assert "run them one by one" in str(refused(driver, "CREATE TABLE t (id INT); SELECT ?", 1))
    assert refused(driver, "SELECT * FROM t").code == "42P01"


# placeholders


@pytest.mark.parametrize(
    ("sql", "binds", "expected"),
    [
        ("SELECT $2::text || $1 || $2", ("a", "b"), "bab"),
        ("SELECT ? || '?' || ? || '%s' -- ?", ("a", "b"), "a?b%s"),
        ("SELECT 5 % ?", (3,), 2),
        ("SELECT '5%'", (), "5%"),
        ("SELECT '{\"a\": 1}'::jsonb ?? ?", ("a",), True),
        ("SELECT '{\"a\": 1}'::jsonb ? 'a'", (), True),
        ("SELECT '{\"a\": 1}'::jsonb ?? 'a'", (), True),
        ("SELECT 2 IN ?", ((1, 2),), True),
        ("SELECT 2 = ANY(?)", ([1, 2],), True),
        ("SELECT ? - ?", (-1, -2), 1),
        ("SELECT 1;", (), 1),
        ("SELECT ?; -- end", (1,), 1),
    ],
)
def test_placeholders(
    driver: PostgresDriver, sql: str, binds: tuple[Any, ...], expected: Any
) -> None:
    assert values(driver, sql, *binds) == [(expected,)]


@pytest.mark.parametrize(
    ("sql", "binds", "part"),
    [
        ("SELECT ?", (1, 2), "1 placeholder and 2 values"),
        ("SELECT ?", ({"n": 1}.items(),), "no value for the type dict_items"),
        ("SELECT ?", ("a\0b",), "NUL"),
        ("SELECT 'a\0b'", (), "NUL"),
        ("SELECT ?", ("\ud800",), "surrogate"),
        ("SELECT '\ud800'", (), "surrogate"),
        ("SELECT ?::jsonb", ({"a": "\ud800"},), "surrogate"),
        ("SELECT ?::jsonb", ({"a": b"x"},), "JSON has no value for the type bytes"),
        ("SELECT ?", ({1},), "a set stands where one value does"),
        ("SELECT ?", ((),), "a tuple stands where one value does"),
        ("SELECT ?", (10**5000,), "cannot be sent"),
        ("COPY t FROM STDIN", (), "executemany"),
        ("COPY (SELECT 1) TO STDOUT", (), "executemany"),
        ("SELECT 1; COPY t FROM STDIN", (), "executemany"),
    ],
)
def test_what_cannot_be_sent_is_refused_in_one_sentence(
    driver: PostgresDriver, sql: str, binds: tuple[Any, ...], part: str
) -> None:
    assert part in str(refused(driver, sql, *binds))
    assert values(driver, "SELECT 1") == [(1,)]


def test_a_dict_alone_is_one_value(driver: PostgresDriver) -> None:
    assert list(driver.execute("SELECT ?::jsonb", {"a": 1}).values) == [({"a": 1},)]


def test_values_by_name_are_refused(driver: PostgresDriver) -> None:
    with pytest.raises(StatementError, match="in order"):
        driver.execute("SELECT :a, :b", {"a": 1, "b": 2})
    with pytest.raises(StatementError, match="in order"):
        driver.executemany("SELECT ?", [{"a": 1}])


@pytest.mark.parametrize(
    "sql",
    ["SET client_encoding TO 'LATIN1'", "SELECT set_config('client_encoding', 'LATIN1', false)"],
)
def test_the_encoding_of_the_session_stays(driver: PostgresDriver, sql: str) -> None:
    assert "UTF8" in str(refused(driver, sql))
    assert values(driver, "SELECT ?, 'ü'", "ä😀") == [("ä😀", "ü")]
    driver.begin()
    assert "UTF8" in str(refused(driver, sql))
    driver.commit()
    assert values(driver, "SHOW client_encoding") == [("UTF8",)]


def test_strings_with_backslashes_are_understood_or_refused(driver: PostgresDriver) -> None:
    assert values(driver, r"SELECT ?, E'\'?', '\', ?", "a\\'b", 1) == [("a\\'b", "'?", "\\", 1)]
    driver.execute("SET standard_conforming_strings = off", ())
    driver.execute("SET escape_string_warning = off", ())
    assert values(driver, "SELECT ?", "a\\'b") == [("a\\'b",)]
    text = r"SELECT 'a\' || ?, ' --"
    assert "standard_conforming_strings" in str(refused(driver, text, " OR 1=1"))
    with pytest.raises(StatementError, match="standard_conforming_strings"):
        driver.executemany(text, [["x"]])


# queries


def test_a_query_fetches_a_few_rows_at_a_time(driver: PostgresDriver) -> None:
    rows = driver.query("SELECT n, ? FROM generate_series(1, 1000) n -- all", ["x"])
    assert len(rows.columns) == 2
    assert list(rows.fetch(3)) == [(1, "x"), (2, "x"), (3, "x")]
    assert [n for n, _ in rows.fetch(500)] == list(range(4, 504))
    assert not driver.in_transaction()  # its own is not the user's
    assert [n for n, _ in rows.fetch(10_000)] == list(range(504, 1001))
    assert list(rows.fetch(1)) == []
    assert values(driver, "SELECT 1") == [(1,)]


def test_a_query_does_not_bring_all_rows_here(driver: PostgresDriver, postgres: Postgres) -> None:
    driver.execute("CREATE SEQUENCE seen", ())
    rows = driver.query("SELECT nextval('seen') FROM generate_series(1, 100000)", ())
    rows.fetch(1)
    rows.close()
    assert values(driver, "SELECT last_value < 10000 FROM seen") == [(True,)]


def test_statements_are_refused_while_a_query_of_the_transaction_is_open(
    driver: PostgresDriver,
) -> None:
    driver.begin()
    rows = driver.query("SELECT generate_series(1, 1000)", ())
    for call in (
        lambda: driver.execute("SELECT 1", ()),
        lambda: driver.query("SELECT 1", ()),
        lambda: driver.executemany("SELECT ?", [[1]]),
    ):
        with pytest.raises(StatementError, match="not all read"):
            call()
    rows.close()
    assert values(driver, "SELECT 1") == [(1,)]
    assert driver.in_transaction()
    driver.commit()


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_query_ends_with_its_transaction(driver: PostgresDriver, end: str) -> None:
    driver.begin()
    rows = driver.query("SELECT generate_series(1, 1000)", ())
    getattr(driver, end)()
    with pytest.raises(StatementError, match="transaction"):
        rows.fetch(1)
    rows.close()
    assert values(driver, "SELECT 1") == [(1,)]


def test_a_query_that_writes_is_kept(driver: PostgresDriver) -> None:
    driver.execute("CREATE TABLE t (id INT)", ())
    texts = (
        "INSERT INTO t SELECT generate_series(1, 100) RETURNING id",
        "WITH x AS (INSERT INTO t SELECT generate_series(101, 200) RETURNING id) SELECT id FROM x",
    )
    for text in texts:
        rows = driver.query(text, ())
        assert len(rows.fetch(70)) == 70
        rows.close()
    assert values(driver, "SELECT count(*) FROM t") == [(200,)]


@pytest.mark.parametrize(
    "text", ["SHOW work_mem", "EXPLAIN SELECT 1", "TABLE t", "VALUES (1)", "(SELECT 1)"]
)
def test_a_query_of_any_statement_gives_its_rows(driver: PostgresDriver, text: str) -> None:
    driver.execute("CREATE TABLE t (id INT); INSERT INTO t VALUES (1)", ())
    rows = driver.query(text, ())
    assert len(rows.fetch(10)) == 1
    rows.close()
    assert list(driver.query("CREATE TABLE other (id INT)", ()).fetch(10)) == []


def test_a_query_that_fails_on_the_way_leaves_nothing_open(driver: PostgresDriver) -> None:
    rows = driver.query("SELECT 1 / (500 - n) FROM generate_series(1, 1000) n", ())
    with pytest.raises(StatementError) as caught:
        rows.fetch(1000)
    assert caught.value.code == "22012"
    assert list(rows.fetch(5)) == []
    rows.close()
    with pytest.raises(StatementError):
        driver.query("SELECT nothing", ())
    assert values(driver, "SELECT 1") == [(1,)]
    driver.begin()
    with pytest.raises(StatementError):
        driver.query("SELECT nothing", ())
    assert driver.in_transaction()
    driver.rollback()


# many rows


@pytest.mark.parametrize(
    ("sql", "row"),
    [
        ("INSERT INTO t VALUES (?, ?, now())", lambda n: [n, f"%s {n} ?"]),
        (
            "INSERT INTO t (id, name) VALUES (?::int, lower(?)) RETURNING id",
            lambda n: [str(n), f"%s {n} ?"],
        ),
        ("INSERT INTO t (name, id) VALUES ($2, $1); -- ?", lambda n: (n, f"%s {n} ?")),
        (
            "INSERT INTO t (id, name) VALUES (?, ?) ON CONFLICT (id) DO NOTHING",
            lambda n: [n, f"%s {n} ?"],
        ),
        ("INSERT INTO t (id, name) SELECT ?, ?", lambda n: [n, f"%s {n} ?"]),
        (
            "INSERT INTO t (id, name) VALUES (?, ?), (-?, 'other')",
            lambda n: [n, f"%s {n} ?", n + 1],
        ),
        (
            "INSERT INTO t (id, name) VALUES (?, 'x') ON CONFLICT (id) DO UPDATE SET name = ?",
            lambda n: [n, "y"],
        ),
    ],
)
def test_many_rows_are_written(driver: PostgresDriver, sql: str, row: Callable[[int], Any]) -> None:
    driver.execute("CREATE TABLE t (id INT PRIMARY KEY, name TEXT, at TIMESTAMPTZ)", ())
    count = PAGE * 2 + 7
    result = driver.executemany(sql, [row(n) for n in range(count)])
    assert (result.columns, result.values) == ([], [])
    assert result.affected in (count, None)
    assert values(driver, "SELECT count(*), sum(id) FROM t WHERE id >= 0") == [
        (count, sum(range(count)))
    ]
    if "'x'" not in sql:
        assert values(
            driver, "SELECT count(*) FROM t WHERE id >= 0 AND name = '%s ' || id || ' ?'"
        ) == [(count,)]


def test_the_count_of_many_rows_is_that_of_all_pages(driver: PostgresDriver) -> None:
    driver.execute("CREATE TABLE t (id INT PRIMARY KEY)", ())
    sql = "INSERT INTO t VALUES (?) ON CONFLICT DO NOTHING"
    assert driver.executemany(sql, [[n // 2] for n in range(PAGE * 4)]).affected == PAGE * 2


@pytest.mark.parametrize("inside", [False, True])
def test_rows_with_the_same_key_update_one_after_the_other(
    driver: PostgresDriver, inside: bool
) -> None:
    driver.execute("CREATE TABLE t (id INT PRIMARY KEY, n INT)", ())
    if inside:
        driver.begin()
    sql = "INSERT INTO t VALUES (?, 1) ON CONFLICT (id) DO UPDATE SET n = t.n + 1"
    driver.executemany(sql, [[n % 3] for n in range(300)])
    assert driver.in_transaction() is inside
    assert values(driver, "SELECT * FROM t ORDER BY id") == [(0, 100), (1, 100), (2, 100)]
    if inside:
        driver.commit()


def test_many_updates_run_in_one_transaction(driver: PostgresDriver) -> None:
    driver.execute(
        "CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 500)", ()
    )
    with pytest.raises(StatementError) as caught:
        driver.executemany(
            "UPDATE t SET id = ? WHERE id = ?",
            [[n + 1000, n] for n in range(1, 500)] + [[1001, 500]],
        )
    assert caught.value.code == "23505"
    assert not driver.in_transaction()
    assert values(driver, "SELECT max(id) FROM t") == [(500,)]
    driver.executemany("UPDATE t SET id = ? WHERE id = ?", [[n + 1000, n] for n in range(1, 501)])
    assert values(driver, "SELECT min(id), max(id) FROM t") == [(1001, 1500)]


def test_many_rows_that_fail_are_none(driver: PostgresDriver) -> None:
    driver.execute("CREATE TABLE t (id INT PRIMARY KEY, name TEXT)", ())
    for rows in (
        [[n, "x"] for n in range(PAGE)] + [[0, "x"]],
        [[n, "x"] for n in range(PAGE)] + [[-1, "\0"]],
    ):
        with pytest.raises(StatementError):
            driver.executemany("INSERT INTO t VALUES (?, ?)", rows)
        assert not driver.in_transaction()
        assert values(driver, "SELECT count(*) FROM t") == [(0,)]


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("INSERT INTO t VALUES (?)", [[1], [1, 2]]),
        ("INSERT INTO t VALUES (?)", [[1], []]),
        ("SELECT ?; SELECT ?", [[1, 2]]),
        ("BEGIN", [[]]),
        ("COPY t FROM STDIN", [[]]),
        ("INSERT INTO t VALUES (?)", [1]),
    ],
)
def test_what_is_no_statement_for_many_rows_is_refused(
    driver: PostgresDriver, sql: str, rows: Any
) -> None:
    driver.execute("CREATE TABLE t (id INT)", ())
    with pytest.raises(StatementError):
        driver.executemany(sql, rows)
    assert values(driver, "SELECT count(*) FROM t") == [(0,)]


def test_no_rows_do_nothing(driver: PostgresDriver) -> None:
    assert driver.executemany("INSERT INTO nowhere VALUES (?)", []).affected == 0


# transactions


def test_a_failed_transaction_is_not_committed(driver: PostgresDriver) -> None:
    driver.begin()
    driver.execute("CREATE TABLE t (id INT)", ())
    assert refused(driver, "SELECT 1 / 0").code == "22012"
    assert driver.in_transaction()
    assert refused(driver, "SELECT 1").code == "25P02"
    with pytest.raises(StatementError, match="nothing was committed"):
        driver.commit()
    assert not driver.in_transaction()
    assert refused(driver, "SELECT * FROM t").code == "42P01"


def test_a_commit_as_a_statement_says_it_too(driver: PostgresDriver) -> None:
    driver.execute("BEGIN", ())
    refused(driver, "SELECT 1 / 0")
    assert "nothing was committed" in str(refused(driver, "COMMIT"))


def test_a_commit_that_the_server_refuses_is_told(driver: PostgresDriver) -> None:
    driver.execute("CREATE TABLE t (id INT UNIQUE DEFERRABLE INITIALLY DEFERRED)", ())
    driver.begin()
    driver.execute("INSERT INTO t VALUES (1), (1)", ())
    with pytest.raises(StatementError) as caught:
        driver.commit()
    assert caught.value.code == "23505"
    assert not driver.in_transaction()
    driver.rollback()


# cancelling, losing


def test_psycopgs_libpq_can_cancel_in_steps() -> None:
    """Cancelling stands on libpq 17 and on finding it through psycopg2's own module."""
    assert cancel_functions() is not None


def test_an_interrupt_ends_the_statement_on_the_server(
    driver: PostgresDriver, postgres: Postgres
) -> None:
    running = Background(lambda: driver.execute("SELECT pg_sleep(300), 'interrupt me'", ()))
    until_runs(postgres, "interrupt me")
    driver.interrupt()
    with pytest.raises(StatementError) as caught:
        running.result()
    assert caught.value.code == "57014"
    until_runs(postgres, "interrupt me", 0)
    assert values(driver, "SELECT 1") == [(1,)]


def test_an_interrupt_that_comes_too_late_stops_nothing(driver: PostgresDriver) -> None:
    for number in range(20):
        driver.interrupt()
        assert values(driver, "SELECT ?", number) == [(number,)]
    driver.begin()
    driver.interrupt()
    assert values(driver, "SELECT 1") == [(1,)]
    driver.rollback()


def test_an_interrupt_stops_bulk_rows_between_statements(
    driver: PostgresDriver, postgres: Postgres
) -> None:
    driver.execute("CREATE TABLE t (id INT)", ())
    sql = "INSERT INTO t VALUES (? + 0 * length(pg_sleep(0.01)::text))"
    running = Background(lambda: driver.executemany(sql, [[n] for n in range(100_000)]))
    until_runs(postgres, "0 * length")
    driver.interrupt()
    with pytest.raises(StatementError):
        running.result()
    assert values(driver, "SELECT count(*) FROM t") == [(0,)]


def test_an_interrupt_of_a_frozen_server_gives_up(start_server: Callable[..., Postgres]) -> None:
    server = start_server(Postgres)
    driver = PostgresDriver(parse_address(f"postgres://u:p@{server.address}/postgres", environ={}))
    driver.open(Deadline(10))
    running = Background(lambda: driver.execute("SELECT pg_sleep(300), 'freeze me'", ()))
    until_runs(server, "freeze me")
    server.freeze()
    try:
        driver.interrupt()  # the interpreter is free meanwhile, or nobody could abort
        assert running.running()
        driver.abort()
        with pytest.raises(ConnectionError):
            running.result()
    finally:
        server.thaw()
        driver.close()


def test_a_cancel_that_may_still_come_makes_the_link_a_dead_one(
    start_server: Callable[..., Postgres],
) -> None:
    server = start_server(Postgres)
    driver = PostgresDriver(parse_address(f"postgres://u:p@{server.address}/postgres", environ={}))
    driver.open(Deadline(10))
    server.freeze()
    driver.interrupt()
    server.thaw()
    assert not driver.alive()
    driver.close()


def test_a_closed_canceller_sends_nothing(driver: PostgresDriver) -> None:
    canceller = Canceller(driver._connection.pgconn_ptr)
    assert canceller.possible
    canceller.close()
    assert canceller.send(1)
    assert not canceller.possible


def test_a_link_that_the_server_ends_is_known_before_the_next_statement(
    driver: PostgresDriver, postgres: Postgres
) -> None:
    assert driver.alive()
    pid = values(driver, "SELECT pg_backend_pid()")[0][0]
    ask(postgres, "SELECT pg_terminate_backend(%s)", pid)
    until(lambda: not driver.alive(), "the end of the link")
    with pytest.raises(ConnectionError):
        driver.execute("SELECT 1", ())


def test_a_link_that_is_ended_in_a_statement_is_lost(
    driver: PostgresDriver, postgres: Postgres
) -> None:
    pid = values(driver, "SELECT pg_backend_pid()")[0][0]
    running = Background(lambda: driver.execute("SELECT pg_sleep(300), 'end me'", ()))
    until_runs(postgres, "end me")
    ask(postgres, "SELECT pg_terminate_backend(%s)", pid)
    with pytest.raises(ConnectionError):
        running.result()
    assert not driver.alive()
    assert not driver.in_transaction()


def test_a_closed_driver_says_so(driver: PostgresDriver) -> None:
    driver.close()
    driver.close()
    assert not driver.alive()
    assert not driver.in_transaction()
    driver.interrupt()
    driver.abort()
    with pytest.raises(ClosedError):
        driver.execute("SELECT 1", ())


def test_notifications_do_not_pile_up(driver: PostgresDriver) -> None:
    driver.execute("DO $$BEGIN EXECUTE 'LISTEN channel'; END$$", ())
    for _ in range(10):
        driver.execute("NOTIFY channel, 'x'", ())
    assert len(driver._connection.notifies) <= 1


def test_a_timeout_of_the_servers_own_is_a_refusal(open_: Open) -> None:
    driver = open_("&statement_timeout=50")
    assert refused(driver, "SELECT pg_sleep(300)").code == "57014"
    assert values(driver, "SELECT 1") == [(1,)]


# warnings, errors


def test_warnings_are_told_once_and_notices_not(driver: PostgresDriver) -> None:
    told: list[str] = []
    driver.warn = told.append  # type: ignore[method-assign]
    for _ in range(3):
        driver.execute("DO $$ BEGIN RAISE WARNING 'w1\nline 2'; RAISE NOTICE 'n1'; END $$", ())
    driver.execute("ROLLBACK", ())
    assert [text.partition("WARNING: ")[2] for text in told] == [
        "w1 line 2",
        "there is no transaction in progress",
    ]


def test_an_error_has_detail_and_hint_in_its_line(driver: PostgresDriver) -> None:
    driver.execute("CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1)", ())
    text = str(refused(driver, "INSERT INTO t VALUES (1)"))
    assert (
        text
        == 'duplicate key value violates unique constraint "t_pkey"; Key (id)=(1) already exists'
    )
    assert "hint: " in str(refused(driver, "SELECT 1 + 'a'::text"))


@pytest.mark.parametrize(
    ("more", "login", "part", "code"),
    [
        ("", "u:Secret1@", "password authentication failed", "28P01"),
        ("", "nobody:Secret1@", "password authentication failed", "28P01"),
        ("", "u@", "password", "28P01"),
        ("&dbname=nowhere", "u:p@", 'database "nowhere" does not exist', "3D000"),
        ("&nonsense=1", "u:p@", 'unrecognized configuration parameter "nonsense"', "42704"),
        ("&work_mem=x", "u:p@", "invalid value for parameter", "22023"),
        (
            "&sslmode=verify-full&sslrootcert=/gone",
            "u:p@",
            "does not exist: give sslrootcert",
            None,
        ),
        ("&require_auth=md5", "u:p@", "require_auth", None),
    ],
)
def test_a_login_that_can_never_work_is_refused(
    open_: Open, more: str, login: str, part: str, code: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSFILE", "/nowhere")
    with pytest.raises(FatalError) as caught:
        open_(more, login=login)
    assert part in str(caught.value)
    assert caught.value.code == code
    assert "Secret1" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "more",
    ["&host=/nowhere", "&host=nowhere.invalid", "&port=1", "&port=1,1&host=127.0.0.1,127.0.0.1"],
)
def test_a_server_that_is_not_there_may_come(open_: Open, more: str) -> None:
    with pytest.raises(DialError) as caught:
        open_(more)
    assert not isinstance(caught.value, FatalError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["disable", "prefer"])
@pytest.mark.parametrize(
    "banner", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"J\0\0\0\n5.5.5-10.11\0", b"\0\0\0\x08"]
)
def test_a_server_of_another_kind_is_told(banner: bytes, mode: str) -> None:
    def speak(peer: Peer) -> None:
        peer.sock.recv(100)
        peer.sock.sendall(banner)
        peer.sock.recv(100)

    with SocketServer(speak) as server:
        text = f"postgres://u:Secret1@127.0.0.1:{server.port}/d?sslmode={mode}"
        with pytest.raises(FatalError, match="is not a PostgreSQL server"):
            PostgresDriver(parse_address(text, environ={})).open(Deadline(10))


def test_a_server_that_says_nothing_is_given_up() -> None:
    done = threading.Event()
    with SocketServer(lambda peer: done.wait(20)) as server:
        try:
            text = f"postgres://u:Secret1@127.0.0.1:{server.port}/d"
            with pytest.raises(DialTimeout, match="did not answer"):
                PostgresDriver(parse_address(text, environ={})).open(Deadline(0.2))
        finally:
            done.set()


# TLS


@pytest.mark.parametrize(
    "how", ["?sslmode=verify-full&sslrootcert={ca}", "?sslmode=require", "|cafile={ca}", ""]
)
def test_tls_is_spoken(postgres: Postgres, certs: Certs, how: str) -> None:
    text = f"postgres://u:p@{postgres.address}/postgres{how.format(ca=certs.ca)}"
    driver = PostgresDriver(parse_address(text, environ={}))
    driver.open(Deadline(10))
    try:
        assert values(driver, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == [
            (True,)
        ]
        driver.interrupt()
        assert driver.alive()
    finally:
        driver.close()


def test_a_certificate_of_a_stranger_is_refused(postgres: Postgres, certs: Certs) -> None:
    address = parse_address(
        f"postgres://u:p@{postgres.address}/postgres|cafile={certs.stranger.cert}", environ={}
    )
    with pytest.raises(FatalError, match="certificate verify failed"):
        PostgresDriver(address).open(Deadline(10))


def test_a_unix_socket_is_dialled(postgres: Postgres) -> None:
    text = (
        f"postgres://host={postgres.folder} port={postgres.port} user=u password=p dbname=postgres"
    )
    driver = PostgresDriver(parse_address(text, environ={}))
    driver.open(Deadline(10))
    try:
        assert driver.peer == f"{postgres.folder}/.s.PGSQL.{postgres.port}"
        assert values(driver, "SELECT inet_server_addr() IS NULL") == [(True,)]
    finally:
        driver.close()


def test_the_workers_environment_changes_nothing(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone = ask(postgres, "SHOW timezone")[0][0]
    for name, value in {
        "PGHOST": "nowhere.invalid",
        "PGHOSTADDR": "127.1.1.1",
        "PGPORT": "1",
        "PGUSER": "x",
        "PGDATABASE": "x",
        "PGPASSWORD": "x",
        "PGOPTIONS": "-c work_mem=1MB",
        "PGAPPNAME": "x",
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": "/gone",
        "PGREQUIREAUTH": "md5",
        "PGTZ": "Asia/Tokyo",
        "PGDATESTYLE": "German",
        "PGGEQO": "off",
        "PGSERVICE": "x",
        "PGCLIENTENCODING": "LATIN1",
        "PGTARGETSESSIONATTRS": "standby",
        "PGSSLNEGOTIATION": "direct",
        "PGCHANNELBINDING": "require",
        "PGSSLMINPROTOCOLVERSION": "TLSv1.3",
        "PGCONNECT_TIMEOUT": "x",
    }.items():
        monkeypatch.setenv(name, value)
    driver = PostgresDriver(
        parse_address(f"postgres://u:p@{postgres.address}/postgres", environ={})
    )
    driver.open(Deadline(10))
    names = ("work_mem", "application_name", "timezone", "datestyle", "geqo", "client_encoding")
    try:
        assert {name: values(driver, f"SHOW {name}")[0][0] for name in names} == {
            "work_mem": "4MB",
            "application_name": "trunkline",
            "timezone": zone,
            "datestyle": "ISO, MDY",
            "geqo": "on",
            "client_encoding": "UTF8",
        }
    finally:
        driver.close()


def test_psycopg2_has_the_version_that_we_build_on() -> None:
    assert psycopg2.extensions.libpq_version() >= 170000
