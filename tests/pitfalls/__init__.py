"""The gallery: each pitfall, seen failing and seen handled.

A file is a pitfall, `test_06_short_send.py` the sixth. Its docstring has the title and the
situation; each class in it is one way to fall: what is usually written, as a small replacement of
something in `kv/`, and one scenario, which runs twice. With the usual code it has to fail in the
way described; with this project's it has to hold. See `pitfall.py`.

    make pitfalls          the gallery, one entry after the other
    make pitfalls N=6      one of them in full
    make pitfalls N=6 START=mine.py    writes a file with the usual code of it, to be bettered
    make pitfalls N=6 TRY=mine.py      says whether the code in that file holds
"""

import sys
from pathlib import Path

# `house`, `wire` and `simulation`, by the names that they have for pytest.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
