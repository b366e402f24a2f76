"""librdkafka's mock cluster as a server: what there is where Apache Kafka is not.

Its own process: `python -m tests.servers.kafka.mock FILE` writes the address into the file. It keeps
everything in memory, has no TLS and no logins, makes no topics on request, and takes another port each time.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from tests.servers.base import Server, Unavailable, exchange

__all__ = ["KafkaMock"]

_ROOT = Path(__file__).parents[3]
_PRODUCER = 0


class KafkaMock(Server):
    """Port: `plain`."""

    title = "librdkafka's mock broker (not Apache Kafka)"
    program = "python"
    install = "install confluent-kafka"
    port_names = ("plain",)
    # The interpreter may be where nobody else can read it.
    unprivileged = False
    real: ClassVar[bool] = False

    @classmethod
    def available(cls) -> str:
        try:
            _library()
        except (ImportError, OSError, StopIteration):
            raise Unavailable(
                "neither Apache Kafka nor librdkafka's mock broker is there: run scripts/setup test"
            ) from None
        return sys.executable

    def at(self, name: str) -> str:
        """host:port of a named port."""
        return f"127.0.0.1:{self.ports[name]}"

    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])}

    def command(self) -> Sequence[str | Path]:
        (self.folder / "address").unlink(missing_ok=True)
        return [self.available(), "-m", "tests.servers.kafka.mock", self.folder / "address"]

    def greets(self) -> bool:
        self.ports["plain"] = int((self.folder / "address").read_text().strip().rpartition(":")[2])
        versions = b"\x00\x12\x00\x00\x00\x00\x00\x01\x00\x05ready"
        return bool(exchange(self.port, len(versions).to_bytes(4, "big") + versions))


def _library() -> Path:
    """The librdkafka that came with confluent-kafka."""
    spec = importlib.util.find_spec("confluent_kafka")
    if spec is None or spec.origin is None:
        raise ImportError("confluent_kafka")
    package = Path(spec.origin).parent
    found = [
        *package.parent.glob("confluent_kafka.libs/librdkafka*"),
        *package.glob(".dylibs/librdkafka*"),
    ]
    return next(iter(sorted(found)))


def main() -> None:
    library = ctypes.CDLL(str(_library()))
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    library.rd_kafka_conf_new.restype = pointer
    library.rd_kafka_new.restype = pointer
    library.rd_kafka_new.argtypes = [ctypes.c_int, pointer, text, ctypes.c_size_t]
    library.rd_kafka_mock_cluster_new.restype = pointer
    library.rd_kafka_mock_cluster_new.argtypes = [pointer, ctypes.c_int]
    library.rd_kafka_mock_cluster_bootstraps.restype = text
    library.rd_kafka_mock_cluster_bootstraps.argtypes = [pointer]
    library.rd_kafka_mock_group_initial_rebalance_delay_ms.argtypes = [pointer, ctypes.c_int]
    problem = ctypes.create_string_buffer(512)
    client = library.rd_kafka_new(_PRODUCER, library.rd_kafka_conf_new(), problem, len(problem))
    if not client:
        sys.exit(f"librdkafka: {problem.value.decode()}")
    cluster = library.rd_kafka_mock_cluster_new(client, 1)
    library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0)
    address = Path(sys.argv[1])
    fresh = address.with_name("address.new")
    fresh.write_bytes(library.rd_kafka_mock_cluster_bootstraps(cluster))
    fresh.rename(address)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
