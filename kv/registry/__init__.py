"""Several servers, one service: which of them holds a client id is kept in a Redis or Valkey.

What may live here: whatever is said to that registry and follows from its answers. What must not:
a word of this project's own protocol, a session, a value. Optional reading: a server without
`--registry` imports nothing of this.

    resp.py      how it is said: commands out, replies in; sans-I/O
    claims.py    what is said: which ids are held, and for how long; sans-I/O, the clock is given
    registry.py  the connection, on `net`: who claims, and is told
"""
