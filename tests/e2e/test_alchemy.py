"""SQLAlchemy's engines on Trunkline's connections: the same tests on each database, on a shared handle."""

from __future__ import annotations

import multiprocessing
import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql
from sqlalchemy.pool import QueuePool, SingletonThreadPool

import trunkline
from tests.servers.mariadb import MariaDb
from tests.servers.postgres import Postgres
from tests.support.waiting import until
from trunkline import dbapi
from trunkline.errors import OperationTimeout

SPAWN = multiprocessing.get_context("spawn")
WAIT_S = 30.0


class Model:
    """Classes mapped to tables whose names nobody else has."""

    def __init__(self) -> None:
        class Base(orm.DeclarativeBase):
            pass

        suffix = uuid.uuid4().hex[:12]

        class Owner(Base):
            __tablename__ = f"owner_{suffix}"
            id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
            name: orm.Mapped[str] = orm.mapped_column(sa.String(50), unique=True)
            orders: orm.Mapped[list[Order]] = orm.relationship(order_by="Order.id")

        class Order(Base):
            __tablename__ = f"order_{suffix}"
            id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
            owner_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey(f"owner_{suffix}.id"))
            price: orm.Mapped[float]

        # the annotation above is looked up by name
        Base.registry._class_registry["Order"] = Order
        self.Base, self.Owner, self.Order = Base, Owner, Order


