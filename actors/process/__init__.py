"""The process of one connection, whatever its scheme."""
