"""The parts of `trunkline demo`."""
