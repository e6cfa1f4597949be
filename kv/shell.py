"""Joins them for people: a terminal, a pipe or a file on one side, a link on the other.

One reactor waits for standard input, the socket and standard output at once. What is typed is
the protocol: one line, one message. It is checked before it is sent, so that a mistake costs a
clear sentence and not the session.
"""

import errno
import os
import signal
import termios
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kv.errors import Refused, TextError, Violation
from kv.link import Link
from kv.net.address import Address
from kv.net.reactor import Reactor
from kv.net.stdio import HIGH_WATER, Input, Output, escaped
from kv.protocol.cipher import PrivateKey
from kv.protocol.messages import Command, Message, Wire, checked_key, parse, shortened

if TYPE_CHECKING:
    from kv.net.tls import Tls

#: Exit statuses; 2, a wrong option, is argparse's.
OK, FAILED, LOST = 0, 1, 3

#: Octets of a line that are kept: far more than any message has, far less than memory has.
LONGEST = 64 * 1024

FORMS = {
    "PUT": "PUT KEY",
    "GET": "GET KEY",
    "DELETE": "DELETE KEY",
    "CONNECT": "CONNECT ID",
    "DISCONNECT": "DISCONNECT",
}

HELP = """\
PUT KEY      stores a value: what you type on the next line, even nothing
GET KEY      shows the value under KEY, or GET: ERROR if there is none
DELETE KEY   forgets KEY
DISCONNECT   ends the session (so does Ctrl-D); its data is gone
CONNECT ID   has been done for you; a second one is an error
Commands are case sensitive. One space ends the command, all that follows is the key."""


@dataclass(frozen=True, slots=True)
class PendingPut:
    """A PUT whose value is the next line; one that was refused takes its value line with it."""

    key: str = ""
    refused: bool = False


