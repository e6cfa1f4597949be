"""The interactive client: a terminal, a pipe or a file on one side, a link on the other.

One reactor waits for standard input, the socket and standard output at once. `typed` knows what a
line means, `screen` how things are shown, and `link` the connection. The shell decides what happens
when: whether to read a line, send a command, show a reply, or wait.
"""

import errno
import os
import signal

from kv.errors import Refused
from kv.link import WINDOW, Link
from kv.net.reactor import Reactor
from kv.net.stdio import Input
from kv.owner import Target, loss
from kv.protocol.messages import Command, Message
from kv.screen import Order, Progress, Screen, shows_progress
from kv.typed import LONGEST, SKIPPING, Notice, Typed

#: Exit statuses. argparse uses 2 for a wrong option.
OK, FAILED, LOST = 0, 1, 3

#: Seconds in which a second Ctrl-C ends the client.
TWICE = 2.0


class Shell:
    """One run of the interactive client.

    `raw` sends every line unchecked, `strict` ends a script at the first refusal, `quiet` shows no
    progress.
    """

    def __init__(
        self, target: Target, raw: bool = False, strict: bool = False, quiet: bool = False
    ) -> None:
        self._raw = raw
        self._quiet = quiet
        self._client_id = target.client_id
        self._reactor = Reactor()
        self._screen = Screen(self._reactor, self._written)
        self._interactive = self._screen.interactive
        self._strict = strict and not self._interactive
        self._input = Input(self._reactor, 0, LONGEST + 1, self.may_send)
        self._typed = Typed(target.wire)
        self._progress: Progress | None = None
        self._order = Order(self._screen)
        self._connected = False
        self._leaving = False  # the shell takes no more lines
        self._silent = False  # the shell disconnects by itself, and does not show the reply
        self._outcome = OK  # until a command is refused, or answered with ERROR
        self._mistake: Exception | None = None  # an error of this program
        self._status: int | None = None  # set when the connection has ended
        self._interrupted_at = -TWICE
        self._link = Link(self._reactor, target, self, raw)

    def run(self) -> int:
        """Runs to the end and returns the exit status. Ctrl-C may raise `KeyboardInterrupt`."""
        try:
            # With Python's own handler, a Ctrl-C just before the loop sleeps does not wake it (29).
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
                self._reactor.on_signal(signal.SIGINT, self._interrupted)
            if self._interactive:
                self._reactor.on_signal(signal.SIGCONT, self._continued)
            self._reactor.run()
        finally:
            self._reactor.close()
        if self._mistake is not None:
            raise self._mistake
        assert self._status is not None
        return self._status

    # What the link calls

    def connected(self) -> None:
        """Starts taking lines."""
        self._connected = True
        if self._interactive:
            self._screen.say(
                f"connected to {self._link.peer} as {self._client_id!r};"
                " type help for the commands, Ctrl-D to leave"
            )
        if shows_progress(self._quiet, os.environ):
            self._progress = Progress(self._reactor, self._screen, self._done)
        self.may_send()

    def replied(self, command: Command | None, reply: str) -> None:
        """Shows a reply, and the notices that had to wait for it."""
        if command is None:
            self._screen.show(reply)
            self._link.hold(self._screen.full)  # otherwise a flood of replies fills the memory
            return
        farewell = self._silent and command.message is Message.DISCONNECT
        self._order.replied(None if farewell else reply)
        if reply == f"{command.message.value}: ERROR":
            self._outcome = FAILED

    def may_send(self) -> None:
        """Takes lines while there is room for commands, and reads more input only then."""
        while not self._leaving and self._has_room():
            line = self._input.take()
            if line is None:
                break
            self._screen.answered()
            self._interrupted_at = -TWICE
            self._line_taken(line)
        if self._input.ended and self._has_room() and not self._leaving:
            self._end_of_input()
        self._link.flush()
        self._input.read_on(not self._leaving and self._has_room())
        self._prompt()

    def ended(self, error: Exception | None) -> None:
        """The connection is over: says why, and ends when everything is shown."""
        if self._progress is not None:
            self._progress.stop()
        progress_made = self._order.give_up()
        broken = self._screen.error
        # A reader that has seen enough (`| head`) is no error. A full disk is one (32).
        if broken is not None and broken.errno != errno.EPIPE:
            self._outcome = FAILED
            self._screen.say(f"cannot write to standard output: {broken.strerror}")
        self._input.read_on(False)
        if isinstance(error, Refused):
            self._outcome = FAILED
            self._screen.say(f"CONNECT: ERROR: {error}; choose another with --id")
        elif error is not None and not isinstance(error, OSError):
            self._mistake = error
            self._reactor.stop()
            return
        elif error is not None:
            self._outcome = LOST
            text = loss(error, self._connected, self._link.greeted)
            self._screen.say(text if self._interactive else text + progress_made)
            if self._interactive:
                self._input.drop_typed()
        elif self._raw and broken is None:
            self._screen.say("the server closed the connection")
        if error is None and broken is None and not self._interactive and not self._silent:
            if self._input.more_is_there():
                self._outcome = FAILED
                self._screen.say("what follows in the input was not sent: the conversation is over")
        self._status = self._outcome
        self._leaving = True
        self._written()

    # Taking lines

    def _has_room(self) -> bool:
        return (
            self._connected
            and self._link.room > 0
            and len(self._order) < 2 * WINDOW  # notices that wait for replies count, too
            and not self._screen.full
        )

    def _line_taken(self, line: bytes) -> None:
        if self._raw:
            self._link.send_raw(line)
            return
        before = self._typed.put
        for what in self._typed.take(line):
            if isinstance(what, Notice):
                self._notice(what)
            else:
                self._send(what, 1 if before is None else 2)
                self._leaving = what.message is Message.DISCONNECT

    def _send(self, command: Command, lines: int) -> None:
        self._link.send(command)
        self._order.sent(self._typed.lines, lines)

    def _end_of_input(self) -> None:
        if self._input.error is not None:
            reason = self._input.error.strerror
            self._notice(Notice(f"cannot read standard input: {reason}"))
            self._outcome = FAILED
        if self._interactive:
            self._screen.fresh_line()
        if self._raw:
            self._leaving = True
            self._link.half_close()
            return
        for notice in self._typed.end():
            self._notice(notice)
        self._leave()

    def _leave(self) -> None:
        if not self._leaving:
            self._leaving = self._silent = True
            self._send(Command.disconnect(), 0)

    # Showing

    def _notice(self, notice: Notice) -> None:
        """Shows a notice about a line, after the replies to earlier lines."""
        text = notice.text
        if notice.refused:
            self._outcome = FAILED
            if not self._interactive:
                text = f"line {self._typed.lines}: {text}"
        ends = notice.refused and self._strict
        self._order.say(f"{text}; the script ends here" if ends else text)
        if ends:
            self._leave()

    def _prompt(self) -> None:
        if self._interactive and self._connected and not self._leaving:
            put = self._typed.put
            if put is not None and not put.refused:
                self._screen.prompt("value> ")
            elif not self._order:
                self._screen.prompt(SKIPPING if put else "kv> ")

    def _done(self) -> tuple[int, float]:
        """How many lines are answered, and their share of the input."""
        answered, lines = self._order.answered, self._typed.lines
        return answered, (self._input.share * answered / lines if lines else 0)

    def _written(self) -> None:
        if self._status is None:
            if self._screen.error is not None:
                self._leaving = True
                self._link.abort(None)
            else:
                self._link.hold(self._raw and self._screen.full)
                self.may_send()
        if self._status is not None and self._screen.done:
            self._reactor.stop()

    # Signals, called by the loop

    def _interrupted(self) -> None:
        """Ctrl-C drops the line being typed. Twice, or in a script, Ctrl-C ends the client."""
        now = self._reactor.time()
        asked = self._interactive and self._connected and not self._leaving
        if not asked or now - self._interrupted_at < TWICE:
            raise KeyboardInterrupt
        self._interrupted_at = now
        self._input.drop()
        self._typed.put = None
        self._screen.say("Ctrl-C again within two seconds ends; Ctrl-D leaves politely")
        self._prompt()

    def _continued(self) -> None:
        """Shows the prompt again after Ctrl-Z and `fg`."""
        self._screen.answered()
        self._prompt()
