"""The language of proxy, broker and worker. Knows no socket, no driver and no connection.

`envelope` has the frames and kinds of messages, `messages` their fields, `values` the data inside,
`state` the states of a connection, `stats` its figures. `docs/protocol.md` is the reference.
"""
