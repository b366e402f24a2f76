"""Which servers a run shares, by the names of their fixtures."""

from __future__ import annotations

from tests.servers.base import Server
from tests.servers.clickhouse import ClickHouse
from tests.servers.kafka import Kafka, KafkaMock
from tests.servers.mariadb import MariaDb
from tests.servers.mosquitto import Mosquitto
from tests.servers.nats import JetStream, Nats
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import RabbitMq
from tests.servers.redis import Redis

__all__ = ["KINDS", "SHARED"]

SHARED: dict[str, tuple[type[Server], ...]] = {
    "rabbitmq": (RabbitMq,),
    "private_rabbitmq": (RabbitMq,),
    "kafka": (Kafka, KafkaMock),
    "private_kafka": (Kafka,),
    "postgres": (Postgres,),
    "mariadb": (MariaDb,),
    "clickhouse": (ClickHouse,),
    "mosquitto": (Mosquitto,),
    "nats_server": (Nats,),
    "jetstream": (JetStream,),
    "redis_server": (Redis,),
}
"""The slow ones first. Of several kinds the first that is there is taken."""

KINDS = {kind.__name__: kind for kinds in SHARED.values() for kind in kinds}
