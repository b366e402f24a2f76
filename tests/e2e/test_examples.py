"""The seed's Python examples run as they stand, against servers that speak as the exchanges do.

Only two things are arranged, both from outside: which port of this machine a name stands for (a
`sitecustomize` in the path of the strategy's processes) and whose certificates are trusted
(`SSL_CERT_FILE`). Each strategy starts a broker of its own, because its workers must inherit that.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.exchanges import (
    Authority,
    BinanceTicker,
    Exchange,
    HuobiPublic,
    OkxPrivate,
    OkxPublic,
    WebPage,
    environment,
)
from tests.support.strategies import RunningStrategy

pytestmark = pytest.mark.own_broker

EXAMPLES = Path(__file__).parents[2] / "examples"

Start = Callable[..., RunningStrategy]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def start(authority: Authority, tmp_path: Path) -> Start:
    """Starts an example by its name, in a folder of its own, with the servers it shall find."""

    def begin(name: str, *servers: Exchange | WebPage) -> RunningStrategy:
        env = environment(authority, *servers)
        env.pop("TRUNKLINE_BROKER", None)
        env["PYTHONIOENCODING"] = "utf-8"
        return RunningStrategy(
            EXAMPLES / name, "--data", str(tmp_path / "data"), env=env, cwd=tmp_path
        )

    return begin


def test_every_example_is_run_by_a_test() -> None:
    texts = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    run = {
        name
        for text in texts
        for name in re.findall(r'(?:start\(\s*|EXAMPLES / |"examples" / )"(\w+\.py)"', text)
    }
    assert {name.name for name in EXAMPLES.glob("*.py")} == run


def test_binance_draws_its_table_until_the_link_is_lost(authority: Authority, start: Start) -> None:
    with BinanceTicker(authority) as binance, start("binance_ticker.py", binance) as strategy:
        binance.wait_subscribed(1)
        binance.tick()
        strategy.wait_line("BTCUSDT   99.1")
        for _ in range(20):
            binance.tick()
        binance.drop_all()
        assert strategy.end() == 0
    assert "| Connecting..." in strategy.output
    assert "| Ticker Chart" in strategy.output
    # Statuses may be skipped, but the last one is shown, and everything was read before the loss.
    assert "21.5" in strategy.output
    assert not [line for line in strategy.lines if "ERROR" in line and "lost" not in line.lower()]


def test_okx_reads_deflated_tickers_and_subscribes_again_after_a_loss(
    authority: Authority, start: Start
) -> None:
    with OkxPublic(authority) as okx, start("okx_ticker.py", okx) as strategy:
        okx.wait_subscribed(1)
        strategy.wait_line('"event": "subscribe"')
        okx.tick()
        strategy.wait_line('"last": "1.5"')
        okx.drop_all()
        okx.wait_connections(2)
        okx.wait_subscribed(1)
        okx.tick()
        strategy.wait_line('"last": "2.5"')
        strategy.wait_line("Current time:")
        strategy.signal(signal.SIGINT)
        assert strategy.end() == 130
    assert strategy.lines[-1].endswith("exit")
    subscriptions = [message for message in okx.received if "subscribe" in str(message)]
    assert len(subscriptions) == 2
    assert re.search(r"ret: $", strategy.output, re.MULTILINE), "the loss shows as an empty read"


def test_huobi_is_answered_and_stops_for_sigterm_in_spite_of_except_exception(
    authority: Authority, start: Start
) -> None:
    with HuobiPublic(authority) as huobi, start("huobi_ticker.py", huobi) as strategy:
        huobi.wait_subscribed(1)
        strategy.wait_line('"subbed": "market.btcusdt.detail"')
        huobi.wait_pong(huobi.ping())
        strategy.wait_line("Respond to ping, send pong:")
        huobi.tick()
        strategy.wait_line('"id": 1')
        huobi.wait_pong(huobi.ping())
        strategy.signal(signal.SIGTERM)
        assert strategy.end() == 143
    assert huobi.thrown_out == 0
    assert strategy.lines[-1].endswith("Execute the ws.close() function")


def test_the_okx_login_is_right_and_is_repeated_by_hand_after_a_loss(
    authority: Authority, start: Start
) -> None:
    accounts = {"xxx": ("xxx", "xxx")}
    with OkxPrivate(authority, accounts) as okx, start("okx_private_login.py", okx) as strategy:
        okx.wait_logins(1)
        okx.wait_subscribed(1)
        okx.tick()
        strategy.wait_line('"posId": "1"')
        okx.drop_all()
        strategy.wait_line("Disconnection detected")
        okx.wait_logins(2)
        okx.wait_subscribed(1)
        okx.tick()
        strategy.wait_line('"posId": "2"')
        strategy.signal(signal.SIGINT)
        assert strategy.end() == 130
    assert "Close the connection!" in strategy.lines[-1]
    assert '"event": "error"' not in strategy.output


def test_sqlite_gives_a_handle_and_an_answer_and_makes_its_file_here(
    start: Start, tmp_path: Path
) -> None:
    with start("sqlite_handle.py") as strategy:
        assert strategy.end() == 0
    handle = re.search(r"sqlite3Handle: (\d+)$", strategy.output, re.MULTILINE)
    assert handle
    assert int(handle[1]) > 1 << 32, "a handle cannot be guessed"
    assert "{'columns': ['name'], 'values': []}" in strategy.output
    assert strategy.lines[-1].endswith("Execute client.close()")
    assert (tmp_path / "test1.db").exists()


def test_four_processes_write_into_one_sqlite_file(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(EXAMPLES / "shared_sqlite.py")]
    env = {name: value for name, value in os.environ.items() if name != "TRUNKLINE_BROKER"}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    total = sum(100 + number / 4 for number in range(250))
    assert done.stdout.splitlines() == [
        *(f"writer {writer} is done" for writer in range(4)),
        "orders: 1000",
        "lines: 4000",
        *(f"writer {writer} ordered for {total}" for writer in range(4)),
        "removed orders.db True",
    ]
    assert list(tmp_path.iterdir()) == []


def test_tls_reads_the_page_until_the_peer_closes(authority: Authority, start: Start) -> None:
    with WebPage(authority) as page, start("tls_get.py", page) as strategy:
        assert strategy.end() == 0
    assert page.requests == [b"GET / HTTP/1.1\nConnection: Closed\n\n"]
    assert "HTTP/1.1 200 OK" in strategy.output
    assert page.body in strategy.output


def test_an_example_whose_exchange_is_unknown_says_so(start: Start) -> None:
    with start("binance_ticker.py") as strategy:
        assert strategy.end() == 0
    assert "Connection failed, program exited" in strategy.output
    assert "no such host stream.binance.com" in strategy.output


def test_a_certificate_that_nobody_vouches_for_is_refused(start: Start, tmp_path: Path) -> None:
    with WebPage(Authority(tmp_path)) as page, start("tls_get.py", page) as strategy:
        assert strategy.end() == 0
    assert page.requests == []
    assert "certificate" in strategy.output
