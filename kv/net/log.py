"""The log: one record, one line, to a descriptor that nobody waits for.

Generic: knows records, not what they say. Whoever reads the log may be slow, and whoever causes
records may be a crowd: neither may stop the reactor, or fill the disk.
"""

import errno
import logging
import os
import select
import time

from kv.net.stdio import escaped, opened_anew, writable

#: Records of level INFO in one second; what is beyond is counted. Each of five thousand peers that
#: are reset in a second would otherwise have its line (38). Warnings and errors are always told.
MOST = 200


class LogHandler(logging.Handler):
    """Logs to a descriptor, never waiting for it.

    A reader that does not read (`2>&1 | less`) fills the pipe, and a log call that waits for it
    stops the reactor. What cannot be written is dropped and counted, and the count is told when
    there is room again (30).
    """

    def __init__(self, descriptor: int, most: int = MOST) -> None:
        super().__init__()
        self._descriptor = opened_anew(descriptor, os.O_WRONLY)
        self._dropped = 0
        self._most = most
        self._second = 0  # of the monotonic clock,
        self._said = 0  # and the records of level INFO in it
        self.setFormatter(Formatter("%(asctime)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the record if that can be done at once."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, unsaid, self._said = second, self._said - self._most, 0
            if unsaid > 0:
                self._write(f"... and {unsaid:,} more in that second")
        self._said += record.levelno == logging.INFO
        if record.levelno != logging.INFO or self._said <= self._most:
            self._write(self.format(record))

    def _write(self, text: str) -> None:
        try:
            if self._dropped:
                self._write_lines(f"({self._dropped} log records dropped: the log was full)")
                self._dropped = 0
            self._write_lines(text)
        except OSError:
            self._dropped += 1

    def _write_lines(self, text: str) -> None:
        """Writes line by line: a part of one would be continued by the next record."""
        for line in text.split("\n"):
            data = line.encode(errors="backslashreplace")
            if len(data) >= select.PIPE_BUF:  # more than can be written without waiting
                data = data[: select.PIPE_BUF - 4] + b"..."
            if not writable(self._descriptor):
                raise BlockingIOError(errno.EAGAIN, "the log is full")
            os.write(self._descriptor, data + b"\n")


class Formatter(logging.Formatter):
    """One record, one line; only a traceback has more."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The record's line, control characters escaped."""
        return escaped(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802
        """The traceback, control characters but its own line feeds escaped."""
        return "\n".join(map(escaped, super().formatException(ei).split("\n")))  # type: ignore[arg-type]
