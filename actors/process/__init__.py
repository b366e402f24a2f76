"""The process of one connection, for every scheme."""
