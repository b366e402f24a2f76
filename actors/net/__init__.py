"""Reaching a peer: sockets, TLS, proxies, and checks of whether the peer still lives."""