class Shell:
    """One run of the interactive client."""

    def __init__(
        self,
        addresses: list[tuple[int, Address]],
        wire: Wire,
        key: PrivateKey,
        client_id: str,
        timeout: float,
        raw: bool = False,
        tls: "Tls | None" = None,
    ) -> None:
        self._wire = wire
        self._client_id = client_id
        self._raw = raw
        self._reactor = Reactor()
        self._escape = os.isatty(1)
        self._interactive = os.isatty(0) and os.isatty(1)
        self._input = Input(self._reactor, 0, LONGEST + 1, self._advance)
        self._output = Output(self._reactor, 1, self._output_changed)
        # In a terminal, notices and replies go the same way, so that they stay in order.
        self._notices = (
            self._output if self._interactive else Output(self._reactor, 2, self._stop_if_done)
        )
        self._lines = 0  # taken from the input
        self._put: PendingPut | None = None
        self._prompted = False
        self._connected = False
        self._leaving = False  # nothing more is taken from the input
        self._silent = False  # the end of input disconnects, and that reply is not shown
        self._failed = False  # a command was refused, or answered with ERROR
        self._status: int | None = None  # once the connection has ended
        self._link = Link(self._reactor, addresses, wire, key, client_id, self, timeout, raw, tls)

    def run(self) -> int:
        """Runs to the end; returns the exit status. Ctrl-C raises `KeyboardInterrupt`."""
        try:
            # Python's own handler would do but for a Ctrl-C just before the loop sleeps (29).
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
                self._reactor.on_signal(signal.SIGINT, interrupted)
            self._reactor.run()
        finally:
            self._reactor.close()
        assert self._status is not None
        return self._status

    # What the link calls

    def connected(self) -> None:
        """Starts taking lines."""
        self._connected = True
        if self._interactive:
            self._say(
                f"connected to {self._link.peer} as {self._client_id!r};"
                " type help for the commands, Ctrl-D to leave"
            )
        self._advance()

    def replied(self, command: Command | None, reply: str) -> None:
        """Shows a reply."""
        farewell = self._silent and command == Command.disconnect()
        if not farewell:
            self._print(escaped(reply) if self._escape else reply)
        if command is not None and reply == f"{command.message.value}: ERROR":
            self._failed = True
        self._advance()

    def drained(self) -> None:
        """There is room for more lines."""
        self._advance()

    def ended(self, error: Exception | None) -> None:
        """The connection is over: says why, and leaves once everything is shown."""
        broken = self._output.error
        # A reader that has had enough (`| head`) is no error; a full disk is (32).
        if broken is not None and broken.errno != errno.EPIPE:
            self._failed = True
            self._say(f"cannot write to standard output: {broken.strerror}")
        self._status = FAILED if self._failed else OK
        self._input.read_on(False)
        if isinstance(error, Refused):
            self._say(f"CONNECT: ERROR: {error}; choose another with --id")
            self._status = FAILED
        elif error is not None:
            if not isinstance(error, OSError):
                raise error  # not the network's fault but a mistake in this program
            what = "connection lost" if self._connected else "cannot connect"
            self._say(f"{what}: {error.strerror or error}")
            self._status = LOST
            if self._interactive:  # a half-typed line must not become the shell's next command
                termios.tcflush(0, termios.TCIFLUSH)
        elif self._raw and not self._leaving:
            self._say("the server closed the connection")
        if error is None and broken is None and not self._interactive:
            if self._input.more_is_there():
                self._say("what follows in the input was not sent: the conversation is over")
        self._leaving = True
        self._stop_if_done()

    # Taking lines

    def _advance(self) -> None:
        """Takes as many lines as may be on their way, and reads on only if there is room."""
        while not self._leaving and self._has_room():
            line = self._input.take()
            if line is None:
                break
            self._lines += 1
            self._prompted = False
            self._line_taken(line)
        if self._input.ended and self._has_room() and not self._leaving:
            self._end_of_input()
        self._link.flush()
        self._input.read_on(not self._leaving and self._has_room())
        self._prompt()

    def _has_room(self) -> bool:
        return self._connected and self._link.room > 0 and self._output.pending < HIGH_WATER

    def _line_taken(self, line: bytes) -> None:
        put, self._put = self._put, None
        text = line.decode(errors="surrogateescape")
        try:
            if len(line) > LONGEST:
                raise TextError(f"the line has more than {LONGEST} octets")
            if self._raw:
                self._link.send_raw(line)
            elif put is not None:
                if not put.refused:
                    self._link.send(Command.put(self._wire, put.key, text))
            elif text == "help":
                self._say(HELP)
            elif text.strip():
                self._command_taken(*understood(text))
        except TextError as error:
            if put is None and not self._raw and first_word(text).upper() == "PUT":
                self._put = PendingPut(refused=True)
                self._refuse(f"{error}; the next line, its value, is skipped")
            else:
                self._refuse(str(error))

    def _command_taken(self, message: Message, argument: str) -> None:
        if message is Message.PUT:
            self._put = PendingPut(checked_key(self._wire, argument))
        elif message is Message.CONNECT:
            self._link.send(Command.connect(self._wire, argument))
        elif message is Message.GET:
            self._link.send(Command.get(self._wire, argument))
        elif message is Message.DELETE:
            self._link.send(Command.delete(self._wire, argument))
        else:
            self._leaving = True
            self._link.send(Command.disconnect())

    def _end_of_input(self) -> None:
        self._leaving = True
        if self._input.error is not None:
            self._failed = True
            self._say(f"cannot read standard input: {self._input.error.strerror}")
        if self._interactive:
            self._output.write(self._fresh_line())
        if self._raw:
            self._link.half_close()
            return
        if self._put is not None and not self._put.refused:
            self._refuse("the last PUT has no value line; it was not sent")
        self._silent = True
        self._link.send(Command.disconnect())

    def _refuse(self, message: str) -> None:
        self._failed = True
        self._say(message if self._interactive else f"line {self._lines}: {message}")

    # Showing

    def _prompt(self) -> None:
        if self._interactive and self._connected and not self._leaving and not self._prompted:
            if self._link.idle or self._put:
                self._output.write(b"value> " if self._put else b"kv> ")
                self._prompted = True

    def _print(self, text: str) -> None:
        self._output.write(self._fresh_line() + text.encode("ascii") + b"\n")

    def _say(self, text: str) -> None:
        """A notice, in a line of its own even if a line is being typed."""
        shown_text = "\n".join(map(escaped, text.split("\n")))
        data = shown_text.encode(errors="backslashreplace") + b"\n"
        self._notices.write(self._fresh_line() + data)

    def _fresh_line(self) -> bytes:
        prompted, self._prompted = self._prompted, False
        return b"\n" if prompted else b""

    def _output_changed(self) -> None:
        if self._output.error is None:
            if self._status is None:
                self._advance()
        elif self._status is None:
            self._leaving = True
            self._link.abort(None)
        self._stop_if_done()

    def _stop_if_done(self) -> None:
        if self._status is not None and not self._output.pending and not self._notices.pending:
            self._reactor.stop()


def interrupted() -> None:
    """Ctrl-C, in its turn."""
    raise KeyboardInterrupt


def understood(text: str) -> tuple[Message, str]:
    """The command in a line that a person wrote, and its argument.

    Raises `TextError` that says what is wrong and what would be right.
    """
    try:
        return parse(text)
    except Violation:
        word = first_word(text)
    form = FORMS.get(word.upper())
    if form is None:
        raise TextError(f"{shortened(word)} is not a command: use {', '.join(FORMS.values())}")
    if word != word.upper():
        raise TextError(
            f"{shortened(word)} is not a command: commands are case sensitive, use {form}"
        )
    raise TextError(f"{shortened(text)} is not a command: use {form}, exactly so")


def first_word(text: str) -> str:
    """What stands before the first white space, or the empty text."""
    return (text.split(maxsplit=1) or [""])[0]
