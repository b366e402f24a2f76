"""The client of clickhouse-driver as one link.

The class here changes its behaviour after errors, and the way it sends an INSERT.

The module relies on names of the library: the methods of `Client` that are replaced here, and the
fields `connected`, `socket`, `is_query_executing`, `database` and the timeouts of its
`Connection`. A unit test fails if these names change.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from typing import Any

from clickhouse_driver import Client
from clickhouse_driver.block import ColumnOrientedBlock
from clickhouse_driver.errors import Error, NetworkError, ServerException

from trunkline.actors.drivers.clickhouse.columns import use_numbers
from trunkline.actors.drivers.clickhouse.errors import LOST, OUT_OF_STEP, translated
from trunkline.actors.drivers.clickhouse.plan import PING_TIMEOUT_S, Plan
from trunkline.actors.drivers.clickhouse.types import fitted, zone_named
from trunkline.errors import DialError, StatementError

__all__ = ["Link", "stop"]

# Trunkline itself tells what the library would log.
logging.getLogger("clickhouse_driver").setLevel(logging.CRITICAL + 1)

STOP_S = 0.6
"""Seconds for each of the three steps of the second connection that stops a statement."""


class Link(Client):  # type: ignore[misc]  # the library has no types
    """One link to one server.

    The library closes the link after every error, and opens it again before the next statement.
    With the link the settings of `SET` and temporary tables are lost. So this class keeps the
    link if possible: after an error the server is asked (`ping`) whether it still understands us.

    A link that the server has closed is opened again, too.
    That happens only before a statement, and never after a byte of the statement was sent.
    """

    def __init__(self, plan: Plan, host: str, port: int) -> None:
        super().__init__(host=host, port=port, settings=plan.client_settings, **plan.arguments)
        use_numbers(self.connection.context)
        self.plan = plan
        self.given_up = False
        """Another thread broke the link. Nothing more is sent."""
        self.zone: tzinfo = UTC
        """The server's time zone, known after the first dial."""
        self.unfit: StatementError | None = None
        """Why the rows of an INSERT were not sent; None if they were sent."""

    def dial(self, seconds: float) -> None:
        """Connect and log in. Each step may take `seconds` seconds."""
        connection = self.connection
        connection.connect_timeout = connection.send_receive_timeout = max(0.001, seconds)
        try:
            connection.connect()
            connection.send_receive_timeout = self.plan.read_s
            connection.socket.settimeout(self.plan.read_s)
        except BaseException:
            self.hang_up()
            raise
        server = connection.server_info
        self.zone = zone_named(server.get_timezone() or "UTC")
        if server.timezone and not _is_local(self.zone):
            # If the library believes that this machine is in the server's zone,
            # the library asks the machine. With a TZ such as EST5EDT that
            # belief is wrong. The library compares the names of the zones, so a
            # name in lower case avoids that. pytz accepts lower case.
            server.timezone = server.timezone.lower()
        if self.given_up:
            self.hang_up()
            raise ConnectionAbortedError("the link was given up")

    def hang_up(self) -> None:
        """Close the link, in any state."""
        super().disconnect()

    @property
    def fd(self) -> int:
        """The file descriptor of the link's socket; -1 without a socket."""
        sock = self.connection.socket
        return -1 if sock is None else int(sock.fileno())

    # Called by the library.

    def establish_connection(self, settings: Any) -> None:
        """Called before each statement.

        Nothing of the statement was sent yet, so a lost link is opened again.
        """
        if self.connection.connected:
            try:
                return super().establish_connection(settings)  # type: ignore[no-any-return]
            except LOST:
                self.hang_up()
        try:
            self.dial(self.plan.connect_s)
        except LOST as error:
            text = f"the link was lost and could not be opened again ({translated(error)})"
            raise DialError(f"{text}; the statement was not run") from None
        return super().establish_connection(settings)  # type: ignore[no-any-return]

    def disconnect(self) -> None:
        """Called after each error.

        Closes the link, unless server and client still understand each other.
        """
        error = sys.exc_info()[1]
        kept = (
            isinstance(error, ServerException) and error.code not in OUT_OF_STEP and self._in_step()
        )
        if not kept:
            self.hang_up()

    def _in_step(self) -> bool:
        """Whether the server answers a ping after an error."""
        connection = self.connection
        if not connection.connected:
            return False
        connection.is_query_executing = False
        try:
            return bool(connection.ping())
        except Error:
            return False

    def send_data(
        self, sample_block: Any, data: Any, types_check: bool = False, columnar: bool = False
    ) -> int:
        """Send the rows of an INSERT.

        Called when the server has told the columns of the table.

        If a value does not fit, no row is sent: the INSERT
        ends in good order, and the link stays usable.
        """
        kinds = sample_block.columns_with_types
        try:
            # `insert` passes the rows in parts.
            columns = fitted(data, kinds, self.zone)
        except StatementError as error:
            self.unfit = error
            columns = []
        size = self.client_settings["insert_block_size"]
        count = len(columns[0]) if columns else 0
        # The library's own loop copies each column twice,
        # which takes a third of the time of an INSERT.
        for start in range(0, count, size):
            block = (
                columns if count <= size else [column[start : start + size] for column in columns]
            )
            self.connection.send_data(ColumnOrientedBlock(kinds, block))
            self.receive_profile_events()
        super().send_data(sample_block, [])
        return count

    # Called by the driver.

    def insert(self, head: str, parts: list[Sequence[Any]], query_id: str) -> int:
        """Insert rows as blocks.

        The rows come in parts, and each part may be a Table. Returns the number of rows.

        StatementError for a value that does not fit.
        """
        self.unfit = None
        count = self.execute(head, parts, query_id=query_id)
        if self.unfit is not None:
            raise self.unfit
        return int(count or 0)

    def select(self, text: str, query_id: str) -> Iterator[Any]:
        """Send a query.

        Yields the names and types of the columns, if
        there are any, then the columns of each block.
        """
        with self.disconnect_on_error(text, None):
            try:
                self.connection.send_query(text, query_id=query_id)
                self.connection.send_external_tables(None)
            except (ConnectionError, TimeoutError) as error:
                raise self._refusal() or error from None
        return self._blocks()

    def _refusal(self) -> ServerException | None:
        """The error that the server sent before it ended the link, or None.

        The server does not read a statement to its end if the statement is too long.
        """
        if self.given_up:
            return None
        try:
            self.connection.socket.settimeout(PING_TIMEOUT_S)
            return self.connection.receive_packet().exception
        except Exception:
            return None

    def _blocks(self) -> Iterator[Any]:
        """Names and types of the columns, then the columns of each block that has rows."""
        told = False
        for packet in self.packet_generator():
            block = getattr(packet, "block", None)
            if block is None:
                continue
            if not told:
                told = True
                yield block.columns_with_types
            if block.num_rows:
                yield block.get_columns()

    def cancel_rows(self) -> None:
        """Tell the server that no more rows are wanted, and read the rows that are on their way.

        If the server does not answer, the link is closed.
        """
        connection = self.connection
        if not connection.connected or not connection.is_query_executing:
            return
        try:
            connection.socket.settimeout(PING_TIMEOUT_S)
            self.cancel()
            connection.socket.settimeout(self.plan.read_s)
        except ServerException:
            if connection.connected:
                connection.socket.settimeout(self.plan.read_s)
        except Exception:
            self.hang_up()


def _is_local(zone: tzinfo) -> bool:
    """Whether this machine's clock is in the zone.

    Compares the two clocks in each quarter of a year since 1970.
    """
    moments = range(0, 1 << 31, 90 * 86400)
    return all(
        datetime.fromtimestamp(moment) == datetime.fromtimestamp(moment, zone).replace(tzinfo=None)
        for moment in moments
    )


def stop(link: Link, query_id: str) -> bool:
    """Stop the statement of another thread's link, over a new connection, within 2 s.

    Returns False if the user may not stop it.
    """
    connection = link.connection
    sock = connection.socket
    if sock is None:
        return True
    host, port = sock.getpeername()[:2]
    arguments = dict(link.plan.arguments)
    if arguments.get("secure"):
        arguments.setdefault("server_hostname", connection.host)
    with suppress(*LOST, NetworkError):
        client = Client(
            host=host,
            port=port,
            **arguments
            | {"connect_timeout": STOP_S, "send_receive_timeout": STOP_S, "database": ""},
        )
        try:
            client.execute(f"KILL QUERY WHERE query_id = '{query_id}'")
        except ServerException:
            return False
        finally:
            client.disconnect()
    return True
