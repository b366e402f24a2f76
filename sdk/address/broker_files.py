"""Files among a message broker's parameters: the worker's folder is not the caller's folder."""

from __future__ import annotations

import os.path
import re
from collections.abc import Mapping
from typing import Any

from trunkline.address.params import find_param

__all__ = ["resolve_params"]

# librdkafka's files: certificates and keys, Kerberos' keytab, OAuth's assertion.
_PROPERTY = re.compile(r".*\.(location|file|keytab)")
# With this word librdkafka looks for the system's certificates.
_PROBE = "probe"
# A NATS seed, which may be written in the place of its file's name.
_SEED = re.compile(r"S[A-Z2-7]{57}")


def resolve_params(
    protocol: str, params: Mapping[str, str], extra: Mapping[str, Any], folder: str
) -> tuple[dict[str, str], dict[str, Any]]:
    """The parameters and `extra` with relative files made absolute against `folder`."""
    absolute = {
        name: os.path.join(folder, value) if _is_file(protocol, name, value) else value
        for name, value in params.items()
    }
    if "librdkafka" not in extra:
        return absolute, dict(extra)
    return absolute, {**extra, "librdkafka": {name: absolute[name] for name in extra["librdkafka"]}}


def _is_file(protocol: str, name: str, value: str) -> bool:
    """Whether a parameter's value is the path of a file."""
    param = find_param(protocol, name)
    if param is not None and param.kind == "property":
        return _PROPERTY.fullmatch(name) is not None and value != _PROBE
    inline = _SEED.fullmatch(value) or "-----BEGIN" in value
    return param is not None and param.kind == "file" and bool(value) and not inline
