"""The gallery: each pitfall, seen failing and seen handled.

Each file is a pitfall: `test_06_short_send.py` is the sixth. Its docstring has the title and the
situation. Each class in it is one way to fall into the pitfall: the usual code, as a small
replacement of something in `kv/`, and a scenario. The scenario runs twice. With the usual code it
has to fail as described, and with this project's code it has to hold. See `pitfall.py`.

    make pitfalls          the gallery, one entry after the other
    make pitfalls N=6      one of them in full
    make pitfalls N=6 START=mine.py    writes a file with its usual code, for an exercise
    make pitfalls N=6 TRY=mine.py      says whether the code in that file holds
"""

import sys
from pathlib import Path

# `house`, `wire` and `simulation`, by the names that they have for pytest.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
