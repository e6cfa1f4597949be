"""A bound for each of many is no bound for all

A millisecond of work for each client in a turn, and 64 KiB of replies that wait: both are small.
With 300 busy clients a turn takes a third of a second. With 1,000 that do not read, 64 MB wait.
And one line of log for each reset is five thousand lines when five thousand are reset at once.

What peers may cost needs a second bound, in total. The share of each shrinks as more want
something, down to one message. Then a client that wants little waits for one message of each of
the others. The log counts what it leaves out, and says so.

What you see: everything holds in tests with ten clients, and nothing does in a rush. What a
bystander sees: late replies, although each of the others is within its limits.
"""

import logging
import os
import sys

from house import VALUE, house
from wire import KEY

from kv.net.log import MOST, PEERS, LogHandler
from kv.net.stream import Stream
from kv.net.turns import BUDGET, Turns
from kv.protocol.cipher import work

from .in_process import Pipe
from .moments import above, in_a_turn
from .pitfall import Failure, Pitfall
from .test_26_arithmetic import operations


def begin(self: Turns) -> None:
    self.left = sys.maxsize  # each has a bound of its own


class TestWork(Pitfall):
    """60 clients have each asked for two values of five blocks; the loop turns once."""

    shown = "m"
    usually = "a turn lasts as long as there are clients, and everybody waits for it"
    wrong = in_a_turn(" seal ", 50)
    handled = Turns
    naive = {"kv.net.turns.Turns._begin": begin}

    def scenario(self) -> str:
        with house() as h:
            guests = [h.guest().connect(str(number)) for number in range(60)]
            for guest in guests:
                for key in "ab":
                    guest.send(f"PUT {key}", VALUE)
            for guest in guests:
                guest.socket.send(b"".join(KEY.seal(f"GET {key}".encode()) for key in "ab"))
            with operations() as done:
                h.reactor.turn()
            h.settle()
        told = f"{len(done)} private-key operations in one turn of the loop"
        if len(done) * work(512)[1] > 2 * BUDGET:
            raise Failure(told)
        return told


def high_water(self: Stream) -> int:
    return self._limits.high_water


class TestUnsent(Pitfall):
    """All together may leave 256 KiB unsent. 15 clients ask for 300 values each and do not read."""

    shown = "m"
    usually = "each has its bound, and all together have none"
    wrong = above("unsent", 256 * 1024, together=True)
    handled = Stream._high_water
    naive = {"kv.net.lifecycle.Lifecycle._high_water": high_water}

    def scenario(self) -> str:
        with house(unsent=1 << 18) as h:
            for number in range(15):
                h.owed(300, str(number))
            kept = sum(connection.stream.unsent for connection in h.server.connections)
        told = f"{kept:,} octets of replies wait in the server"
        if kept > 1.1 * (1 << 18):  # and one message of each
            raise Failure(told)
        return told


class TestLog(Pitfall):
    """5,000 connections are reset at once, and each has its line in the log."""

    shown = "m"
    usually = "the log has a line for each, and says nothing else"
    unseen = "it is about what the log says"
    handled = LogHandler.emit
    naive = {"kv.net.log.MOST": sys.maxsize}

    def scenario(self) -> str:
        lines, last = 0, ""
        with Pipe() as pipe:
            handler = LogHandler(pipe.sink)
            for number in range(5000):
                text = f"lost client {number}: Connection reset by peer"
                handler.emit(logging.LogRecord(PEERS, logging.INFO, "", 0, text, (), None))
                if not number % 100:  # its reader reads
                    handler.emit(logging.LogRecord("kv", logging.INFO, "", 0, "more", (), None))
                    lines += os.read(pipe.source, 1 << 16).count(b"\n") - 1
            handler._second -= 1  # a second passes
            handler.emit(logging.LogRecord("kv", logging.INFO, "", 0, "stopped", (), None))
            last = os.read(pipe.source, 1 << 16).decode().splitlines()[-2]
        told = f"{lines:,} lines for 5,000 resets"
        if lines > 3 * MOST:  # a second may begin meanwhile, and another
            raise Failure(told)
        return f"{told}, and one that says: {last}"
