"""The message brokers through Dial against the same client used bare, on private real servers
(tests/servers).

Per protocol, in a module each: reading a feed of numbered messages, every one of which must arrive once and
in order, and writing with the broker's confirmation. The sides of one comparison alternate. The bare client
is used in this process as its documentation shows it, tuned as a good user would, with the same guarantees:
a message of qos 1, JetStream, amqp or a Kafka group is acknowledged after it was taken, a written one is
confirmed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from benchmarks import broker_amqp, broker_kafka, broker_mqtt, broker_nats, broker_nats_leader
from benchmarks.measure import Line
from tests.servers.base import RUN, Unavailable
from tests.servers.run import Run

__all__ = ["BROKERS", "measure_brokers"]

BROKERS: dict[str, Callable[[Run, bool], Iterator[Line]]] = {
    "mqtt": broker_mqtt.measure,
    "nats": broker_nats.measure,
    "leader": broker_nats_leader.measure,
    "amqp": broker_amqp.measure,
    "kafka": broker_kafka.measure,
}


def measure_brokers(names: list[str], quick: bool) -> Iterator[Line]:
    """The lines of these protocols. One that cannot be measured says why and does not stop the others: its
    server is not there, or (that counts as missed) it failed, because messages were lost for instance."""
    run = Run.begin()
    os.environ[RUN] = str(run.folder)  # by this the keeper finds the servers, should we be killed
    try:
        for name in names:
            try:
                yield from BROKERS[name](run, quick)
            except Unavailable as error:
                yield Line(f"{name}: not measured", str(error), "", None)
            except Exception as error:
                yield Line(f"{name}: failed", f"{type(error).__name__}: {error}", "", False)
    finally:
        run.end()
        del os.environ[RUN]
