"""Loaded by every interpreter that a test starts with this folder in PYTHONPATH: names of the test's choice.

`TRUNKLINE_TEST_NAMES` is JSON, `{"ws.okx.com:8443": 40123}`: that host and port are at that port of
127.0.0.1. Every other name that is not this machine does not exist, so that no test can leave it.
"""

import json
import os
import socket
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


socket.getaddrinfo = _getaddrinfo
