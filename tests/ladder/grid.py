"""The grid: every step against every peer, and what has to come out."""

import ast
import contextlib
import io
import resource
import tokenize
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from patience import patience

from .server import HERE, Red, Server
from .troupe import TROUPE, Peer

#: A cell is "ok", or the word for how that step fails; `make ladder STEP=n` says more.
EXPECTED = """
                     1       2       3       4       5       6       7       8       9
in pieces           ok      ok      mixed   ok      ok      ok      ok      ok      ok
several at once     ok      ok      mixed   ok      ok      ok      ok      ok      ok
one beside          waits   ok      ok      ok      ok      ok      ok      ok      ok
half-closer         ok      ok      mixed   dies    lost    lost    ok      ok      ok
slow reader         waits   ok      mixed   dies    ok      ok      ok      ok      ok
never reads         waits   ok      dies    dies    grows   ok      ok      ok      ok
endless line        grows   grows   mixed   grows   grows   ok      ok      ok      ok
greedy              waits   ok      mixed   unfair  unfair  ok      ok      ok      ok
a thousand idle     waits   ok      dies    ok      ok      ok      ok      ok      ok
resetter            dies    ok      dies    dies    ok      ok      ok      ok      ok
no descriptors      ok      dies    dies    dies    spins   ok      ok      ok      ok
goes on             grows   grows   mixed   grows   grows   lost    ok      ok      ok
silent              stays   stays   stays   stays   stays   stays   ok      ok      ok
SIGTERM             lost    lost    lost    lost    lost    lost    lost    ok      ok
"""

WIDTH = 20  # of the column of names

LEGEND = {
    "ok": "survives: every client gets its replies",
    "waits": "one client is not served for as long as another is there",
    "mixed": "the server takes pieces for lines",
    "dies": "the server ends with a traceback",
    "lost": "some replies do not arrive",
    "grows": "the server takes everything, and keeps it in memory",
    "unfair": "the server answers all of one client's lines before the one line of another",
    "spins": "the server uses a whole processor, and does nothing",
    "stays": "a silent client keeps its place for ever",
}


@dataclass
class Step:
    """One program."""

    number: int
    path: Path

    @property
    def name(self) -> str:
        """What it adds, in a word or two."""
        return self.path.stem.split("_", 2)[2].replace("kv_net", "kv.net").replace("_", " ")

    @property
    def module(self) -> str:
        """What `python -m` calls it."""
        return f"tests.ladder.{self.path.stem}"

    @property
    def program(self) -> tuple[str, dict[str, str]]:
        """What to give Python to run it, and what is expected of it."""
        return f"-m {self.module}", expected(self)

    @property
    def length(self) -> int:
        """Its lines of code, imports left out."""
        return lines_of_code(self.path.read_text())

    @property
    def sentences(self) -> str:
        """What a teacher would say."""
        return " ".join(self.path.read_text().split('"""')[1].split())


@dataclass
class Cell:
    """What became of a step and a peer."""

    word: str
    told: str


#: Tokens that make no line of code.
NO_CODE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE),
    *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
}


def lines_of_code(text: str, imports: bool = False) -> int:
    """How many lines have code. Docstrings, comments and blank lines do not count."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    code = {
        line
        for token in tokens
        if token.type not in NO_CODE
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(text)):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if docstring or (not imports and isinstance(node, ast.Import | ast.ImportFrom)):
            code -= set(range(node.lineno, (node.end_lineno or 0) + 1))
    return len(code)


STEPS = [Step(int(path.stem.split("_")[1]), path) for path in sorted(HERE.glob("step_*.py"))]


def expected(step: Step) -> dict[str, str]:
    """A step's column of the grid: its word for each peer."""
    head, *rows = EXPECTED.strip("\n").splitlines()
    column = head.split().index(str(step.number))
    return {row[:WIDTH].strip(): row[WIDTH:].split()[column] for row in rows}


def tried(program: str, peer: Peer, word: str | None = None) -> Cell:
    """Has a peer try a program. `word` is what is expected, if anything is."""
    try:
        with Server(program, word, peer.descriptors, peer.arguments) as server:
            try:
                return Cell("ok", peer.act(server))
            except Red as red:
                found = Cell(red.word, str(red))
            except OSError as error:  # refused, or reset
                found = Cell("lost", str(error))
            status = server.status(patience(2) if word == "dies" else 0)
            if status is not None and status > 0:
                found = Cell("dies", server.last_words())
            return found
    except Red as red:  # it does not even start
        return Cell(red.word, str(red))


@contextlib.contextmanager
def descriptors(enough: int = 4096) -> Iterator[None]:
    """Raises the limit of descriptors, for the thousand."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, min(enough, hard) if hard != resource.RLIM_INFINITY else enough)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


Row = tuple[Peer, list[Cell]]


def tried_by_all(programs: list[tuple[str, dict[str, str]]], jobs: int = 4) -> Iterator[Row]:
    """Each peer, and what becomes of each program that it tries; `jobs` programs at a time.

    A program comes with the words that are expected, by the names of the peers.
    """
    with descriptors(), ThreadPoolExecutor(jobs) as pool:
        rows: list[tuple[Peer, list[Future[Cell]]]] = [
            (
                peer,
                [pool.submit(tried, name, peer, to_be.get(peer.name)) for name, to_be in programs],
            )
            for peer in TROUPE
        ]
        try:
            for peer, row in rows:
                yield peer, [future.result() for future in row]
        finally:
            pool.shutdown(cancel_futures=True)
