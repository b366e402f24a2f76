"""What every test stands on: leak checks, the shared broker, certificates, seeds.

Each pytest process (each xdist worker) has an id and a runtime folder of its own, which everything it
starts inherits as `TRUNKLINE_TEST_ID` and `TRUNKLINE_RUNTIME`. After each test's body
`trunkline.shutdown()` is called; after its fixtures are gone nothing may be left.

Tests in `tests/e2e` and `tests/contract`, and those that use the fixture `broker`, dial through one broker
per pytest process. `@pytest.mark.own_broker` takes a test out: it starts its broker by dialling.

Real servers (mosquitto, RabbitMQ, ...) and the certificates come from `tests/servers`, one set for the whole
run.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support import sockets
from tests.support.anchor import SharedBroker
from tests.support.leaks import MARKER, Leaks

pytest_plugins = ["tests.servers.fixtures"]

_SEED = "TRUNKLINE_TEST_SEED"
_DIALLING = ("e2e", "contract")

settings.register_profile("local", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "own_broker: the test starts its own broker instead of the shared one"
    )
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    # The controller's id reaches the workers; each makes it its own.
    os.environ[MARKER] = f"{os.environ.get(MARKER) or uuid.uuid4().hex}.{worker}"
    os.environ.setdefault(_SEED, str(random.SystemRandom().randrange(1 << 32)))
    # Short, because the path of a unix socket is limited to about 100 bytes.
    folder = Path(tempfile.mkdtemp(prefix=f"tl-{worker}-")).resolve()
    os.environ["TRUNKLINE_RUNTIME"] = str(folder)
    os.environ.pop("TRUNKLINE_BROKER", None)
    # The tests' own servers are not behind the proxy that a developer's machine may have.
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_report_header() -> str:
    return f"trunkline: {_SEED}={os.environ[_SEED]} {MARKER}={os.environ[MARKER]}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Close this process's connections right after the body, while the test's servers still run."""
    try:
        return (yield)
    finally:
        if "trunkline.proxy.dial" in sys.modules:
            sys.modules["trunkline.proxy.dial"].shutdown()


@pytest.fixture(scope="session")
def _shared_broker() -> Iterator[SharedBroker]:
    shared = SharedBroker(Path(os.environ["TRUNKLINE_RUNTIME"]))
    before = Leaks(shared.folder.parent, os.environ[MARKER])
    yield shared
    shared.stop()
    before.check_session()


def _wants_broker(request: pytest.FixtureRequest) -> bool:
    if request.node.get_closest_marker("own_broker"):
        return False
    return "broker" in request.fixturenames or request.path.parent.name in _DIALLING


@pytest.fixture(autouse=True)
def _no_leaks(request: pytest.FixtureRequest, _shared_broker: SharedBroker) -> Iterator[None]:
    """Set up before every other fixture of the test, so torn down after all of them."""
    wants = _wants_broker(request)
    if wants:
        _shared_broker.ensure()  # before the look, so that the broker itself is no leak
    leaks = Leaks(Path(os.environ["TRUNKLINE_RUNTIME"]), os.environ[MARKER], _shared_broker.anchor)
    if wants:
        request.getfixturevalue("broker")
    yield
    leaks.check()


@pytest.fixture
def broker(_shared_broker: SharedBroker, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the shared broker, which `TRUNKLINE_BROKER` names during the test."""
    address = _shared_broker.ensure()
    monkeypatch.setenv("TRUNKLINE_BROKER", address)
    return address


@pytest.fixture
def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    return sockets.free_port()


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers from the seed in the report's header: the same for a test wherever it runs."""
    return random.Random(f"{os.environ[_SEED]} {request.node.nodeid}")
