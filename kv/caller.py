"""Runs a link for one blocking caller at a time: where `Client` waits.

The reactor turns for as long as a call lasts. This module also decides who may call. A call in the
middle of another call is refused (44), and so is a call from a child process (43).
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
    "another call of this client is still running, in another thread, or below this signal handler"
    " or callback: give each its own client, or use a lock"
)
FORKED = "this client belongs to the parent process: make another one after the fork"


class Caller:
    """Runs a link until its commands are answered: where the blocking caller waits.

    One call runs at a time. A second thread, a signal handler or a callback that calls meanwhile
    would take the first one's replies (44). After a fork, two processes would share one
    conversation (43). Both get an error at once.
    """

    def __init__(self, target: Target) -> None:
        self.closed = ""  # the reason, once it is closed
        self._process = os.getpid()
        self._turn = [None]  # a call takes the item out and puts it back at its end
        self._timeout = target.timeout
        self._commands: Iterator[Command] = iter(())
        self._replies: list[str] = []
        self._awaited = 0
        self._leaving = False  # the call waits for the end of the connection
        self._answered = False  # every reply that the call waits for has come
        self._error: Exception | None = None
        self._reactor = Reactor()
        self._link = Link(self._reactor, target, self)
        self._run()

    @property
    def peer(self) -> str:
        """The server's address, for people."""
        return self._link.peer

    def execute(self, commands: Sequence[Command]) -> list[str]:
        """Sends `commands` and returns the replies in order. At most WINDOW are on their way."""
        if os.getpid() != self._process:
            raise RuntimeError(FORKED)
        turn: list[None] = []
        try:
            # The item moves from one list to the other in one step of the interpreter. A thread or
            # a signal can come between testing a flag and setting it, but not in between here (44).
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

    def drop(self, reason: str) -> bool:
        """Ends the connection at once. In a child process it does not, and returns False."""
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
        """One more reply. A call returns after its last reply; DISCONNECT, after the end."""
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
        if self._leaving:  # a bound on the time for the reply and the end together
            self._reactor.call_later(self._timeout, self._reactor.stop)
        if commands:
            self._run()
        return self._replies

    def _send_more(self) -> None:
        for command in islice(self._commands, self._link.room):
            self._link.send(command)

    def _run(self) -> None:
        """Runs the reactor until there is a result.

        After any exception, Ctrl-C included, nobody knows how far the conversation has come. So the
        client is closed.
        """
        try:
            self._send_more()
            self._link.flush()
            self._reactor.run()
            if self._error is not None:
                if not self._answered:
                    raise self._error
                self._abandon(str(self._error))  # the next call gets this reason
            if self._leaving:  # before the turn is given back: another call could come between (44)
                self._abandon("close was called")
        except BaseException as error:
            self._abandon(str(error) or type(error).__name__)
            raise

    def _abandon(self, reason: str) -> None:
        self.closed = self.closed or reason
        self._link.abort(None)
        self._reactor.close()
