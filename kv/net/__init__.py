"""Moves octets and never waits: the loop, connections, listening, connecting, standard streams.

What may live here: whatever any protocol of lines over non-blocking sockets needs. What must not:
a key, a value, RSA, a word of this project's protocol. Nothing here imports from `kv` but its
neighbours in this folder, and a test reads the imports to keep it so.
"""
