"""The entries of the gallery, read from their files."""

import importlib
from dataclasses import dataclass
from pathlib import Path

from .pitfall import ROOT, Pitfall

HERE = Path(__file__).resolve().parent

#: The groups of the table, and the pitfalls in each, also those that have no entry yet.
GROUPS = {
    "Octets and lines": [1, 2, 5, 6, 7, 8, 10, 11, 34, 36, 39],
    "Closing": [3, 4, 12, 13, 14, 37],
    "Accepting": [16, 17, 18, 19, 20, 21, 46],
    "Time and fairness": [9, 15, 22, 23, 24, 25, 26, 38, 40],
    "The process": [27, 28, 29, 30, 31, 32, 35, 41, 42, 43, 44, 45, 47],
    "Connecting": [33, 48],
    "TLS": [49, 50, 51, 52, 53],
    "Somebody else's answer": [54, 55],
}


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


def grouped(entries: list[Entry]) -> dict[str, list[Entry]]:
    """The entries by group. Every entry is in one; a group without entries is left out."""
    members = {
        group: [entry for entry in entries if entry.number in numbers]
        for group, numbers in GROUPS.items()
    }
    return {group: found for group, found in members.items() if found}
