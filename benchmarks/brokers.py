"""Message brokers through Dial against the bare clients, on private real servers (tests/servers).

Every protocol has a module of its own. Measured are reading a feed of numbered messages, which must
arrive exactly once and in order, and writing with the broker's confirmation. The sides of a
comparison alternate. The bare client runs in this process, as its documentation shows, tuned as a
good user would, with the same guarantees: a message of qos 1, JetStream, amqp or a Kafka group is
acknowledged after it was taken, and a written message is confirmed.
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
    """The lines of these protocols.

    A protocol that fails gives a line with the reason, and the others go on. A missing server is no
    failure; lost messages, for example, count as a missed goal.
    """
    run = Run.begin()
    # If this process is killed, the keeper finds the servers by this variable.
    os.environ[RUN] = str(run.folder)
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
