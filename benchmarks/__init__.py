"""Measurements against other libraries, as ratios within a run (`scripts/bench`)."""
