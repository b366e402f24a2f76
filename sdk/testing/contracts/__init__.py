"""The contracts of drivers, as classes of tests. A driver's author subclasses a contract and runs
pytest.

`StreamContract` is for drivers that are read and written. Its subclass has a fixture `peer`, which
gives a `ScriptedPeer` (or a `ProxiedPeer` for a server behind a `FaultProxy`). `ExecContract` is
for databases with transactions, `StatementContract` for databases without transactions. Their
subclasses have a fixture `address`. Trunkline's own drivers pass the same contracts.
"""

from trunkline.testing.contracts.peers import ProxiedPeer, ScriptedPeer
from trunkline.testing.contracts.statements import ExecContract, StatementContract, rows
from trunkline.testing.contracts.stream import StreamContract, closing

__all__ = [
    "ExecContract",
    "ProxiedPeer",
    "ScriptedPeer",
    "StatementContract",
    "StreamContract",
    "closing",
    "rows",
]
