"""The log: one record, one line, to a descriptor that nobody waits for.

Generic: knows records, not what they say. The log's reader may be slow, and a crowd of peers may
cause records. Neither may stop the reactor, or fill the disk.
"""

import errno
import logging
import os
import select
import time

from kv.net.stdio import escaped, opened_anew, writable

#: The logger for what happens to single peers. There may be many, so its records are bounded.
PEERS = "kv.peers"
#: Records about peers in one second. Further ones are counted. If five thousand connections are
#: reset in a second, the log must not get five thousand lines (38).
MOST = 200


def plural(count: int, noun: str) -> str:
    """`1 connection`, `2 connections`."""
    return f"{count:d} {noun}" if count == 1 else f"{count:d} {noun}s"


def cause(error: Exception) -> str:
    """What went wrong: in the system's words, if the error has any."""
    return getattr(error, "strerror", None) or str(error)


class LogHandler(logging.Handler):
    """Logs to a descriptor, and never waits for it.

    If the reader stops reading (`2>&1 | less`), the pipe fills. A log call that waits for it would
    stop the reactor. So records that do not fit are dropped and counted. When there is room again,
    the log says how many (30).
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = opened_anew(descriptor, os.O_WRONLY)
        self._dropped = 0
        self._torn = False  # a record was written in part, so the next one begins a new line
        self._second = 0  # the current second of the monotonic clock
        self._said = 0  # records about peers in this second
        self.setFormatter(Formatter("%(asctime)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the record, if the descriptor takes it at once."""
        second = int(time.monotonic())
        if second != self._second:
            self._second = second
            self._say_how_many_more()
        if record.name == PEERS:
            self._said += 1
            if self._said > MOST:
                return
        self._say(self.format(record))

    def close(self) -> None:
        """Writes the last count. The interpreter also calls this at its end."""
        self._say_how_many_more()
        super().close()

    def _say_how_many_more(self) -> None:
        unsaid, self._said = self._said - MOST, 0
        if unsaid > 0:
            self._say(f"... and {unsaid:,} more about peers in one second")

    def _say(self, text: str) -> None:
        try:
            if self._dropped:
                self._write(f"({self._dropped} log records dropped: the log was full)\n")
                self._dropped = 0
            self._write(text + "\n")
        except OSError:
            self._dropped += 1

    def _write(self, text: str) -> None:
        data = ("\n" * self._torn + text).encode(errors="backslashreplace")
        for start in range(0, len(data), select.PIPE_BUF):
            if not writable(self._descriptor):
                self._torn = self._torn or start > 0
                raise BlockingIOError(errno.EAGAIN, "the log is full")
            os.write(self._descriptor, data[start : start + select.PIPE_BUF])
        self._torn = False


class Formatter(logging.Formatter):
    """One record, one line; only a traceback has more."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The record's line, with control characters escaped."""
        return escaped(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802
        """The traceback, with control characters escaped, except for its own line feeds."""
        return "\n".join(map(escaped, super().formatException(ei).split("\n")))  # type: ignore[arg-type]
