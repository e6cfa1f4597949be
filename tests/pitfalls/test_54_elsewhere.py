"""A reply that has to wait for somebody else's answer

Several servers share their client ids, so the answer to CONNECT is known elsewhere: in a registry
that is asked over the network. It may answer at once, in a second, or never.

The usual code asks, and waits for the answer. That is a blocking call (27), and everybody waits.
But code that goes on meanwhile can go wrong, too. The client's next command is here already, and
must not be answered before CONNECT is. The client may have left when the answer comes, and then
nobody gives back what was granted. So the stream holds back the lines of that client, and of no
other. The reply is kept. And whoever leaves gives up the claim, however far it has come.

What you see: all clients wait while another server is slow. Or replies in the wrong order, or ids
that are in use by nobody. What a bystander sees: nothing, until the other server is slow for once.
"""

import socket

from fake_registry import LEASE, FakeRegistry
from house import Guest, House, house

from kv.connection import Connection
from kv.registry.claims import Claim, Claims
from kv.registry.resp import Act, request

from .moments import never, seen
from .pitfall import Failure, Pitfall


def ask(self: Connection) -> None:
    """What is usually written: the answer is needed now."""
    if self.conversation.session is None:
        self._close()
        return
    ((_, address),) = self._server.registry.addresses
    with socket.create_connection(address) as sock:
        sock.sendall(request(Act.CLAIM, [self.conversation.client_id], ["token"], LEASE))
        granted = sock.recv(100) == b"+1\r\n"
    self._answer(self._waiting if granted else self.conversation.refuse())
    self._session_begun()


class TestBlocks(Pitfall):
    """A client says CONNECT while the registry does not answer; another one asks for a value."""

    usually = "everybody waits for the registry"
    wrong = never("^#1 message GET")
    handled = Connection._session_changed
    naive = {"kv.connection.Connection._session_changed": ask}
    patience = 0.5

    def scenario(self) -> str:
        with FakeRegistry() as registry, house(registry=registry) as h:
            other = h.guest().connect("bob")
            registry.answers = False
            guest = said_connect(h)
            if other.ask("GET k") != ["GET: ERROR"]:
                raise Failure("another client is not answered meanwhile")
            registry.answers = True
            h.settle()
            if guest.texts() != ["CONNECT: OK"]:
                raise Failure(f"CONNECT is answered {guest.texts()}")
            return "another client is answered meanwhile"


def go_on(self: Connection) -> None:
    if self.conversation.session is None:
        self._close()
    else:
        self._server.registry.claim(self.conversation.client_id, self)


class TestGoesOn(Pitfall):
    """A client sends CONNECT and GET together; the registry answers a second later."""

    usually = "GET is answered before CONNECT, under an id that another may have"
    wrong = seen(" message GET", unless=" go on OWNER")
    handled = Connection._session_changed
    naive = {"kv.connection.Connection._session_changed": go_on}

    def scenario(self) -> str:
        with FakeRegistry() as registry, house(registry=registry) as h:
            h.settle()
            registry.answers = False
            guest = said_connect(h, "GET k")
            early = guest.texts()
            h.wait(1)
            registry.answers = True
            h.settle()
            if early or guest.texts() != ["CONNECT: OK", "GET: ERROR"]:
                raise Failure(f"{early} before the registry has answered")
            return "GET waits for CONNECT, and CONNECT for the registry"


def give_back(self: Claims, claim: Claim, tell: bool = False) -> None:
    """What is usually written: what is not granted yet need not be given back."""
    self._end(claim, release=claim.act is Act.RENEW)
    if tell:
        claim.act = Act.RELEASE


class TestLeaves(Pitfall):
    """A client is gone before the registry answers, and then it answers: granted."""

    usually = "the id is in use, and by nobody"
    unseen = "it is the registry that goes on to hold the id"
    handled = Claims.give_back
    naive = {"kv.registry.claims.Claims.give_back": give_back}

    def scenario(self) -> str:
        with FakeRegistry() as registry, house(registry=registry, handshake_timeout=2) as h:
            h.settle()
            registry.answers = False
            guest = said_connect(h)
            assert registry.unanswered == 1
            h.wait(2.5)  # its time is over
            if guest.texts() != ["CONNECT: ERROR"] or not guest.ended:
                raise Failure(f"the client heard {guest.texts()}")
            registry.answers = True
            h.settle()
            if registry.holder:
                raise Failure(f"still in use: {list(registry.holder)}")
            return "the id is given back when it is granted"


def said_connect(h: House, *more: str) -> Guest:
    """A guest that has said CONNECT, and more."""
    guest = h.guest()
    guest.send_raw(guest.key.line)
    return guest.send("CONNECT alice", *more)
