"""The ladder: one small server in nine steps, and the peers that try each of them.

What all of them serve is the same. A client sends lines; each comes back in upper case, with a
number in front: how many lines the server has answered so far.

    make ladder            the grid: which step survives which peer
    make ladder STEP=4     one step: its code, what it adds, whom it survives, and why not

A step is a program of its own, and runs as one: `python -m tests.ladder.step_4_buffers 4242`.
"""

import sys
from pathlib import Path

# `patience`, by the name that it has for pytest.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
