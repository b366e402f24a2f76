"""SQLAlchemy's dialects on Trunkline's connections.

They are `sqlite+trunkline`, `postgresql+trunkline`, `mysql+trunkline` and `mariadb+trunkline`.

Each dialect is SQLAlchemy's dialect of that database on top of `trunkline.dbapi`. This module
holds only the differences from the library that SQLAlchemy usually drives.
`create_engine("sqlite+trunkline://", creator=lambda: dbapi.connect(handle))` works on a shared
connection. A whole URL dials once for each connection of the pool.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from typing import Any
from urllib.parse import quote

from sqlalchemy import exc, pool, types
from sqlalchemy.dialects.mysql.base import MySQLDialect, MySQLExecutionContext
from sqlalchemy.dialects.mysql.mariadb import MariaDBDialect
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql.base import PGDialect, PGExecutionContext
from sqlalchemy.dialects.postgresql.json import JSON, JSONB
from sqlalchemy.dialects.postgresql.pg_catalog import INT2VECTOR, OIDVECTOR
from sqlalchemy.dialects.postgresql.ranges import (
    AbstractSingleRange,
    AbstractSingleRangeImpl,
    Range,
)
from sqlalchemy.dialects.sqlite.base import DATE, DATETIME, SQLiteDialect, SQLiteExecutionContext
from sqlalchemy.engine import URL
from sqlalchemy.engine.default import DefaultDialect, DefaultExecutionContext

from trunkline import dbapi
from trunkline.errors import BrokerGone, ClosedError, DeadHandle

__all__ = ["MariaDb", "MySql", "PostgreSql", "Sqlite"]

Process = Callable[[Any], Any]
_IN = re.compile(r"\bIN\s*(\(?)\s*\$(\d+)", re.IGNORECASE)
"""The placeholder of PostgreSQL behind IN: the parenthesis before it, and its number."""
FOR_GOOD = (ClosedError, DeadHandle, BrokerGone)
"""Errors after which a connection never works again."""


class _OnTrunkline(DefaultDialect):
    """The common part of the dialects."""

    driver = "trunkline"
    scheme: str
    """The scheme of Trunkline's addresses."""
    supports_statement_cache = True
    supports_server_side_cursors = True
    supports_native_decimal = True
    refused_values: tuple[type, ...] = (list, tuple, set, frozenset, dict)
    """Types of values that the database has no column for."""

    def __init__(self, **settings: Any) -> None:
        # Not the `paramstyle` of the module: `?` is an operator on PostgreSQL.
        settings.setdefault("paramstyle", self.default_paramstyle)
        super().__init__(**settings)

    @classmethod
    def import_dbapi(cls) -> Any:
        return dbapi

    def connect(self, *arguments: Any, **options: Any) -> Any:
        """Connect, for engines without a `creator`."""
        if not arguments:
            raise exc.ArgumentError(
                "the URL names no database: name one, or give create_engine "
                "creator=lambda: trunkline.dbapi.connect(handle)"
            )
        return dbapi.connect(*arguments, **options)

    def create_connect_args(self, url: URL) -> tuple[list[Any], dict[str, Any]]:
        if not (url.host or url.database or url.query):
            return [], {}
        return [self._address(url)], {}

    def _address(self, url: URL) -> str:
        # The URL is written anew, because its text leaves blanks in passwords.
        login = ":".join(
            quote(str(part), safe="") for part in (url.username, url.password) if part is not None
        )
        host = f"[{url.host}]" if ":" in (url.host or "") else url.host or ""
        port = f":{url.port}" if url.port else ""
        place = f"{login}@{host}{port}" if login else f"{host}{port}"
        return f"{self.scheme}://{place}/{quote(url.database or '', safe='')}{_query(url)}"

    def do_execute(self, cursor: Any, statement: Any, parameters: Any, context: Any = None) -> None:
        """Execute a statement.

        A list for the placeholder of `IN (:x)` is an error, as with the libraries that SQLAlchemy
        usually drives. SQLAlchemy writes lists out if told so (`bindparam(expanding=True)`).
        """
        self._check_lists(statement, parameters)
        cursor.execute(statement, parameters)

    def _check_lists(self, statement: str, parameters: Any) -> None:
        """ProgrammingError of `dbapi` for a list where one value belongs."""
        values = parameters.values() if isinstance(parameters, Mapping) else parameters or ()
        if any(isinstance(value, self.refused_values) for value in values):
            raise dbapi.ProgrammingError(
                "a list stands where one value does: use bindparam(..., expanding=True) for IN"
            )

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        """Whether the pool must replace its connections.

        Not after the loss of a server: Trunkline dials
        the server again before the next statement.
        """
        return isinstance(e.__cause__, FOR_GOOD) or getattr(connection, "closed", False) is True

    def do_ping(self, dbapi_connection: Any) -> bool:
        """Send a statement with autocommit, so that the ping does not begin a transaction."""
        before, dbapi_connection.autocommit = dbapi_connection.autocommit, True
        try:
            dbapi_connection.cursor().execute("SELECT 1")
        finally:
            dbapi_connection.autocommit = before
        return True

    def get_isolation_level_values(self, dbapi_conn: Any) -> Any:
        return [*super().get_isolation_level_values(dbapi_conn), "AUTOCOMMIT"]

    def detect_autocommit_setting(self, dbapi_conn: Any) -> bool:
        return bool(dbapi_conn.autocommit)

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:
        dbapi_connection.autocommit = level == "AUTOCOMMIT"


