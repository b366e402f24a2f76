"""The interpreter and the operating system that a process of Trunkline runs on."""
