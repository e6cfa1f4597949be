"""Moves octets and never waits: the loop, connections, listening, connecting, standard streams.

What may live here: what any protocol of lines over non-blocking sockets needs. What must not: a
key, a value, RSA, a word of this project's protocol. From `kv`, these modules import only each
other. A test reads the imports to keep it so.
"""
