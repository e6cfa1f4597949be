"""What a program must not do with a client, a hundred times instead of ten."""

import test_library_misuse
from test_library_misuse import *  # noqa: F403 (its tests, and their fixtures)

test_library_misuse.TIMES = 100