class Engines:
    """`address` is a fixture of the subclass."""

    backend: ClassVar[str]
    level: ClassVar[str]
    """Of isolation, such as may be asked for."""

    @pytest.fixture
    def base(self, address: str) -> Iterator[trunkline.Connection]:
        with trunkline.connect(address, linger=0.2) as base:
            yield base

    @pytest.fixture
    def engine(self, base: trunkline.Connection) -> Iterator[sa.Engine]:
        number = handle(base)
        engine = sa.create_engine(
            f"{self.backend}+trunkline://", creator=lambda: dbapi.connect(number)
        )
        yield engine
        engine.dispose()

    @pytest.fixture
    def numbers(self, engine: sa.Engine) -> sa.Table:
        """A table with an `id` that counts by itself, and `n`."""
        id_column = sa.Column("id", sa.Integer, primary_key=True)
        name = f"n{uuid.uuid4().hex[:12]}"
        table = sa.Table(name, sa.MetaData(), id_column, sa.Column("n", sa.Integer, unique=True))
        table.create(engine)
        return table

    def test_the_engine_knows_its_server(self, engine: sa.Engine) -> None:
        with engine.connect() as conn:
            assert conn.scalar(sa.select(sa.literal("x"))) == "x"
        assert engine.dialect.name == self.backend
        assert engine.dialect.driver == "trunkline"
        assert engine.dialect.server_version_info
        assert isinstance(engine.pool, QueuePool)

    def test_objects_are_inserted_loaded_changed_and_deleted(self, engine: sa.Engine) -> None:
        model = Model()
        model.Base.metadata.create_all(engine)
        with orm.Session(engine) as session:
            owner = model.Owner(name="a", orders=[model.Order(price=1.5), model.Order(price=2.5)])
            session.add(owner)
            session.flush()
            assert owner.id is not None
            session.add_all([model.Owner(name=f"b{n}") for n in range(20)])
            session.commit()
            key = owner.id
        with orm.Session(engine) as session:
            found = session.get(model.Owner, key)
            assert found is not None
            assert [order.price for order in found.orders] == [1.5, 2.5]
            found.name = "changed"
            session.delete(found.orders[0])
            session.commit()
            assert session.scalar(sa.select(sa.func.count()).select_from(model.Order)) == 1
            assert session.scalars(
                sa.select(model.Owner.name).where(model.Owner.id == key)
            ).all() == ["changed"]
            session.add(model.Owner(name="b1"))
            with pytest.raises(sa.exc.IntegrityError):
                session.flush()
            session.rollback()
            with session.begin_nested():
                session.add(model.Owner(name="kept"))
            nested = session.begin_nested()
            session.add(model.Owner(name="undone"))
            session.flush()
            nested.rollback()
            session.commit()
            names = session.scalars(sa.select(model.Owner.name)).all()
            assert "kept" in names
            assert "undone" not in names
        model.Base.metadata.drop_all(engine)

    def test_tables_are_reflected(self, engine: sa.Engine) -> None:
        model = Model()
        model.Base.metadata.create_all(engine)
        inspector = sa.inspect(engine)
        owner, order = model.Owner.__tablename__, model.Order.__tablename__
        assert inspector.has_table(owner)
        assert not inspector.has_table("nowhere_to_be_found")
        assert {owner, order} <= set(inspector.get_table_names())
        assert [column["name"] for column in inspector.get_columns(order)] == [
            "id",
            "owner_id",
            "price",
        ]
        assert inspector.get_pk_constraint(order)["constrained_columns"] == ["id"]
        (key,) = inspector.get_foreign_keys(order)
        assert (key["constrained_columns"], key["referred_table"]) == (["owner_id"], owner)
        assert inspector.get_unique_constraints(owner)[0]["column_names"] == ["name"]
        loaded = sa.Table(order, sa.MetaData(), autoload_with=engine)
        assert isinstance(loaded.c.owner_id.type, sa.Integer)
        model.Base.metadata.drop_all(engine)
        assert not sa.inspect(engine).has_table(owner)

    def test_what_is_not_committed_is_undone(self, engine: sa.Engine, numbers: sa.Table) -> None:
        with engine.connect() as conn:
            conn.execute(numbers.insert(), {"n": 1})
        with pytest.raises(ZeroDivisionError), engine.begin() as conn:  # noqa: PT012 (the block is what is tested)
            conn.execute(numbers.insert(), {"n": 2})
            raise ZeroDivisionError
        with engine.begin() as conn:
            conn.execute(numbers.insert(), [{"n": n} for n in range(10, 1010)])
        with engine.connect() as conn:
            assert conn.scalar(sa.select(sa.func.count()).select_from(numbers)) == 1000

    def test_an_insert_tells_the_key_it_made(self, engine: sa.Engine, numbers: sa.Table) -> None:
        with engine.begin() as conn:
            first = conn.execute(numbers.insert(), {"n": 5}).inserted_primary_key
            second = conn.execute(numbers.insert(), {"n": 6}).inserted_primary_key
            assert first is not None
            assert second is not None
            assert second[0] == first[0] + 1
            found = conn.execute(sa.select(numbers).where(numbers.c.id == second[0])).one()
            assert tuple(found) == (second[0], 6)

    def test_connections_go_back_to_the_pool_with_nothing_open(
        self, engine: sa.Engine, base: trunkline.Connection, numbers: sa.Table
    ) -> None:
        for n in range(3):
            with engine.connect() as conn:
                conn.execute(numbers.insert(), {"n": n})
                with pytest.raises(OperationTimeout):
                    base.exec(f"SELECT count(*) FROM {numbers.name}", timeout=100)
            found = base.exec(f"SELECT count(*) FROM {numbers.name}", timeout=10_000)
            assert found is not None
            assert found["values"] == [[0]]
        assert isinstance(engine.pool, QueuePool)
        assert (engine.pool.checkedin(), engine.pool.checkedout()) == (1, 0)

    def test_reading_connections_are_in_nobodys_way(
        self, engine: sa.Engine, numbers: sa.Table
    ) -> None:
        with engine.connect() as one, engine.connect() as two:
            assert one.execute(sa.select(numbers)).all() == []
            two.execute(numbers.insert(), {"n": 1})
            two.commit()
            assert one.scalar(sa.select(numbers.c.n)) == 1

    def test_autocommit(self, engine: sa.Engine, numbers: sa.Table) -> None:
        with engine.connect() as conn:
            auto = conn.execution_options(isolation_level="AUTOCOMMIT")
            auto.execute(numbers.insert(), {"n": 1})
            assert auto.get_isolation_level()
        with engine.connect() as conn:
            conn.execute(numbers.insert(), {"n": 2})
            conn.rollback()
            assert conn.scalars(sa.select(numbers.c.n)).all() == [1]

    def test_an_engine_may_have_a_level_and_look_before_it_leaps(
        self, base: trunkline.Connection, numbers: sa.Table
    ) -> None:
        number = handle(base)
        for level in ("AUTOCOMMIT", self.level):
            engine = sa.create_engine(
                f"{self.backend}+trunkline://",
                creator=lambda: dbapi.connect(number),
                isolation_level=level,
                pool_pre_ping=True,
            )
            for _ in range(2):
                with engine.connect() as conn:
                    assert (conn.get_isolation_level() == level) == (level != "AUTOCOMMIT")
                    conn.execute(numbers.insert(), {"n": None})
                with engine.connect() as conn:
                    auto = conn.execution_options(isolation_level="AUTOCOMMIT")
                    assert auto.scalar(sa.select(sa.literal(1))) == 1
            engine.dispose()
        found = base.exec(f"SELECT count(*) FROM {numbers.name}")
        assert found is not None
        assert found["values"] == [[2]]

    def test_several_objects_are_changed_at_once_and_one_that_is_gone_is_told(
        self, engine: sa.Engine, numbers: sa.Table
    ) -> None:
        class Number:
            id: int
            n: int

        orm.registry().map_imperatively(Number, numbers)
        with engine.begin() as conn:
            conn.execute(numbers.insert(), [{"id": key, "n": key} for key in (1, 2, 3)])
        with orm.Session(engine, expire_on_commit=False) as session:
            found = session.scalars(sa.select(Number).order_by(numbers.c.id)).all()
            for each in found:
                each.n = each.id + 100
            session.commit()
            with engine.begin() as conn:
                assert conn.scalars(sa.select(numbers.c.n).order_by(numbers.c.id)).all() == [
                    101,
                    102,
                    103,
                ]
                conn.execute(numbers.delete().where(numbers.c.id == 2))
            for each in found:
                each.n = each.id + 200
            with pytest.raises(orm.exc.StaleDataError):
                session.commit()
        with engine.begin() as conn:
            assert conn.scalars(sa.select(numbers.c.n).order_by(numbers.c.id)).all() == [101, 103]
            change = (
                numbers.update()
                .where(numbers.c.id == sa.bindparam("key"))
                .values(n=sa.bindparam("to"))
            )
            changed = conn.execute(change, [{"key": key, "to": key} for key in (1, 2, 3)])
            assert changed.rowcount == 2
            assert (
                conn.execute(
                    numbers.delete().where(numbers.c.id == sa.bindparam("key")),
                    [{"key": 1}, {"key": 9}],
                ).rowcount
                == 1
            )

    def test_streamed_results(self, engine: sa.Engine, numbers: sa.Table) -> None:
        with engine.begin() as conn:
            conn.execute(numbers.insert(), [{"n": n} for n in range(3000)])
        with engine.connect().execution_options(stream_results=True) as conn:
            result = conn.execute(sa.select(numbers.c.n).order_by(numbers.c.n))
            assert [len(part) for part in result.partitions(1000)] == [1000, 1000, 1000]
            result = conn.execute(sa.select(numbers.c.n).order_by(numbers.c.n))
            assert result.fetchmany(2) == [(0,), (1,)]
            result.close()
            assert conn.scalar(sa.select(sa.func.count()).select_from(numbers)) == 3000

    def test_errors_are_sqlalchemys_with_ours_below(
        self, engine: sa.Engine, numbers: sa.Table
    ) -> None:
        with engine.connect() as conn:
            with pytest.raises(sa.exc.ProgrammingError) as caught:
                conn.execute(sa.text("SELECT * FROM nowhere_to_be_found"))
            assert isinstance(caught.value.orig, dbapi.ProgrammingError)
            assert not caught.value.connection_invalidated
            conn.rollback()
            conn.execute(numbers.insert(), {"n": 1})
            with pytest.raises(sa.exc.IntegrityError):
                conn.execute(numbers.insert(), {"n": 1})

    types: ClassVar[list[tuple[Any, Any]]] = [
        (sa.BigInteger(), 1 << 62),
        (sa.Float(53), 1.25),
        (sa.Boolean(), True),
        (sa.String(100), "größer 'als' ? 😀 %s :x"),
        (sa.LargeBinary(), bytes(range(256))),
        (sa.Date(), date(2024, 2, 29)),
        (sa.DateTime(), datetime(2024, 2, 29, 12, 30, 45)),
        (sa.Time(), time(12, 30, 45)),
        (sa.Interval(), timedelta(days=3, seconds=5)),
        (sa.Uuid(), uuid.UUID(int=1 << 100)),
        (sa.JSON(), {"a": [1, 2.5, None, "x"], "b": {"c": True}}),
        (sa.Enum("red", "green", name="colour_of_trunkline"), "green"),
    ]

    def test_json_columns_keep_lists_and_dicts(self, engine: sa.Engine) -> None:
        table = sa.Table(f"j{uuid.uuid4().hex[:12]}", sa.MetaData(), sa.Column("doc", sa.JSON))
        table.create(engine)
        with engine.begin() as connection:
            for value in ([], [1], {}, {"a": [None]}):
                connection.execute(table.insert(), {"doc": value})
            found = [row.doc for row in connection.execute(sa.select(table))]
        assert found == [[], [1], {}, {"a": [None]}]

    def test_values_come_back_as_they_went(self, engine: sa.Engine) -> None:
        columns = [sa.Column(f"c{index}", kind) for index, (kind, _) in enumerate(self.types)]
        key = sa.Column("id", sa.Integer, primary_key=True)
        name = f"v{uuid.uuid4().hex[:12]}"
        table = sa.Table(name, sa.MetaData(), key, *columns, mysql_charset="utf8mb4")
        table.create(engine, checkfirst=True)
        given = {column.name: value for column, (_, value) in zip(columns, self.types, strict=True)}
        with engine.begin() as conn:
            conn.execute(table.insert(), {"id": 1, **given})
            conn.execute(table.insert(), {"id": 2, **dict.fromkeys(given)})
            full, empty = conn.execute(sa.select(*columns).order_by(key)).mappings().all()
            assert dict(full) == given
            assert [type(value) for value in full.values()] == [
                type(value) for value in given.values()
            ]
            assert set(empty.values()) == {None}
            for column in columns:
                if not isinstance(column.type, (sa.JSON, sa.Float)):
                    found = conn.scalars(sa.select(key).where(column == given[column.name])).all()
                    assert found == [1], column.type
        table.drop(engine)

    def test_engines_of_threads_and_processes_share_a_handle(
        self, base: trunkline.Connection, engine: sa.Engine, numbers: sa.Table
    ) -> None:
        with engine.begin() as conn:
            conn.execute(numbers.insert(), {"n": 0})
        arguments = (self.backend, handle(base), numbers.name, 10)
        with (
            ProcessPoolExecutor(2, mp_context=SPAWN) as processes,
            ThreadPoolExecutor(2) as threads,
        ):
            jobs = [
                pool.submit(count, *arguments) for pool in (processes, threads) for _ in range(2)
            ]
            for job in jobs:
                job.result(WAIT_S)
        with engine.connect() as conn:
            assert conn.scalars(sa.select(numbers.c.n)).all() == [40]


