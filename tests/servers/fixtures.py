"""The fixtures and hooks: see the package. Loaded by tests/conftest.py."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar, cast

import pytest

from tests.servers.base import RUN, Server, Unavailable
from tests.servers.clickhouse import ClickHouse
from tests.servers.kafka import Kafka, KafkaMock
from tests.servers.mariadb import MariaDb
from tests.servers.mosquitto import Mosquitto
from tests.servers.nats import Nats
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import RabbitMq
from tests.servers.redis import Redis
from tests.servers.run import Run, lock_in
from tests.servers.shared import SHARED
from tests.support.certs import Certs

__all__ = ["or_skip"]

S = TypeVar("S", bound=Server)
S_co = TypeVar("S_co", bound=Server, covariant=True)

_run = pytest.StashKey[Run]()


def pytest_configure(config: pytest.Config) -> None:
    run = Run.join() if hasattr(config, "workerinput") else Run.begin()
    os.environ[RUN] = str(run.folder)
    config.stash[_run] = run
    config.add_cleanup(run.end)


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with the same exclusive server run in one worker, where xdist does groups."""
    for item in items:
        for name in _wanted(item):
            if name.startswith("private_"):
                item.add_marker(pytest.mark.xdist_group(name))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start what the tests need while the first of them run."""
    if not session.config.option.collectonly:
        wanted = {name for item in session.items for name in _wanted(item)}
        session.config.stash[_run].begin_servers(name for name in SHARED if name in wanted)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    lines = config.stash[_run].status()
    if lines:
        terminalreporter.section("servers")
        for line in lines:
            terminalreporter.write_line(line)


def _wanted(item: pytest.Item) -> list[str]:
    return [name for name in getattr(item, "fixturenames", ()) if name in SHARED]


@contextlib.contextmanager
def or_skip() -> Iterator[None]:
    """A server that cannot be had: reason enough to skip, but not where everything must run."""
    try:
        yield
    except Unavailable as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def server_run(pytestconfig: pytest.Config) -> Run:
    """What the processes of this test run share."""
    return pytestconfig.stash[_run]


@pytest.fixture(scope="session")
def certs(server_run: Run) -> Certs:
    """An authority and its certificates, as files; the same in the whole run."""
    return server_run.certs()


# shared ones


def _shared(run: Run, kind: type[S], name: str) -> S:
    with or_skip():
        return cast(S, run.server(name))
    raise AssertionError


@pytest.fixture(scope="session")
def mosquitto(server_run: Run) -> Mosquitto:
    """Shared: see `Mosquitto` for its ports and users."""
    return _shared(server_run, Mosquitto, "mosquitto")


@pytest.fixture(scope="session")
def nats_server(server_run: Run) -> Nats:
    """Shared: plain core NATS for everybody."""
    return _shared(server_run, Nats, "nats_server")


@pytest.fixture(scope="session")
def jetstream(server_run: Run) -> Nats:
    """Shared: nats-server with JetStream, for everybody."""
    return _shared(server_run, Nats, "jetstream")


@pytest.fixture(scope="session")
def rabbitmq(server_run: Run) -> RabbitMq:
    """Shared: see `RabbitMq` for its ports, users and virtual hosts."""
    return _shared(server_run, RabbitMq, "rabbitmq")


@pytest.fixture(scope="session")
def kafka(server_run: Run) -> Kafka | KafkaMock:
    """Shared: Apache Kafka, or librdkafka's mock where that is not to be had; `kafka.real` tells."""
    return cast(Kafka | KafkaMock, _shared(server_run, Server, "kafka"))


@pytest.fixture(scope="session")
def apache_kafka(kafka: Kafka | KafkaMock) -> Kafka:
    """The same, for tests that need Apache Kafka itself: logins, TLS, making topics, rights."""
    with or_skip():
        Kafka.available()
    assert isinstance(kafka, Kafka)
    return kafka


@pytest.fixture(scope="session")
def redis_server(server_run: Run) -> Redis:
    """Shared: plain on `port` and with TLS on `ports["tls"]`, for everybody."""
    return _shared(server_run, Redis, "redis_server")


@pytest.fixture(scope="session")
def mariadb(server_run: Run) -> MariaDb:
    """Shared: see `MariaDb` for its users."""
    return _shared(server_run, MariaDb, "mariadb")


@pytest.fixture(scope="session")
def postgres(server_run: Run) -> Postgres:
    """Shared: see `Postgres` for its user."""
    return _shared(server_run, Postgres, "postgres")


@pytest.fixture(scope="session")
def clickhouse(server_run: Run) -> ClickHouse:
    """Shared: see `ClickHouse` for its ports and users."""
    return _shared(server_run, ClickHouse, "clickhouse")


# exclusive ones


def _exclusive(run: Run, kind: type[S], name: str) -> Iterator[S]:
    with lock_in(run.folder, name):
        server = _shared(run, kind, name)
        server.recover()
        yield server


@pytest.fixture
def private_rabbitmq(server_run: Run) -> Iterator[RabbitMq]:
    """Nobody else uses it during the test: it may be stopped, frozen and changed."""
    yield from _exclusive(server_run, RabbitMq, "private_rabbitmq")


@pytest.fixture
def private_kafka(server_run: Run) -> Iterator[Kafka]:
    """Apache Kafka; nobody else uses it during the test: it may be stopped, frozen and changed."""
    yield from _exclusive(server_run, Kafka, "private_kafka")


# a test's own


class Starter(Protocol[S_co]):
    """`start(**settings)`: a running server with these settings."""

    def __call__(self, **settings: Any) -> S_co: ...


@pytest.fixture
def start_server(server_run: Run) -> Iterator[Callable[..., Any]]:
    """`start_server(Nats, token="t")`: a running server of the test's own, stopped at its end."""
    with contextlib.ExitStack() as stack:

        def start(kind: type[S], **settings: Any) -> S:
            with or_skip():
                kind.available()
            return stack.enter_context(server_run.private(kind, **settings))

        yield start


@pytest.fixture
def start_mosquitto(start_server: Callable[..., Any]) -> Starter[Mosquitto]:
    """`start_mosquitto(users={"u": "p"})`: see `Mosquitto` for the settings."""
    return lambda **settings: start_server(Mosquitto, **settings)


@pytest.fixture
def start_kafka(start_server: Callable[..., Any]) -> Starter[Kafka]:
    """`start_kafka(config="auto.create.topics.enable=false")`: takes about 4 s; see `Kafka`."""
    return lambda **settings: start_server(Kafka, **settings)


@pytest.fixture
def start_nats(start_server: Callable[..., Any]) -> Starter[Nats]:
    """`start_nats(token="t", jetstream=True)`: see `Nats` for the settings."""
    return lambda **settings: start_server(Nats, **settings)


@pytest.fixture
def start_redis(start_server: Callable[..., Any]) -> Starter[Redis]:
    """`start_redis(password="p", persistence=True)`: see `Redis` for the settings."""
    return lambda **settings: start_server(Redis, **settings)
