"""Connections that are read and written: the link, the buffer and who reads from it."""
