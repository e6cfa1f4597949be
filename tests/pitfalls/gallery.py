"""The entries of the gallery, read from their files."""

import importlib
from dataclasses import dataclass
from pathlib import Path

from .pitfall import ROOT, Pitfall

HERE = Path(__file__).resolve().parent


@dataclass
class Entry:
    """One file of the gallery."""

    number: int
    title: str
    situation: str
    ways: list[type[Pitfall]]
    path: str

    @classmethod
    def read(cls, path: Path) -> "Entry":
        """What a file has to say."""
        module = importlib.import_module(f"{__package__}.{path.stem}")
        title, _, situation = (module.__doc__ or "").strip().partition("\n\n")
        ways = [
            thing
            for thing in vars(module).values()
            if isinstance(thing, type) and issubclass(thing, Pitfall) and thing is not Pitfall
        ]
        number = int(path.stem.split("_")[1])
        return cls(number, title, situation, ways, str(path.relative_to(ROOT)))


def gallery() -> list[Entry]:
    """All entries, in order."""
    return [Entry.read(path) for path in sorted(HERE.glob("test_[0-9][0-9]_*.py"))]
