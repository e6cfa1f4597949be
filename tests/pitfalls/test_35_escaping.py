"""What peers send is shown to people

A terminal obeys what it is sent. ESC and a few characters change its title, clear it, or hide what
follows. CR goes back to the beginning of the line, to write over it. A client id or a value is a
text of the peer's choice. `print` and `logging` pass it on as it is, and usual tests have no such
text. An attacker can make the log show what the server never said. Or the attacker stores a value
that repaints the screen of the person who asks for it.

What you see: a terminal with strange colours, or log lines that are not true. What a bystander
sees: the same strange text, if it reads the same log.
"""

import logging
import os

from house import house

from kv.connection import Connection
from kv.net.log import LogHandler
from kv.net.stdio import escaped

from .in_process import Pipe, asked, client, turn
from .pitfall import Failure, Pitfall


def as_it_is(text: str) -> str:
    """What is usually written: nothing."""
    return text


def named(self: Connection) -> str:
    """What is usually written."""
    return self.conversation.client_id


class TestLog(Pitfall):
    """A client whose id has CR and ESC in it breaks the protocol, and the log says so."""

    usually = "in a terminal, the log says what the client chose"
    unseen = "it is about what the log says"
    handled = escaped
    naive = {"kv.connection.Connection.__str__": named, "kv.net.log.escaped": as_it_is}

    def scenario(self) -> str:
        log = logging.getLogger("kv")
        with Pipe() as pipe, house() as h:
            handler = LogHandler(pipe.sink)
            guest = h.guest().connect("eve\r2026-01-01 00:00:00,000 INFO stopped\x1b[8m")
            log.addHandler(handler)
            log.setLevel(logging.INFO)
            try:
                guest.send("HELLO")
            finally:
                log.setLevel(logging.NOTSET)
                log.removeHandler(handler)
            logged = os.read(pipe.source, 65536)[24:]
            if {*b"\r\x1b"} & {*logged}:
                raise Failure(f"the log receives {logged!r}")
            return f"the log receives {logged.decode().strip()}"


class TestTerminal(Pitfall):
    """A value that retitles terminals is shown in one."""

    usually = "a value controls the terminal that shows it"
    wrong = "^stdout write 19 octets"
    handled = escaped
    naive = {"kv.screen.escaped": as_it_is}

    def scenario(self) -> str:
        screen, terminal = os.openpty()
        with open(screen, "rb"), open(terminal, "wb"), Pipe() as keys:
            keys.write(b"GET colour\n")
            with client(keys.source, terminal, terminal) as (shell, server):
                assert asked(shell, server) == "GET colour"
                server.reply("\x1b]0;root@bank\x07blue")
                turn(shell, lambda: shell._link.idle)
                shown = b""
                while not shown.endswith(b"\n"):
                    shown += os.read(screen, 1000)
            if b"\x1b" in shown:
                raise Failure(f"the terminal receives {shown!r}")
            return f"the terminal receives {shown.decode().strip()}"