def count(backend: str, number: int, name: str, times: int) -> None:
    """Write, read, write in one transaction: any statement of another in between would lose a count."""
    engine = sa.create_engine(f"{backend}+trunkline://", creator=lambda: dbapi.connect(number))
    table = sa.table(name, sa.column("n"))
    for _ in range(times):
        with engine.begin() as conn:
            conn.execute(table.update().values(n=table.c.n))
            n = conn.scalar(sa.select(table.c.n))
            assert n is not None
            conn.execute(table.update().values(n=n + 1))
    engine.dispose()


class TestSqlite(Engines):
    backend = "sqlite"
    level = "SERIALIZABLE"

    @pytest.fixture
    def address(self, tmp_path: Path) -> str:
        return f"sqlite3://{tmp_path}/test.db"

    def test_dates_are_stored_as_sqlalchemy_stores_them(
        self, engine: sa.Engine, tmp_path: Path
    ) -> None:
        columns = (sa.Column("at", sa.DateTime), sa.Column("zoned", sa.DateTime(timezone=True)))
        table = sa.Table("moments", sa.MetaData(), *columns, sa.Column("day", sa.Date))
        berlin = datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=1)))
        given = {"at": datetime(2024, 1, 2, 3, 4, 5, 6), "zoned": berlin, "day": date(2024, 1, 2)}
        plain = sa.create_engine(f"sqlite:///{tmp_path}/test.db")
        table.create(engine)
        with engine.begin() as conn:
            conn.execute(table.insert(), given)
        with plain.begin() as conn:
            found = conn.execute(sa.select(table)).one()
            assert tuple(found) == (
                given["at"],
                berlin.astimezone(UTC).replace(tzinfo=None),
                given["day"],
            )
            conn.execute(table.insert(), {**given, "zoned": datetime(2024, 1, 2, 2, 4, 5, 6)})
        plain.dispose()
        with engine.connect() as conn:
            for row in conn.execute(sa.select(table)):
                assert tuple(row) == tuple(given.values())
            latest = conn.execute(
                sa.select(sa.func.max(table.c.at), sa.func.max(table.c.day))
            ).one()
            assert tuple(latest) == (given["at"], given["day"])

    def test_a_killed_worker_costs_the_pool_nothing(
        self, engine: sa.Engine, base: trunkline.Connection, numbers: sa.Table
    ) -> None:
        pid = base.stats().pid
        assert pid
        with engine.connect() as conn:
            conn.execute(numbers.insert(), {"n": 1})
            os.kill(pid, 9)
            until(lambda: base.stats().pid not in (pid, None), "another worker took over")
            with pytest.raises(sa.exc.OperationalError):
                conn.execute(numbers.insert(), {"n": 2})
        with engine.connect() as conn:
            assert conn.scalar(sa.select(sa.func.count()).select_from(numbers)) == 0

    def test_an_ended_connection_leaves_the_pool(
        self, base: trunkline.Connection, engine: sa.Engine
    ) -> None:
        with engine.connect() as conn:
            conn.execute(sa.text("SELECT 1"))
            raw = conn.connection.dbapi_connection
            assert isinstance(raw, dbapi.Connection)
            raw._link.close()
            with pytest.raises(sa.exc.InterfaceError) as caught:
                conn.execute(sa.text("SELECT 1"))
            assert caught.value.connection_invalidated
        with engine.connect() as conn:
            assert conn.scalar(sa.text("SELECT 1")) == 1

    def test_both_levels_of_sqlite_may_be_asked_for(self, engine: sa.Engine) -> None:
        for level in ("READ UNCOMMITTED", "SERIALIZABLE"):
            with engine.connect() as conn:
                asked = conn.execution_options(isolation_level=level)
                assert asked.get_isolation_level() == level
                assert asked.scalar(sa.text("SELECT 1")) == 1

    def test_a_url_dials(self, tmp_path: Path) -> None:
        engine = sa.create_engine(
            f"sqlite+trunkline:///{tmp_path}/of url.db?_journal_mode=WAL&_loc=UTC"
        )
        with engine.connect() as conn:
            assert conn.scalar(sa.text("PRAGMA journal_mode")) == "wal"
        engine.dispose()
        assert (tmp_path / "of url.db").exists()

    def test_memory_is_a_database_for_each_thread(self) -> None:
        engine = sa.create_engine("sqlite+trunkline:///:memory:")
        assert isinstance(engine.pool, SingletonThreadPool)
        with engine.begin() as conn:
            conn.execute(sa.text("CREATE TABLE t (a)"))
        assert sa.inspect(engine).has_table("t")
        engine.dispose()

    @pytest.mark.parametrize(
        ("url", "hint"),
        [("sqlite+trunkline://", "creator="), ("sqlite+trunkline://host/file.db", "three slashes")],
    )
    def test_a_url_that_names_nothing_says_so(self, url: str, hint: str) -> None:
        with pytest.raises(sa.exc.ArgumentError, match=hint):
            sa.create_engine(url).connect()


