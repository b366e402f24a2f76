"""Connections that are read and written: the link, the buffer, and the holders that read."""
