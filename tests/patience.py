"""How long the tests wait for what has to come. All is well if nobody ever waits that long.

What is broken need not be waited for by every test that uses it: the first wait that is in vain
makes all later ones of its run short. PATIENCE in the environment is another bound, in seconds, for
a machine that is slow.
"""

import os

SHORT = 2.0


def patience(times: float = 1) -> float:
    """Seconds until a wait gives up, or `times` as many, for what takes longer than most."""
    return times * float(os.environ.get("PATIENCE", "20"))


def lose_patience() -> None:
    """From now on, waits are short."""
    os.environ["PATIENCE"] = str(min(SHORT, patience()))
