"""What every driver must do, as classes of tests: the author of a driver subclasses one and runs pytest.

`StreamContract` is for drivers that are read and written; its subclass has a fixture `peer`, which gives a
`ScriptedPeer` (a `ProxiedPeer` where the server stands behind a `FaultProxy`). `ExecContract` is for
databases with transactions, `StatementContract` for databases without them; their subclass has a fixture
`address`. Trunkline's own drivers pass the same classes.
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
