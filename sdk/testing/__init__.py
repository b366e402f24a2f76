"""Tools for tests of programs and of drivers that use Trunkline."""

from trunkline.testing.faultproxy import FaultProxy, Way

__all__ = ["FaultProxy", "Way"]
