"""What proxy, broker and worker say to each other. Knows no socket, no driver and no connection.

`envelope` is the frames and the kinds of messages, `values` the data inside, `state` the life of a
connection, `stats` its figures. `docs/protocol.md` is the reference.
"""
