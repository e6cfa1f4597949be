"""Starts `python -m ...` at once, in a process of its own: a fork of this one.

A new interpreter takes 0.1 s of processor time before it has imported kv, and the tests start
hundreds. From outside a fork is what a new process is: it has its own descriptors, signals and exit
status. What concerns the interpreter itself has to be started `afresh`: what it imports, how much
memory it takes, what it reads from its environment, standard descriptors that are closed.
"""

import contextlib
import fcntl
import gc
import logging
import os
import runpy
import signal
import subprocess
import sys
import termios
import traceback
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from patience import patience

import kv.__main__  # noqa: F401 (who is forked has it)
from kv.protocol.cipher import PrivateKey

ROOT = Path(__file__).resolve().parent.parent

#: What kv's server and client would make for themselves: half of what it takes to start one.
KEYS = {role: PrivateKey.generate() for role in ("server", "client")}


def start(
    *args: str, afresh: bool = False, terminal: int | None = None, **popen: Any
) -> subprocess.Popen[Any]:
    """`python ARGS`, in the repository's top directory, with `popen` for `subprocess.Popen`.

    `terminal` is the one whose keys make signals for it.
    """
    return subprocess.Popen([sys.executable, *args], **options(args, afresh, popen, terminal))


def run(*args: str, afresh: bool = False, **popen: Any) -> subprocess.CompletedProcess[Any]:
    """`python ARGS` to its end: what it printed, as text unless told otherwise, and its status."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    popen = {**pipes, "timeout": patience(3), **popen}
    if "input" not in popen:
        popen = {"stdin": subprocess.DEVNULL, **popen}
    return subprocess.run([sys.executable, *args], **options(args, afresh, popen), check=False)


def options(
    args: Sequence[str], afresh: bool, popen: dict[str, Any], terminal: int | None = None
) -> dict[str, Any]:
    """What to give `Popen`. It forks; a `preexec_fn` that never returns is all the child does."""
    popen = {"cwd": ROOT, **popen}
    env = popen.get("env") or os.environ
    if afresh or "preexec_fn" in popen or python(env) != python(os.environ):
        return popen
    return popen | {
        "preexec_fn": partial(be, args, dict(env), popen.get("pass_fds", ()), terminal),
        "restore_signals": False,
        "start_new_session": terminal is not None or popen.get("start_new_session", False),
    }


def python(env: Mapping[str, str]) -> dict[str, str]:
    """The variables that an interpreter looks at when it starts."""
    return {name: value for name, value in env.items() if name.startswith("PYTHON")}


def be(
    args: Sequence[str],
    env: dict[str, str],
    kept: Sequence[int],
    terminal: int | None,
) -> NoReturn:
    """Runs `python ARGS` in this process, which has just been forked, and ends it."""
    status = 1
    try:
        gc.freeze()  # no object of the tests' is collected here
        if terminal is not None:
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored by what runs in the background
        as_new(env, kept)
        if key := KEYS.get(" ".join(args[2:3])) if args[1] == "kv" else None:
            make = PrivateKey.generate
            PrivateKey.generate = lambda bits: key if bits == 512 else make(bits)
        status = main(args)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        os._exit(status)


def as_new(env: dict[str, str], kept: Sequence[int]) -> None:
    """Leaves behind what a new process does not inherit: handlers, descriptors, what tests set."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in [int(path.name) for path in Path("/dev/fd").iterdir()]:
        if number > 2 and number not in kept:
            with contextlib.suppress(OSError):  # it was that of this listing
                os.close(number)
    sys.stdin, sys.stdout = (open(n, "rw"[n], closefd=False) for n in (0, 1))  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.excepthook, sys.unraisablehook = sys.__excepthook__, sys.__unraisablehook__
    warnings.simplefilter("ignore")
    for log in (logging.getLogger(), logging.getLogger("kv")):
        log.handlers.clear()
        log.filters.clear()
    os.environ.clear()
    os.environ.update(env)


def main(args: Sequence[str]) -> int:
    """What the interpreter does with `-m MODULE` or `-c CODE`."""
    option, what, *rest = args
    sys.argv = [option, *rest]
    sys.modules["__main__"] = ModuleType("__main__")
    if option == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        assert option == "-c", option
        exec(compile(what, "<string>", "exec"), sys.modules["__main__"].__dict__)
    return 0
