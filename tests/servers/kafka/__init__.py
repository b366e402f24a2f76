"""Apache Kafka, one node (KRaft): its jars come through Maven, once, into the user's cache.

Where there is no Java or no Maven, `KafkaMock`: the broker inside librdkafka, without TLS and logins.
"""

from tests.servers.kafka.apache import Kafka, fetch
from tests.servers.kafka.mock import KafkaMock

__all__ = ["Kafka", "KafkaMock", "fetch"]
