"""What people see: replies, notices, prompts, and how far a script has come.

The screen knows nothing of the connection. Replies go to standard output, and nothing else does.
Everything else goes to standard error. At a terminal, a person sees both in one place.
"""

import os
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from kv.net.reactor import Reactor
from kv.net.stdio import HIGH_WATER, Output, escaped

#: Seconds from one line of progress to the next, and from the start to the first.
PERIOD = 0.25
BEGIN = 1.0


class Screen:
    """Standard output and standard error. The client never waits for either (32).

    `changed` is called when kept output has been written, or can no longer be written.
    """

    def __init__(self, reactor: Reactor, changed: Callable[[], object]) -> None:
        self._escape = os.isatty(1)
        self.interactive = os.isatty(0) and os.isatty(1)
        self._output = Output(reactor, 1, changed)
        # At a terminal, and with `2>&1`, notices and replies share one output, so they stay in
        # order.
        together = self.interactive or os.path.samestat(os.fstat(1), os.fstat(2))
        self._notices = self._output if together else Output(reactor, 2, changed)
        self._prompt = ""  # the prompt that is shown now, at the end of the output
        self._status = ""  # the line of progress that is shown now

    @property
    def full(self) -> bool:
        """Whether much output waits to be written: the client should ask for no more."""
        return max(self._output.pending, self._notices.pending) >= HIGH_WATER

    @property
    def done(self) -> bool:
        """Whether everything is written."""
        return not self._output.pending and not self._notices.pending

    @property
    def error(self) -> OSError | None:
        """Why standard output can no longer be written."""
        return self._output.error

    def show(self, text: str) -> None:
        """Shows a reply. Control characters are escaped at a terminal only."""
        text = escaped(text) if self._escape else text
        self._output.write(self._fresh_line() + text.encode("ascii") + b"\n")

    def say(self, text: str) -> None:
        """Shows a notice on a line of its own, even if a person is typing."""
        shown_text = "\n".join(map(escaped, text.split("\n")))
        data = shown_text.encode(errors="backslashreplace") + b"\n"
        self.status("")
        self._notices.write(self._fresh_line() + data)

    def prompt(self, text: str) -> None:
        """Shows a prompt, unless it is the last thing that was shown."""
        if self._prompt != text:
            self._output.write(self._fresh_line() + text.encode())
            self._prompt = text

    def answered(self) -> None:
        """A person has typed a line, and the terminal has shown its end."""
        self._prompt = ""

    def fresh_line(self) -> None:
        """Ends the line with the prompt, if there is one."""
        self._output.write(self._fresh_line())

    def status(self, text: str) -> None:
        """Shows the line of progress in place of the last one. The empty text removes it."""
        if text != self._status and not (text and self._notices.pending):
            blank = " " * (len(self._status) - len(text))
            self._notices.write(f"\r{text}{blank}{'' if text else chr(13)}".encode())
            self._status = text

    def _fresh_line(self) -> bytes:
        prompt, self._prompt = self._prompt, ""
        return b"\n" if prompt else b""


@dataclass(frozen=True, slots=True)
class Sent:
    """A command without a reply yet: the number of its last line, and how many lines it has."""

    line: int
    lines: int


class Order:
    """Replies and notices, in the order of the lines that they belong to.

    Commands run ahead of their replies. So a notice about a line waits for the replies to the lines
    before it.
    """

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._queue: deque[Sent | str] = deque()
        self.answered = 0  # the number of the last line that has its reply

    def __len__(self) -> int:
        """How many replies are still to come, and notices that wait for them."""
        return len(self._queue)

    def sent(self, line: int, lines: int) -> None:
        """A command of `lines` lines was sent. `line` is the number of the last one."""
        self._queue.append(Sent(line, lines))

    def say(self, text: str) -> None:
        """Shows a notice about the last line that was taken, in its order."""
        self._queue.append(text)
        self._show_notices()

    def replied(self, reply: str | None) -> None:
        """The oldest command has its reply. None is a reply that is not shown."""
        sent = self._queue.popleft()
        assert isinstance(sent, Sent)
        self.answered = sent.line
        if reply is not None:
            self._screen.show(reply)
        self._show_notices()

    def give_up(self) -> str:
        """No more replies will come: shows all notices. Returns how far the script had come."""
        sent = [each for each in self._queue if isinstance(each, Sent)]
        self._queue = deque(each for each in self._queue if isinstance(each, str))
        self._show_notices()
        owed = sum(each.lines for each in sent)
        if not self.answered:
            return f"; lines sent: {owed}, answered: none" if owed else ""
        last = f"line {self.answered} was the last that was answered"
        return f"; {last}, {owed or 'none'} after it were sent"

    def _show_notices(self) -> None:
        while self._queue and isinstance(text := self._queue[0], str):
            self._queue.popleft()
            self._screen.say(text)


class Progress:
    """A line on a terminal that says how far a script has come. It disappears at the end.

    `done` returns how many lines are answered, and their share of the input, or 0 if unknown.
    """

    def __init__(
        self, reactor: Reactor, screen: Screen, done: Callable[[], tuple[int, float]]
    ) -> None:
        self._reactor = reactor
        self._screen = screen
        self._done = done
        self._start = reactor.time()
        self._timer = reactor.call_later(BEGIN, self._show)

    def stop(self) -> None:
        """Removes the line."""
        self._timer.cancel()
        self._screen.status("")

    def _show(self) -> None:
        lines, share = self._done()
        text = progress(lines, share, self._reactor.time() - self._start)
        columns = 80
        with suppress(OSError):
            columns = os.get_terminal_size(2).columns or 80
        self._screen.status(text[: columns - 1])
        self._timer = self._reactor.call_later(PERIOD, self._show)


def progress(lines: int, share: float, seconds: float) -> str:
    """How far a script has come: lines, of how many, how fast, and how long it will take."""
    rate = lines / seconds
    if not lines or not share:
        return f"{lines:,} lines, {rate:,.0f} a second"
    left = round(seconds / share - seconds)
    return (
        f"{lines:,} of about {lines / share:,.0f} lines, {rate:,.0f} a second,"
        f" {left // 60}:{left % 60:02} left"
    )


def shows_progress(quiet: bool, environment: Mapping[str, str]) -> bool:
    """Whether to show progress: only standard error is a terminal, and it can rewrite a line."""
    clever = environment.get("TERM", "") not in ("", "dumb") and not environment.get("NO_COLOR")
    return not quiet and clever and os.isatty(2) and not os.isatty(0) and not os.isatty(1)
