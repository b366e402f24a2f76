"""Found by every interpreter that has this folder in PYTHONPATH: puts the misbehaving driver in place of unix://."""

from trunkline.actors import registry

registry.DRIVERS["unix"] = "evil_driver:EvilDriver"