class _LevelPerTransaction(_OnTrunkline):
    """A database whose isolation level is set for each transaction.

    A level for the session would apply to all users of a shared connection.
    """

    _session_level: str | None = None
    """The level of the database itself, asked for once."""

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:
        """Set the level of this object's transactions.

        Reads then belong to a transaction, too.

        Reads need no transaction if the level is the database's
        own and lets each statement see the latest commits.
        """
        super().set_isolation_level(dbapi_connection, level)
        plain = level in _SEES_COMMITS and level == self._own_level(dbapi_connection)
        nothing = plain or level == "AUTOCOMMIT"
        dbapi_connection.begins_with = None if nothing else f"{_SETS_LEVEL}{level}"

    def reset_isolation_level(self, dbapi_conn: Any) -> None:
        """Forget the level that was asked for, except the level of the engine."""
        if self._on_connect_isolation_level is not None:
            super().reset_isolation_level(dbapi_conn)  # type: ignore[no-untyped-call]
        else:
            dbapi_conn.autocommit = False
            dbapi_conn.begins_with = None

    def _own_level(self, connection: Any) -> str:
        """The level of the database itself, for transactions that set no level."""
        if self._session_level is None:
            self._session_level = self._asked_level(connection).upper().replace("-", " ")
        return self._session_level

    def _asked_level(self, connection: Any) -> str:
        """Ask the database for its level."""
        raise NotImplementedError


_SEES_COMMITS = ("READ COMMITTED", "READ UNCOMMITTED")
"""Levels at which each statement sees what others have committed before."""
_SETS_LEVEL = "SET TRANSACTION ISOLATION LEVEL "


def _query(url: URL) -> str:
    pairs = [(name, value) for name, values in url.normalized_query.items() for value in values]
    text = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
    return f"?{text}" if text else ""


class _Streams(DefaultExecutionContext):
    """The cursor of `execution_options(stream_results=True)`, and of pandas' `chunksize`."""

    def create_server_side_cursor(self) -> Any:
        return self._dbapi_connection.cursor(stream=True)


# SQLite


class _DateTime(DATETIME):
    """A moment, stored in SQLAlchemy's usual form, in UTC if the value has a zone.

    Trunkline's driver itself parses columns that are declared as dates.
    """

    def bind_processor(self, dialect: Any) -> Process:
        written = super().bind_processor(dialect)
        assert written is not None

        def process(value: Any) -> Any:
            zoned = isinstance(value, datetime) and value.tzinfo is not None
            return written(value.astimezone(UTC) if zoned else value)

        return process

    def result_processor(self, dialect: Any, coltype: object) -> Process:
        parsed = super().result_processor(dialect, coltype)
        assert parsed is not None
        zoned = self.timezone

        def process(value: Any) -> Any:
            if value is None:
                return None
            moment: Any = value if isinstance(value, date) else parsed(value)
            if not isinstance(moment, datetime):
                moment = datetime.combine(moment, time())
            utc = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
            return utc if zoned else utc.replace(tzinfo=None)

        return process


