"""Random faults on the running system: real programs, brokers, workers and servers, and what must hold.

`scripts/adversary` runs it; docs/testing.md says how. A trial (`steps`) is made from a seed; `runner`
carries it out on a `world` of real processes. `program` is the strategy under trial and `peer` its
other end. `checks` compares what they wrote down. A trial that fails is shrunk and printed as a line
that replays it.
"""
