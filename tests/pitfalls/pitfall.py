"""What an entry of the gallery is made of, and how it runs."""

import contextlib
import inspect
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]

#: Seconds after which a scenario that ought to hold is taken for hanging.
PATIENCE = 20.0


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
    #: The function or method, or where there is none the name ("kv.net.stream.KERNEL_BUFFER"),
    #: in which it is handled.
    handled: ClassVar[Any] = None
    #: What is usually written: dotted name -> what to put there instead, while the scenario runs.
    naive: ClassVar[dict[str, Any]] = {}
    #: Seconds after which the scenario with the usual code is taken for hanging.
    patience: ClassVar[float] = 5.0

    def scenario(self) -> str:
        """Says in one sentence what happened; raises `Failure` if that is the pitfall."""
        raise NotImplementedError

    def fails(self) -> str:
        """Runs the scenario with the usual code; what went wrong."""
        with contextlib.ExitStack() as stack:
            for name, replacement in self.naive.items():
                stack.enter_context(mock.patch(name, replacement))
            try:
                with bounded(self.patience):
                    held = self.scenario()
            except Failure as failure:
                return str(failure)
        raise AssertionError(f"the usual code did not fail: {held}")

    def holds(self) -> str:
        """Runs the scenario as things are; what happened."""
        with bounded(PATIENCE):
            return self.scenario()

    def test_what_is_usually_written_fails(self) -> None:
        """The pitfall is real."""
        assert self.fails() if self.naive else self.shown == "e"

    def test_this_holds(self) -> None:
        """The pitfall is handled."""
        assert self.holds()


@contextlib.contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Interrupts what hangs, a system call that blocks included, with a `Failure` that says so."""

    def interrupt(_number: int, frame: FrameType | None) -> None:
        while frame and "/kv/" not in frame.f_code.co_filename:
            frame = frame.f_back
        where = f" in {frame.f_code.co_qualname}" if frame else ""
        raise Failure(f"hangs{where}: interrupted after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def place(handled: Any) -> tuple[str, int, str]:
    """The file, the line and the name of what `handled` of a pitfall is."""
    if isinstance(handled, str):
        module, _, name = handled.rpartition(".")
        source = Path(sys.modules[module].__file__ or "")
        lines = source.read_text().splitlines()
        line = 1 + next(
            i for i, text in enumerate(lines) if text.startswith((f"{name} =", f"{name}:"))
        )
    else:
        handled = handled.fget if isinstance(handled, property) else handled
        source, name = Path(inspect.getsourcefile(handled) or ""), handled.__qualname__
        line = inspect.getsourcelines(handled)[1]
    return str(source.resolve().relative_to(ROOT)), line, name


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
