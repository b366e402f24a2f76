"""Reaching a peer: sockets, TLS, proxies, and whether it still lives."""
