"""The three ways of a message between a program and its worker: router, stream, requests."""
