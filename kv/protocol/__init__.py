"""Knows what the lines mean: keys, sealed messages, commands, sessions.

What may live here: what decides which words are said, and what is stored. What must not: a socket,
a selector, a clock. From `kv`, these modules import only each other and the errors. A test reads
the imports to keep it so.
"""
