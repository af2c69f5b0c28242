"""The event log on LMDB: the only truth. Knows no sockets and no roles."""
