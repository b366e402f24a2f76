"""The real servers of the schemes that have one: started when first needed, kept for all trials of a run."""

from __future__ import annotations

import asyncio
import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import nats

from tests.servers.base import Server, Unavailable
from tests.servers.clickhouse import ClickHouse
from tests.servers.kafka import Kafka, KafkaMock
from tests.servers.mariadb import MariaDb
from tests.servers.mosquitto import Mosquitto
from tests.servers.nats import Nats
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import RabbitMq
from tests.support.certs import Certs, make_certs

__all__ = ["ADDRESSES", "COMES_AGAIN_S", "CREATE", "FILE", "QUICK", "backend", "end_all", "prepare"]

ADDRESSES = {
    "postgres": "postgres://u:p@{at}/postgres?sslmode=disable&synchronous_commit=on",
    "mysql": "mysql://u:p@tcp({at})/t",
    "clickhouse": "clickhouse://u:p@{at}/default",
    "sqlite3": "sqlite3://{at}?_busy_timeout=500",
    "mqtt": "mqtt://{at}?topic={name}&qos=1&clean=false&client_id={name}",
    "nats": "nats://{at}?topic={name}&stream={name}&durable=d&ack_wait=1500",
    "amqp": "amqp://u:p@{at}/?queue={name}&durable=true",
    "kafka": "kafka://{at}/{name}?group={name}&offset=earliest",
}
"""At least once where that is to be had: nothing that was confirmed may be missing."""
FILE = "trial.db"
"""The file of sqlite3, in the trial's folder."""
QUICK = {"amqp": "&heartbeat=1", "mqtt": "&pingInterval=400", "nats": "&pingInterval=400"}
"""Options by which a server that has vanished is noticed soon."""
COMES_AGAIN_S = {"nats": 2.5}
"""A message that JetStream sent to a lost link comes again after `ack_wait`; until then nothing comes."""
CREATE = {
    "sqlite3": "CREATE TABLE IF NOT EXISTS {name} (n INTEGER, part INTEGER)",
    "postgres": "CREATE TABLE IF NOT EXISTS {name} (n BIGINT, part BIGINT)",
    "mysql": "CREATE TABLE IF NOT EXISTS {name} (n BIGINT, part BIGINT)",
    "clickhouse": "CREATE TABLE IF NOT EXISTS {name} (n Int64, part Int64) ENGINE = MergeTree ORDER BY n",
}


@cache
def backend(scheme: str) -> Server | None:
    """The server of a scheme; None where it has none. Unavailable says what to install."""
    if scheme == "sqlite3" or scheme not in ADDRESSES:
        return None
    folder = Path(tempfile.mkdtemp(prefix="adv-servers-"))
    folder.chmod(0o755)  # servers run as somebody else
    certs = make_certs(folder)
    made = _make(scheme, folder / scheme, certs)
    made.__enter__()
    _running.append((made, folder))
    return made


_running: list[tuple[Server, Path]] = []


@atexit.register
def end_all() -> None:
    """End the servers; the next trial starts its own."""
    backend.cache_clear()
    while _running:
        server, folder = _running.pop()
        server.discard()
        shutil.rmtree(folder, ignore_errors=True)


def _make(scheme: str, folder: Path, certs: Certs) -> Server:
    given = (folder, certs)
    if scheme == "postgres":
        return Postgres(*given)
    if scheme == "mysql":
        # What is committed is with the system when the statement returns.
        return MariaDb(*given, arguments=["--innodb-flush-log-at-trx-commit=2"])
    if scheme == "clickhouse":
        return ClickHouse(*given)
    if scheme == "mqtt":
        return Mosquitto(*given, persistence=True)
    if scheme == "nats":
        return Nats(*given, jetstream=True)
    if scheme == "amqp":
        return RabbitMq(*given)
    try:
        Kafka.available()
    except Unavailable:
        return KafkaMock(*given)
    return Kafka(*given)


def prepare(scheme: str, name: str) -> None:
    """Make what a trial's address names and Dial does not make."""
    server = backend(scheme)
    if scheme == "nats":
        assert server is not None
        asyncio.run(_make_stream(server.port, name))
    elif isinstance(server, Kafka):
        server.create(name, 1)


async def _make_stream(port: int, name: str) -> None:
    client = await nats.connect(f"nats://127.0.0.1:{port}")
    await client.jetstream().add_stream(name=name, subjects=[name])
    await client.close()
