"""Runs a link for one blocking caller at a time: where `Client` waits.

The reactor turns for as long as a call lasts. Who may call is decided here, too: nobody in the
middle of another call (44), and no process but the one that connected (43).
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice

from kv.link import Link
from kv.net.reactor import Reactor
from kv.owner import Target
from kv.protocol.messages import Command

DISCONNECT = (Command.disconnect(),)

BUSY = (
    "this client is in the middle of another call, of another thread, or of the code that a signal"
    " handler or a callback has interrupted: give each its own client, or use a lock"
)
FORKED = "this client belongs to the process that made it, before a fork: make another one here"


class Caller:
    """Runs a link until its commands are answered: where the blocking caller waits.

    One call at a time. A second thread, a signal handler or a callback that comes in the middle of
    one would take replies that are not its own (44), and after a fork two processes would share one
    conversation (43). Both are told so, at once.
    """

    def __init__(self, target: Target) -> None:
        self.closed = ""  # why, once it is
        self._process = os.getpid()
        self._turn = [None]  # whoever holds what is in it may call
        self._timeout = target.timeout
        self._commands: Iterator[Command] = iter(())
        self._replies: list[str] = []
        self._awaited = 0
        self._leaving = False  # what is awaited is the end
        self._answered = False  # all that the caller waits for is there
        self._error: Exception | None = None
        self._reactor = Reactor()
        self._link = Link(self._reactor, target, self)
        self._run()

    @property
    def peer(self) -> str:
        """The server's address, for people."""
        return self._link.peer

    def execute(self, commands: Sequence[Command]) -> list[str]:
        """Sends `commands`, at most WINDOW ahead of their replies, which it returns in order."""
        if os.getpid() != self._process:
            raise RuntimeError(FORKED)
        turn: list[None] = []
        try:
            # Out of one list and into the other in one step of the interpreter: neither a thread
            # nor a signal comes in between, as after the test of a flag and before it is set (44).
            with suppress(IndexError):
                turn.extend(map(self._turn.pop, (0,)))
            if not turn:
                raise RuntimeError(BUSY)
            return self._execute(commands)
        finally:
            self._turn += turn

    def close(self) -> None:
        """Disconnects politely, if there still is a connection."""
        if os.getpid() != self._process:
            self.drop("it belongs to the process that made it")
        elif not self.closed:
            with suppress(OSError):
                self.execute(DISCONNECT)
            self._abandon("close was called")

    def drop(self, reason: str) -> bool:
        """Ends the connection at once; False if it is another process's, who shall keep it."""
        if os.getpid() == self._process:
            self._abandon(reason)
            return True
        self.closed = self.closed or reason
        self._link.forget()
        self._reactor.close()
        return False

    def connected(self) -> None:
        """The constructor may return."""
        self._answered = True
        self._reactor.stop()

    def replied(self, _: Command | None, reply: str) -> None:
        """One more reply. The call returns with the last one; DISCONNECT's, with the end."""
        self._replies.append(reply)
        if len(self._replies) == self._awaited:
            self._answered = True
            if not self._leaving:
                self._reactor.stop()

    def may_send(self) -> None:
        """Sends more."""
        self._send_more()

    def ended(self, error: Exception | None) -> None:
        """The connection is gone."""
        self._error = error
        self._reactor.stop()

    def _execute(self, commands: Sequence[Command]) -> list[str]:
        if self.closed:
            raise ConnectionError(f"this client is closed: {self.closed}")
        self._commands = iter(commands)
        self._replies = []
        self._awaited = len(commands)
        self._leaving = commands == DISCONNECT
        self._answered = False
        if self._leaving:  # however long the server takes to say goodbye and to close
            self._reactor.call_later(self._timeout, self._reactor.stop)
        if commands:
            self._run()
        return self._replies

    def _send_more(self) -> None:
        for command in islice(self._commands, self._link.room):
            self._link.send(command)

    def _run(self) -> None:
        """Runs the reactor until there is a result.

        Whatever is raised, Ctrl-C included, leaves the conversation at no known point: the client
        is then closed.
        """
        try:
            self._send_more()
            self._link.flush()
            self._reactor.run()
            if self._error is not None:
                if not self._answered:
                    raise self._error
                self._abandon(str(self._error))  # what the next call is told
        except BaseException as error:
            self._abandon(str(error) or type(error).__name__)
            raise

    def _abandon(self, reason: str) -> None:
        self.closed = self.closed or reason
        self._link.abort(None)
        self._reactor.close()
