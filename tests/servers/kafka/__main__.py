"""`python -m tests.servers.kafka`: have Apache Kafka's jars in the cache, so that tests need no network."""

import sys

from tests.servers.base import Unavailable
from tests.servers.kafka import fetch

try:
    print(fetch())
except Unavailable as error:
    sys.exit(f"{error}\nUntil then the tests use librdkafka's mock broker instead of Apache Kafka.")
