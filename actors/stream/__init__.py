"""Stream connections, which are read and written: the link, the buffer and the holders."""
