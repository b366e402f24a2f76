"""The strategy that writes ticks into PostgreSQL loses none when the database is restarted under it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import trunkline
from tests.servers.postgres import Postgres
from tests.support.exchanges import Authority, BinanceTicker, environment
from tests.support.statements import rows
from tests.support.strategies import RunningStrategy
from tests.support.waiting import until

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.timeout(90)
def test_ticks_are_written_through_a_restart_of_the_database(
    start_server: Callable[..., Postgres], tmp_path: Path
) -> None:
    postgres = start_server(Postgres)
    address = f"postgres://u:p@127.0.0.1:{postgres.port}/postgres"
    authority = Authority(tmp_path)
    with BinanceTicker(authority) as binance:
        env = {**environment(authority, binance), "TICKS_DB": address}
        env.pop("TRUNKLINE_BROKER", None)
        script = EXAMPLES / "ticks_to_postgres.py"
        with RunningStrategy(
            script, "--data", str(tmp_path / "data"), env=env, cwd=tmp_path
        ) as strategy:
            binance.wait_subscribed(1)
            binance.tick()
            strategy.wait_line("3 ticks written, 0 waiting")
            postgres.stop()
            binance.tick()
            strategy.wait_line("postgres")  # why it could not be written, in the log
            postgres.start()
            strategy.wait_line("6 ticks written, 0 waiting")
            strategy.signal(signal.SIGINT)
            assert strategy.end() == 130
    with trunkline.connect(address) as db:
        until(
            lambda: rows(db, "SELECT count(*), max(last)::text FROM ticks") == [[6, "2.5"]],
            "all ticks",
        )
