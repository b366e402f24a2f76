"""Addresses: the text for `Dial`, parsed without any I/O.

* parse.py: `parse_address`, which reads scheme, target and options, in that order
* separator.py: the borders of target, options and values
* schemes/: the schemes, a row each; installed.py: schemes of other distributions
* options.py: the options, a row each; values.py: reading an option's value
* params.py: the parameters of message brokers; broker_values.py: reading a parameter's value
* unknown.py: the error for an unknown name; nearest.py: the name that was probably meant
* plain.py: sockets, WebSocket and foreign schemes
* brokers.py: message brokers; servers.py: several servers; broker_files.py: files among parameters
* databases.py: databases; the Go drivers' grammars are in mysql.py, postgres.py + conninfo.py,
  clickhouse.py + clickhouse_params.py and sqlite.py
* golang.py: Go's rules for the DSNs; host.py: host names and ports
* model.py: `Address`; proxy.py: `Proxy`; redaction.py: hiding secrets
"""

from __future__ import annotations

from trunkline.address.model import Address
from trunkline.address.options import OPTIONS, Option
from trunkline.address.params import PARAMS
from trunkline.address.parse import parse_address
from trunkline.address.proxy import Proxy
from trunkline.address.redaction import redact
from trunkline.address.schemes import SCHEMES, Param, Scheme

__all__ = [
    "OPTIONS",
    "PARAMS",
    "SCHEMES",
    "Address",
    "Option",
    "Param",
    "Proxy",
    "Scheme",
    "parse_address",
    "redact",
]
