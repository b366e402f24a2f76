"""Addresses: the text that `Dial` takes, parsed without any I/O.

parse.py       parse_address: scheme, target, options, in that order
schemes/       the schemes, one row each            options.py    the options, one row each
installed.py   schemes that others bring            params.py     the brokers' parameters
separator.py   where target, options and values end  values.py    reading one option's value
unknown.py     the sentence for a name that is none  nearest.py   the one that was meant
plain.py       sockets, WebSocket, schemes of others
brokers.py     mqtt nats amqp kafka; several servers are in servers.py, the values of parameters in
                   broker_values.py, the files among them in broker_files.py
databases.py   which text is the DSN; the Go drivers' grammars are in mysql.py, postgres.py + conninfo.py,
                   clickhouse.py + clickhouse_params.py and sqlite.py
golang.py      Go's rules that the DSNs rest on     host.py       host names and ports
model.py       Address                              proxy.py      Proxy
redaction.py   what may not be shown
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