class _Date(DATE):
    """A date. A column with moments gives the date in UTC."""

    def result_processor(self, dialect: Any, coltype: object) -> Process:
        parsed = super().result_processor(dialect, coltype)
        assert parsed is not None

        def process(value: Any) -> Any:
            if isinstance(value, datetime):
                return value.astimezone(UTC).date()
            return value if isinstance(value, date) else parsed(value)

        return process


class _SqliteContext(_Streams, SQLiteExecutionContext):
    pass


class Sqlite(_OnTrunkline, SQLiteDialect):
    """`sqlite+trunkline:///file.db?parameters`, with the parameters of `sqlite3://` addresses."""

    scheme = "sqlite3"
    supports_statement_cache = True
    supports_native_decimal = False
    returns_native_bytes = True
    execution_ctx_cls = _SqliteContext
    colspecs = {**SQLiteDialect.colspecs, types.Date: _Date, types.DateTime: _DateTime}  # noqa: RUF012

    def __init__(self, **settings: Any) -> None:
        # SQLAlchemy would ask the module for SQLite's version, but the worker's version counts.
        module = settings.pop("dbapi", None)
        super().__init__(**settings)
        self.dbapi = module

    def initialize(self, connection: Any) -> None:
        super().initialize(connection)
        if (self.server_version_info or ()) < (3, 35):
            self.insert_returning = self.update_returning = self.delete_returning = False

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:
        """Set the level.

        `READ UNCOMMITTED` affects only connections that share SQLite's cache.
        Trunkline's connections do not, so other users see no change.
        """
        super().set_isolation_level(dbapi_connection, level)
        if level != "AUTOCOMMIT":
            SQLiteDialect.set_isolation_level(self, dbapi_connection, level)

    def _get_server_version_info(self, connection: Any) -> tuple[int, ...]:
        text = connection.exec_driver_sql("SELECT sqlite_version()").scalar()
        return tuple(map(int, text.split(".")))

    def _address(self, url: URL) -> str:
        """The address for a file or for memory, which has no host and no login."""
        if url.host or url.username or url.password:
            raise exc.ArgumentError(
                "a file is written sqlite+trunkline:///folder/file.db, with three slashes"
            )
        return f"{self.scheme}://{url.database or ''}{_query(url)}"

    @classmethod
    def get_pool_class(cls, url: URL) -> type[pool.Pool]:
        """The pool for a URL.

        Each connection that is dialled to `:memory:` is a
        database of its own, so a thread keeps one connection.
        """
        memory = url.database == ":memory:" or url.query.get("mode") == "memory"
        return pool.SingletonThreadPool if memory else pool.QueuePool


# PostgreSQL


class _Array(ARRAY):  # type: ignore[type-arg]  # not generic in SQLAlchemy 2.0
    render_bind_cast = True


class _Json(JSON):
    def result_processor(self, dialect: Any, coltype: object) -> None:
        """Do nothing: the driver has parsed the value."""


class _Jsonb(JSONB):
    def result_processor(self, dialect: Any, coltype: object) -> None:
        """Do nothing: the driver has parsed the value."""


class _Range(AbstractSingleRangeImpl[Any]):
    def bind_processor(self, dialect: Any) -> Process:
        return lambda value: str(value) if isinstance(value, Range) else value


class _SpaceVector:
    """Lists of numbers in the system's tables, which arrive as text."""

    def result_processor(self, dialect: Any, coltype: object) -> Process:
        return lambda value: None if value is None else [int(number) for number in value.split()]


class _Int2Vector(_SpaceVector, INT2VECTOR):
    pass


class _OidVector(_SpaceVector, OIDVECTOR):
    pass


class _PostgresContext(_Streams, PGExecutionContext):
    pass


