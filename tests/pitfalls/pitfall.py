"""What an entry of the gallery is made of, and how it runs."""

import ast
import contextlib
import inspect
import logging
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, NoReturn
from unittest import mock

from patience import bounded as bounded_by
from patience import patience

ROOT = Path(__file__).resolve().parents[2]
#: Whose code may be said to hang: this project's, and a learner's.
OURS = re.compile("/kv/(?!watch/)")
ATTEMPT = "attempt"


class Failure(BaseException):
    """A scenario saw the pitfall. No `except Exception` on the way out can hide it."""


class Pitfall:
    """One way to fall. Subclasses are named Test…, which is how pytest finds them.

    The docstring says what the scenario does.
    """

    #: How it is shown: "r" on real sockets, "s" in the simulator, "m" measured in counts; "e" is
    #: explained, and its setting checked, because the effect is out of reach: no `naive` then.
    shown: ClassVar[str] = "r"
    #: What happens with the usual code, as the end of "What is usually written: …".
    usually: ClassVar[str] = ""
    #: How a trace shows where it goes wrong (see `moments.py`), or why no trace does.
    wrong: ClassVar[Any] = None
    unseen: ClassVar[str] = "no code falls into it where a test could see that"
    #: The function or method that handles the pitfall, or the name of a constant that does
    #: ("kv.net.tcp.KERNEL_BUFFER").
    handled: ClassVar[Any] = None
    #: What is usually written: dotted name -> what to put there instead, while the scenario runs.
    naive: ClassVar[dict[str, Any]] = {}
    #: It measures the process, and what has run there before counts: its exercise needs a new one.
    alone: ClassVar[bool] = False
    #: Seconds after which the scenario with the usual code is taken for hanging.
    patience: ClassVar[float] = 5.0

    def scenario(self) -> str:
        """Returns a sentence that says what happened. Raises `Failure` if that is the pitfall."""
        raise NotImplementedError

    def run(self, instead: dict[str, Any], patience: float) -> str:
        """Runs the scenario. The names in `instead` are replaced by their values meanwhile."""
        with contextlib.ExitStack() as stack:
            for name, replacement in instead.items():
                stack.enter_context(mock.patch(name, replacement))
            with bounded(patience):
                return self.scenario()

    def fails(self) -> str:
        """Runs the scenario with the usual code; what went wrong."""
        try:
            held = self.run(self.naive, self.patience)
        except Failure as failure:
            return str(failure)
        raise AssertionError(f"the usual code did not fail: {held}")

    def holds(self) -> str:
        """Runs the scenario with this project's code. Returns what happened."""
        return self.run({}, patience(2))

    def test_what_is_usually_written_fails(self) -> None:
        """The pitfall is real."""
        assert self.fails() if self.naive else self.shown == "e"

    def test_this_holds(self) -> None:
        """The pitfall is handled."""
        assert self.holds()


def bounded(seconds: float) -> contextlib.AbstractContextManager[None]:
    """Interrupts code that hangs with a `Failure`."""

    def interrupt(_number: int, frame: FrameType | None) -> NoReturn:
        while frame and not (
            OURS.search(frame.f_code.co_filename) or frame.f_globals["__name__"] == ATTEMPT
        ):
            frame = frame.f_back
        where = f" in {frame.f_code.co_qualname}" if frame else ""
        if frame and frame.f_globals["__name__"] == ATTEMPT:
            where += f" (line {frame.f_lineno} of the file)"
        raise Failure(f"hangs{where}: interrupted after {seconds:g} s")

    return bounded_by(seconds, interrupt)


@contextlib.contextmanager
def mistakes() -> Iterator[list[BaseException]]:
    """Collects the exceptions that the program logs meanwhile."""
    made: list[BaseException] = []

    def logged(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1]:
            made.append(record.exc_info[1])
        return not record.exc_info

    log = logging.getLogger("kv")
    log.filters.insert(0, logged)  # one within another comes first
    try:
        yield made
    finally:
        log.removeFilter(logged)


def place(handled: Any) -> tuple[str, int, str]:
    """The file, the line and the name of the `handled` of a pitfall."""
    if isinstance(handled, str):
        module, _, name = handled.rpartition(".")
    else:
        handled = handled.fget if isinstance(handled, property) else handled
        module, name = handled.__module__, handled.__qualname__
    source = Path(sys.modules[module].__file__ or "").resolve()
    return str(source.relative_to(ROOT)), line_of(source, name), name


def line_of(source: Path, name: str) -> int:
    """The line of a file where `name` is defined, like "Stream.flush" or "BATCH".

    It is that of the `def` or `class`, not of a decorator above it. Raises `LookupError`.
    """
    body = ast.parse(source.read_text()).body
    line = 0
    for part in name.split("."):
        found = next((node for node in statements(body) if part in defined(node)), None)
        if found is None:
            raise LookupError(f"{source} does not define {name}")
        body, line = getattr(found, "body", []), found.lineno
    return line


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module or class, with those under an `if`."""
    for node in body:
        yield from statements([*node.body, *node.orelse]) if isinstance(node, ast.If) else [node]


def defined(node: ast.stmt) -> list[str]:
    """The names that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [target.id for target in targets if isinstance(target, ast.Name)]
    return []


def sources(things: Any) -> str:
    """The source of each of `things`: functions in full, values as `name = value`."""
    parts = []
    for name, thing in things:
        if callable(thing) and hasattr(thing, "__code__"):
            parts.append(inspect.cleandoc("\n" + inspect.getsource(thing)))
        else:
            parts.append(f"{name.rpartition('.')[2]} = {thing!r}")
    return "\n\n".join(parts)


Runner = Callable[[], str]
