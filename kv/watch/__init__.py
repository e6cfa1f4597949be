"""Looks at the other modules, which know nothing of it: a trace of the loop, and its picture.

What may live here: what shows how the program works while it runs. What must not: anything that the
program needs in order to work. A test reads the imports of the other modules to keep it so.
"""