class TestPostgres(Engines):
    backend = "postgresql"
    level = "REPEATABLE READ"
    types: ClassVar[list[tuple[Any, Any]]] = [
        *Engines.types,
        (sa.Numeric(40, 20), Decimal("12345678901234567890.12345678901234567890")),
        (sa.DateTime(timezone=True), datetime(2024, 2, 29, 12, 30, 45, 123456, tzinfo=UTC)),
        (sa.DateTime(), datetime(2024, 2, 29, 12, 30, 45, 123456)),
        (postgresql.JSONB(), {"a": [1, None]}),
        (postgresql.ARRAY(sa.Integer), [1, 2, 3]),
        (postgresql.ARRAY(sa.Text), ["a", "ü"]),
        (postgresql.INTERVAL(), timedelta(days=1, microseconds=5)),
        (postgresql.UUID(as_uuid=False), str(uuid.UUID(int=7))),
    ]

    @pytest.fixture
    def address(self, postgres: Postgres) -> str:
        return f"postgres://u:p@127.0.0.1:{postgres.port}/postgres?sslmode=disable"

    def test_a_url_dials(self, postgres: Postgres) -> None:
        url = sa.URL.create(
            "postgresql+trunkline",
            "u",
            "p",
            "127.0.0.1",
            postgres.port,
            "postgres",
            {"sslmode": "disable"},
        )
        engine = sa.create_engine(url)
        with engine.connect() as conn:
            assert conn.scalar(sa.text("SELECT current_database()")) == "postgres"
        engine.dispose()

    def test_a_tuple_behind_in_is_written_out_as_with_psycopg2(
        self, engine: sa.Engine, numbers: sa.Table
    ) -> None:
        found = f"SELECT n FROM {numbers.name} WHERE n IN :these OR n = :one ORDER BY n"
        with engine.begin() as conn:
            conn.execute(numbers.insert(), [{"n": n} for n in range(5)])
            for these, expected in (((1, 2), [1, 2, 4]), ((3,), [3, 4]), ((), [4])):
                assert conn.scalars(sa.text(found), {"these": these, "one": 4}).all() == expected
        for sql, these in ((found, [1, 2]), (found.replace(":these", "(:these)"), (1, 2))):
            with (
                engine.connect() as conn,
                pytest.raises(sa.exc.ProgrammingError, match="expanding"),
            ):
                conn.execute(sa.text(sql), {"these": these, "one": 4})

    def test_an_isolation_level_is_its_own_transactions_alone(
        self, engine: sa.Engine, base: trunkline.Connection
    ) -> None:
        show = "SHOW transaction_isolation"
        with engine.connect() as conn:
            strict = conn.execution_options(isolation_level="SERIALIZABLE")
            assert strict.scalar(sa.text(show)) == "serializable"
        with engine.connect() as conn:
            assert conn.scalar(sa.text(show)) == "read committed"
        assert base.exec(show) == {
            "columns": ["transaction_isolation"],
            "values": [["read committed"]],
        }

    def test_a_server_that_hangs_up_costs_the_pool_nothing(
        self, engine: sa.Engine, address: str, numbers: sa.Table
    ) -> None:
        ask, end = sa.text("SELECT pg_backend_pid()"), "SELECT pg_terminate_backend(?)"
        with trunkline.connect(address) as master, engine.connect() as conn:
            master.exec(end, conn.scalar(ask))
            conn.execute(numbers.insert(), {"n": 1})
            conn.commit()
            conn.execute(numbers.insert(), {"n": 2})
            master.exec(end, conn.scalar(ask))
            with pytest.raises(sa.exc.OperationalError):
                conn.execute(numbers.insert(), {"n": 3})
            conn.rollback()
            assert conn.scalars(sa.select(numbers.c.n)).all() == [1]

    def test_ranges_are_written_and_read_as_text(self, engine: sa.Engine) -> None:
        kind = postgresql.INT4RANGE()
        table = sa.Table(f"r{uuid.uuid4().hex[:12]}", sa.MetaData(), sa.Column("r", kind))
        table.create(engine)
        with engine.begin() as conn:
            conn.execute(table.insert(), {"r": postgresql.Range(1, 5)})
            assert conn.scalar(sa.select(table.c.r)) == "[1,5)"
        table.drop(engine)

    def test_question_marks_are_operators(self, engine: sa.Engine) -> None:
        with engine.connect() as conn:
            holds = sa.cast({"a": 1}, postgresql.JSONB).has_key("a")
            assert conn.scalar(sa.select(holds)) is True


