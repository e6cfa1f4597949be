"""Looks at the rest, which knows nothing of it: a trace of what the loop does, and its picture.

What may live here: whatever shows how the program works while it does. What must not: anything
that the program needs in order to work. A test reads the imports of the rest to keep it so.
"""