class PostgreSql(_LevelPerTransaction, PGDialect):
    """`postgresql+trunkline://user:password@host/database?parameters`,
    with the parameters of `postgres://` addresses.
    """

    scheme = "postgres"
    supports_statement_cache = True
    default_paramstyle = "numeric_dollar"
    execution_ctx_cls = _PostgresContext
    colspecs = {  # noqa: RUF012
        **PGDialect.colspecs,
        types.ARRAY: _Array,
        types.JSON: _Json,
        JSON: _Json,
        JSONB: _Jsonb,
        AbstractSingleRange: _Range,
        INT2VECTOR: _Int2Vector,
        OIDVECTOR: _OidVector,
    }

    def _check_lists(self, statement: str, parameters: Any) -> None:
        """Refuse lists behind IN.

        Elsewhere lists are for arrays and JSON.
        A tuple for `IN :x` is allowed, as psycopg2 allows it.
        """
        found = [(opened, parameters[int(place) - 1]) for opened, place in _IN.findall(statement)]
        if any(
            isinstance(value, self.refused_values) and (opened or not isinstance(value, tuple))
            for opened, value in found
        ):
            super()._check_lists(statement, parameters)

    def do_executemany(
        self, cursor: Any, statement: Any, parameters: Any, context: Any = None
    ) -> None:
        """Run an UPDATE or DELETE row by row, as psycopg2 does.

        A batch would not tell the count, and the ORM checks whether all its rows were found.
        """
        if context is None or not (context.isupdate or context.isdelete):
            super().do_executemany(cursor, statement, parameters, context)  # type: ignore[no-untyped-call]
            return
        count = 0
        for each in parameters:
            self.do_execute(cursor, statement, each, context)
            count += cursor.rowcount
        cursor.rowcount = count

    def _asked_level(self, connection: Any) -> str:
        row = connection.cursor().execute("SHOW default_transaction_isolation").fetchone()
        return str(row[0])


# MySQL and MariaDB


class _MySqlContext(_Streams, MySQLExecutionContext):
    def create_default_cursor(self) -> Any:
        """A cursor that counts the rows that an UPDATE finds, not those that it changes.

        SQLAlchemy's own dialects have MySQL count in the same way.
        """
        cursor: Any = super().create_default_cursor()
        cursor.counts_found = True
        return cursor


class MySql(_LevelPerTransaction, MySQLDialect):
    """`mysql+trunkline://user:password@host/database?parameters`,
    with the parameters of `mysql://` addresses.
    """

    scheme = "mysql"
    supports_statement_cache = True
    supports_sane_multi_rowcount = True
    default_paramstyle = "qmark"
    execution_ctx_cls = _MySqlContext

    def _address(self, url: URL) -> str:
        """The address of a URL.

        On a dialled link the server itself counts found rows, also after ON DUPLICATE KEY UPDATE.
        """
        if "clientFoundRows" not in url.query:
            url = url.update_query_dict({"clientFoundRows": "true"})
        return super()._address(url)

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:
        super().set_isolation_level(dbapi_connection, level)
        if level != "AUTOCOMMIT":
            self._tell_session(dbapi_connection, level)

    def reset_isolation_level(self, dbapi_conn: Any) -> None:
        super().reset_isolation_level(dbapi_conn)
        if self._on_connect_isolation_level is None:
            self._tell_session(dbapi_conn, self._own_level(dbapi_conn))

    def _tell_session(self, connection: Any, level: str) -> None:
        """Set the level of the session, so that the session's variable tells the level in use.

        Only for a session that is not shared.
        """
        if connection.owns_link:
            connection.cursor().execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {level}")

    def get_isolation_level(self, dbapi_connection: Any) -> Any:
        """The level of this object's transactions.

        The server tells only the level of the session.
        """
        level = str(dbapi_connection.begins_with or "").removeprefix(_SETS_LEVEL)
        return level or self._own_level(dbapi_connection)

    def _asked_level(self, connection: Any) -> str:
        """Ask for the variable under both of its names: `tx_isolation` in older servers."""
        # Called before SQLAlchemy knows by which of the two names this server calls the variable.
        names = "('transaction_isolation', 'tx_isolation')"
        row = (
            connection.cursor().execute(f"SHOW VARIABLES WHERE Variable_name IN {names}").fetchone()
        )
        return str(row[1])

    def _extract_error_code(self, exception: Any) -> int | None:
        return exception.code if isinstance(exception.code, int) else None

    def _detect_charset(self, connection: Any) -> str:
        return "utf8mb4"


class MariaDb(MySql, MariaDBDialect):
    supports_statement_cache = True
