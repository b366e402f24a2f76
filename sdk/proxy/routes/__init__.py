"""The ways a message takes between a program and its worker: by the router, by a stream, by requests."""
