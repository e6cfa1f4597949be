"""Knows what the lines mean: keys, sealed messages, commands, sessions.

What may live here: whatever decides what is said and stored. What must not: a socket, a selector,
a clock. Nothing here imports from `kv` but its neighbours in this folder and the errors, and a test
reads the imports to keep it so.
"""
