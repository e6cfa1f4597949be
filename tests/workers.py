"""Runs the tests in two processes for each processor; what is printed is pytest's own.

Once pytest has collected the tests, it forks. Each worker takes the next file until none is left,
and sends its reports to the first process, which hands them to pytest as if it had run them. So
`-x`, `--durations` and `--lf` work. One file, `-s` and `--pdb` need no workers. There are at
most four, since some tests look at how programs share a processor.

And a test that never ends fails in the end, so that the others run.
"""

import itertools
import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.synchronize import Event
from types import FrameType
from typing import Any, NoReturn

import pytest
from patience import bounded, patience

FORK = multiprocessing.get_context("fork")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--jobs",
        type=int,
        default=min(4, 2 * (os.cpu_count() or 1)),
        help="processes that run tests (two for each processor, at most 4)",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    seconds = patience(15)

    def interrupt(_number: int, frame: FrameType | None) -> NoReturn:
        pytest.fail(f"hangs: interrupted after {seconds:g} s")

    with bounded(seconds, interrupt):
        return (yield)


pytest_runtest_setup = pytest_runtest_call


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Does what pytest's own loop does, which runs if this returns None."""
    config, option = session.config, session.config.option
    files = [list(tests) for _, tests in itertools.groupby(session.items, lambda test: test.path)]
    jobs = min(option.jobs, len(files))
    alone = option.collectonly or option.usepdb or option.capture == "no"
    if jobs < 2 or alone or session.testsfailed:
        return None
    config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined] # one for all
    queue, sink = os.pipe()
    os.write(sink, b"".join(number.to_bytes(2) for number in range(len(files))))
    os.close(sink)
    stop = FORK.Event()
    workers, sources = [], []
    for _ in range(jobs):
        source, reports = FORK.Pipe(duplex=False)
        workers.append(FORK.Process(target=work, args=(session, files, queue, stop, reports)))
        workers[-1].start()
        reports.close()  # so that the end of the worker is the end of the pipe
        sources.append(source)
    os.close(queue)
    finished = 0
    try:
        for name, sent in received(sources):
            if name == "pytest_runtest_logreport":
                report = config.hook.pytest_report_from_serializable(config=config, data=sent)
                config.hook.pytest_runtest_logreport(report=report)
            else:
                config.hook.pytest_runtest_logfinish(**sent)
                finished += 1
            if session.shouldfail or session.shouldstop:
                stop.set()
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    if session.shouldstop:
        raise session.Interrupted(session.shouldstop)
    if finished < len(session.items):
        raise session.Interrupted("a process that ran tests has ended, and not all have run")
    return True


def received(sources: list[Any]) -> Iterator[Any]:
    """What the workers send, until all have ended."""
    while sources:
        for source in wait(sources):
            assert isinstance(source, Connection)
            try:
                yield source.recv()
            except EOFError:
                sources.remove(source)
                source.close()


class Sender:
    """Takes the place of the terminal in a worker."""

    def __init__(self, config: pytest.Config, reports: Connection) -> None:
        self._config = config
        self._reports = reports

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._reports.send(("pytest_runtest_logreport", data))

    def pytest_runtest_logfinish(self, nodeid: str, location: Any) -> None:
        arguments = {"nodeid": nodeid, "location": location}
        self._reports.send(("pytest_runtest_logfinish", arguments))


def work(
    session: pytest.Session,
    files: list[list[pytest.Item]],
    queue: int,
    stop: Event,
    reports: Connection,
) -> None:
    """What a worker does: the next file, and the next."""
    plugins = session.config.pluginmanager
    capture: Any = plugins.getplugin("capturemanager")
    capture.stop_global_capturing()  # into a file that all workers have
    capture.start_global_capturing()
    plugins.unregister(name="terminalreporter")
    plugins.register(Sender(session.config, reports))
    numbers = iter(lambda: os.read(queue, 2), b"")
    tests = (test for number in numbers for test in files[int.from_bytes(number)])
    try:
        # The next test says which fixtures stay, so the next file is taken before the last test.
        for test, following in itertools.pairwise(itertools.chain(tests, [None])):
            if stop.is_set() or session.shouldfail or session.shouldstop:
                break
            assert test is not None
            session.config.hook.pytest_runtest_protocol(item=test, nextitem=following)
    finally:
        session._setupstate.teardown_exact(None)  # what is left, if it did not come to the end
