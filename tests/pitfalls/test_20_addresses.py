"""The address to listen on: in use, one of several, of another family

The side that closes a connection first keeps its port in TIME_WAIT for a minute. So a restarted
server cannot have its own port back, unless it sets SO_REUSEADDR. On the developer's machine it is
the client that closes first.

A name may have several addresses: `localhost` is often both `::1` and `127.0.0.1`. A listener has
one. If a server takes only the first, half of its clients are refused. And whether a listener on
`::` also takes IPv4 connections is a setting that differs between systems.

What you see: `Address already in use` after a restart, or `Connection refused` by name only. What
a bystander sees: nothing, as long as it is connected to an address that is served.
"""

import socket
from contextlib import ExitStack
from unittest import mock

from kv.net.listener import _listen_on, _listen_on_all, listen

from .pitfall import Failure, Pitfall


def usual_listen_on(family: int, address: tuple, dual_stack: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.bind(address)
        sock.listen()
    except OSError:
        sock.close()
        raise
    return sock


class TestReuse(Pitfall):
    """A server closes a connection, ends, and is started again."""

    usually = "a server cannot be restarted for a minute"
    unseen = "it happens before the loop turns"
    handled = _listen_on
    naive = {"kv.net.listener._listen_on": usual_listen_on}

    def scenario(self) -> str:
        (listener,) = listen("127.0.0.1", 0)
        port = listener.getsockname()[1]
        with listener, socket.create_connection(("127.0.0.1", port)) as client:
            listener.accept()[0].close()  # first, and so TIME_WAIT is ours
            client.recv(1)
        try:
            (again,) = listen("127.0.0.1", port)
        except OSError as error:
            raise Failure(f"started again, it cannot listen: {error.strerror}") from error
        again.close()
        return "started again, it listens on the same port"


def listen_on_first(addresses: list, port: int) -> list[socket.socket]:
    family, address = addresses[0]
    return [_listen_on(family, (address[0], port, *address[2:]), dual_stack=False)]


class TestSeveral(Pitfall):
    """A name has two addresses, and there is a client for each."""

    usually = "clients that try another address of the same name are refused"
    unseen = "it happens before the loop turns"
    handled = _listen_on_all
    naive = {"kv.net.listener._listen_on_all": listen_on_first}

    def scenario(self) -> str:
        first, second = (socket.AF_INET, ("127.0.0.1", 0)), another()
        with (
            ExitStack() as stack,
            mock.patch("kv.net.listener.resolve", lambda *_: [first, second]),
        ):
            listeners = [stack.enter_context(sock) for sock in listen("localhost", 0)]
            port = listeners[0].getsockname()[1]
            connected = []
            for _, address in (first, second):
                try:
                    stack.enter_context(socket.create_connection((address[0], port)))
                    connected.append(address[0])
                except ConnectionRefusedError:
                    pass
        told = f"clients are let in at {' and '.join(connected)}"
        if len(connected) < 2:
            raise Failure(told)
        return told


def another() -> tuple[int, tuple]:
    """An address of this machine that is not 127.0.0.1."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
        return socket.AF_INET6, ("::1", 0, 0, 0)
    except OSError:  # no IPv6; but Linux has all of 127.0.0.0/8
        return socket.AF_INET, ("127.0.0.2", 0)
