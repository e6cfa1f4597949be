"""More descriptors than `select`, or the system, allows

`select` takes a set of FD_SETSIZE bits, mostly 1024, and cannot name a higher descriptor. Python
raises `ValueError`; C writes somewhere else in memory. `poll`, `epoll` and `kqueue` have no such
limit.

To protect programs that use `select`, most systems set the soft limit of descriptors to 1024. A
program may raise it up to the hard limit (getrlimit(2)). If it does not, it has EMFILE with a
thousand clients, whatever its own limit of connections says. Below a thousand, nothing shows.

What you see: `filedescriptor out of range in select()`, or `Too many open files`, at about 1,000
clients. What a bystander sees: the end of the service when the next client comes, or nobody accepts
that client.
"""

import fcntl
import os
import resource
import selectors
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from kv import process
from kv.net.reactor import READ, Reactor
from kv.process import affordable

from .pitfall import Failure, Pitfall

WANTED = 1100


@contextmanager
def soft_limit(limit: int) -> Iterator[None]:
    """While this lasts, the soft limit of descriptors is another."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


class TestSelect(Pitfall):
    """A socket with the number 1100 is watched."""

    usually = "`select` ends the loop at the 1024th descriptor"
    unseen = "it happens before the loop turns"
    handled = Reactor
    naive = {"selectors.DefaultSelector": selectors.SelectSelector}

    def scenario(self) -> str:
        with soft_limit(WANTED + 64), ExitStack() as stack:
            low, peer = (stack.enter_context(sock) for sock in socket.socketpair())
            high = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, WANTED)
            sock = stack.enter_context(socket.socket(fileno=high))
            reactor = Reactor()
            stack.callback(reactor.close)
            reactor.register(sock, lambda _: sock.recv(10)).set(READ)
            peer.send(b"x")
            try:
                reactor.turn()
            except ValueError as error:
                raise Failure(f"descriptor {high}: {error}") from error
            return f"descriptor {high} is read from"


def hopeful(connections: int) -> int:
    return connections


class TestSoftLimit(Pitfall):
    """A server for 500 connections is started where the soft limit is 256."""

    usually = "the limit of descriptors is reached long before that of connections"
    unseen = "it happens before the loop turns"
    handled = affordable
    naive = {"kv.process.affordable": hopeful}

    def scenario(self) -> str:
        with soft_limit(256), ExitStack() as stack:
            promised = process.affordable(500)
            for number in range(promised):
                try:
                    stack.callback(os.close, os.dup(0))
                except OSError as error:
                    told = f"{error.strerror} at connection {number} of {promised}"
                    raise Failure(told) from error
            return f"there are descriptors for {promised} of 500 connections"