class TestMysql(Engines):
    backend = "mysql"
    level = "REPEATABLE READ"
    types: ClassVar[list[tuple[Any, Any]]] = [
        *Engines.types,
        (sa.Numeric(40, 20), Decimal("12345678901234567890.12345678901234567890")),
    ]

    @pytest.fixture
    def address(self, mariadb: MariaDb) -> str:
        return f"mysql://u:p@tcp(127.0.0.1:{mariadb.port})/t"

    def test_a_url_dials(self, mariadb: MariaDb) -> None:
        for backend in ("mysql", "mariadb"):
            url = sa.URL.create(f"{backend}+trunkline", "u", "p", "127.0.0.1", mariadb.port, "t")
            engine = sa.create_engine(url)
            with engine.connect() as conn:
                assert conn.scalar(sa.text("SELECT database()")) == "t"
            engine.dispose()

    @pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ"])
    def test_an_isolation_level_holds_in_each_transaction_and_nowhere_else(
        self,
        mariadb: MariaDb,
        engine: sa.Engine,
        base: trunkline.Connection,
        numbers: sa.Table,
        level: str,
    ) -> None:
        """With links of its own, and on a handle that others use."""
        own = sa.create_engine(
            f"mysql+trunkline://u:p@127.0.0.1:{mariadb.port}/t?tx_isolation='SERIALIZABLE'",
            isolation_level=level,
        )
        shared = engine.execution_options(isolation_level=level)
        count = sa.select(sa.func.count()).select_from(numbers)
        with trunkline.connect(f"mysql://u:p@tcp(127.0.0.1:{mariadb.port})/t") as writer:
            for each in (own, shared):
                for _ in range(2):
                    with each.connect() as conn:
                        assert conn.get_isolation_level() == level
                        told = conn.scalar(sa.text("SELECT @@tx_isolation"))
                        assert told == (level if each is own else "REPEATABLE READ").replace(
                            " ", "-"
                        )
                        before = conn.scalar(count)
                        writer.exec(f"INSERT INTO {numbers.name} (n) VALUES (NULL)", timeout=20_000)
                        assert conn.scalar(count) - before == (
                            1 if level == "READ COMMITTED" else 0
                        )
            with own.connect() as conn:
                other = conn.execution_options(isolation_level="READ UNCOMMITTED")
                assert other.scalar(sa.text("SELECT @@tx_isolation")) == "READ-UNCOMMITTED"
            with own.connect() as conn:
                assert conn.scalar(sa.text("SELECT @@tx_isolation")) == level.replace(" ", "-")
        own.dispose()
        with engine.connect() as conn:
            assert conn.get_isolation_level() == "REPEATABLE READ"
        assert base.exec("SELECT @@tx_isolation")["values"] == [["REPEATABLE-READ"]]

    def test_a_versioned_update_that_finds_no_row_is_told(
        self, mariadb: MariaDb, engine: sa.Engine
    ) -> None:
        """With a handle that others use, and with links of its own, as SQLAlchemy's own dialects do."""
        own = sa.create_engine(f"mysql+trunkline://u:p@127.0.0.1:{mariadb.port}/t")
        for each in (engine, own):
            base = orm.declarative_base()

            class Position(base):  # type: ignore[misc, valid-type]
                __tablename__ = f"v{uuid.uuid4().hex[:12]}"
                id = sa.Column(sa.Integer, primary_key=True)
                size = sa.Column(sa.Integer)
                version = sa.Column(sa.Integer, nullable=False)
                __mapper_args__ = {"version_id_col": version}  # noqa: RUF012

            base.metadata.create_all(each)
            make = orm.sessionmaker(each, expire_on_commit=False)
            with make() as first, make() as second:
                first.add(Position(id=1, size=10))
                first.commit()
                one, two = first.get(Position, 1), second.get(Position, 1)
                second.commit()
                one.size -= 3
                first.commit()
                two.size -= 4
                with pytest.raises(orm.exc.StaleDataError):
                    second.commit()
                second.rollback()
                table = Position.__table__
                same = sa.update(table).where(table.c.id == 1).values(size=7)
                assert [first.execute(same).rowcount, first.execute(same).rowcount] == [1, 1]
                assert first.execute(same.where(table.c.size == 0)).rowcount == 0
                first.commit()
            base.metadata.drop_all(each)
        own.dispose()


def handle(connection: trunkline.Connection) -> int:
    number = connection.fd()
    assert number
    return number
