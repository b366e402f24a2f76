"""Loaded by every interpreter that a test starts with this folder in PYTHONPATH: names of the test's choice.

`TRUNKLINE_TEST_NAMES` is JSON, `{"ws.okx.com:8443": 40123}`: that host and port are at that port of
127.0.0.1. Every other name that is not this machine does not exist, so that no test can leave it.

librdkafka asks the system itself; what it is given as `bootstrap.servers` is changed instead.
"""

import importlib.machinery
import json
import os
import socket
import sys
from typing import Any

_NAMES = json.loads(os.environ.get("TRUNKLINE_TEST_NAMES", "{}"))
_LOCAL = (None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::")
_resolve = socket.getaddrinfo


def _getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
    name = host.decode() if isinstance(host, bytes) else host
    mapped = _NAMES.get(f"{name}:{port}")
    if mapped is not None:
        return _resolve("127.0.0.1", mapped, *args, **kwargs)
    if name not in _LOCAL:
        raise socket.gaierror(socket.EAI_NONAME, f"{name} is not known in this test")
    return _resolve(host, port, *args, **kwargs)


def _mapped(config: Any) -> Any:
    places = str(config.get("bootstrap.servers", "")).split(",")
    found = [f"127.0.0.1:{_NAMES[place]}" if place in _NAMES else place for place in places]
    return {**config, "bootstrap.servers": ",".join(found)}


class _KafkaNames:
    """Finds confluent-kafka's C module, and puts classes in it that change the servers they are given."""

    module = "confluent_kafka.cimpl"

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name == self.module else None
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                run(module)
                for kind in ("Consumer", "Producer", "_AdminClientImpl"):
                    setattr(module, kind, _renamed(getattr(module, kind)))

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _renamed(kind: Any) -> Any:
    def begin(self: Any, *args: Any, **kwargs: Any) -> None:
        if args and isinstance(args[0], dict):
            args = (_mapped(args[0]), *args[1:])
        else:
            kwargs = _mapped(kwargs)
        kind.__init__(self, *args, **kwargs)

    return type(kind.__name__, (kind,), {"__init__": begin})


socket.getaddrinfo = _getaddrinfo
sys.meta_path.insert(0, _KafkaNames())  # type: ignore[arg-type]
