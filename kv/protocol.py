"""The protocol: its states, its messages, and both ends of a conversation.

Sans-I/O: lines go in, lines come out (without LF); no sockets, no selectors, no clock. All that
decides what a message means and what may follow it is in this file, and `protocol.md` is its
normative text. The transition table is data: the diagram in `protocol.md` is drawn from it.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from kv.cipher import OVERHEAD, PrivateKey, PublicKey, block_size
from kv.errors import TextError, Violation
from kv.store import Session, Store


class State(StrEnum):
    """Where a conversation stands, seen from the server."""

    AWAITING_KEY = "AWAITING_KEY"
    AWAITING_CONNECT = "AWAITING_CONNECT"
    AWAITING_COMMAND = "AWAITING_COMMAND"
    AWAITING_PUT_VALUE = "AWAITING_PUT_VALUE"
    CLOSED = "CLOSED"


class Message(StrEnum):
    """What a client's line can be; in AWAITING_PUT_VALUE every text is a VALUE."""

    KEY = "key line"
    CONNECT = "CONNECT"
    PUT = "PUT"
    VALUE = "value"
    GET = "GET"
    DELETE = "DELETE"
    DISCONNECT = "DISCONNECT"


class Reply(StrEnum):
    """What the server's line can be. The texts of the first eight are fixed."""

    CONNECT_OK = "CONNECT: OK"
    CONNECT_ERROR = "CONNECT: ERROR"
    PUT_OK = "PUT: OK"
    PUT_ERROR = "PUT: ERROR"
    GET_ERROR = "GET: ERROR"
    DELETE_OK = "DELETE: OK"
    DELETE_ERROR = "DELETE: ERROR"
    DISCONNECT_OK = "DISCONNECT: OK"
    GET_VALUE = "the value"
    KEY = "the server's key line"
    NONE = "no reply"


#: CPython 3.11 takes 80 ns to look a member up in its enum, four times what a global takes; these
#: are wanted for every GET.
GET, GET_VALUE, GET_ERROR = Message.GET, Reply.GET_VALUE, Reply.GET_ERROR

#: state -> message -> what the server may reply -> the state after that reply.
#: A message that its state does not list is a violation: the client is dropped.
TRANSITIONS: dict[State, dict[Message, dict[Reply, State]]] = {
    State.AWAITING_KEY: {
        Message.KEY: {Reply.KEY: State.AWAITING_CONNECT},
    },
    State.AWAITING_CONNECT: {
        Message.CONNECT: {
            Reply.CONNECT_OK: State.AWAITING_COMMAND,
            Reply.CONNECT_ERROR: State.AWAITING_CONNECT,
        },
    },
    State.AWAITING_COMMAND: {
        Message.CONNECT: {Reply.CONNECT_ERROR: State.AWAITING_COMMAND},
        Message.PUT: {Reply.NONE: State.AWAITING_PUT_VALUE},
        Message.GET: {
            Reply.GET_VALUE: State.AWAITING_COMMAND,
            Reply.GET_ERROR: State.AWAITING_COMMAND,
        },
        Message.DELETE: {Reply.DELETE_OK: State.AWAITING_COMMAND},
        Message.DISCONNECT: {Reply.DISCONNECT_OK: State.CLOSED},
    },
    State.AWAITING_PUT_VALUE: {
        Message.VALUE: {
            Reply.PUT_OK: State.AWAITING_COMMAND,
            Reply.PUT_ERROR: State.AWAITING_COMMAND,
        },
    },
    State.CLOSED: {},
}

#: The replies with a fixed text, by that text.
FIXED_REPLIES = {reply.value: reply for reply in Reply if reply.value.endswith((": OK", ": ERROR"))}

#: What a client accepts as the reply to each of its commands; to GET, any text at all. This
#: version's server never sends DELETE: ERROR; another's may.
ACCEPTED = {
    Message.CONNECT: {Reply.CONNECT_OK, Reply.CONNECT_ERROR},
    Message.PUT: {Reply.PUT_OK, Reply.PUT_ERROR},
    Message.DELETE: {Reply.DELETE_OK, Reply.DELETE_ERROR},
    Message.DISCONNECT: {Reply.DISCONNECT_OK},
}

#: The work of sealing one block, in blocks opened: a private-key operation against a public one.
#: A turn of the loop is bounded in this unit, because nobody else is served meanwhile (26).
SEALING = 20

WITH_ARGUMENT = {
    message.value: message
    for message in (Message.CONNECT, Message.PUT, Message.GET, Message.DELETE)
}


@dataclass(frozen=True, slots=True)
class Wire:
    """The two sizes that both ends must agree on, in bits, and what follows from them.

    Raises `ValueError` if a key line or a block of one octet of text would not fit in a line.
    """

    key_bits: int = 512
    receive_buffer_size: int = 4096

    def __post_init__(self) -> None:
        if self.key_bits % 8 or self.key_bits < 128:
            raise ValueError(f"a key of {self.key_bits} bits: use a multiple of 8 from 128 up")
        fits = self.key_bits < self.receive_buffer_size  # or it is not even worth the arithmetic
        if fits:
            longest_key = PublicKey(2**self.key_bits - 1, 2**32 - 1).to_line()
            fits = len(longest_key) < self.line_size and self.text_size > 0
        if not fits:
            raise ValueError(
                f"a key of {self.key_bits} bits does not fit in a line under a receive buffer of"
                f" {self.receive_buffer_size} bits: use a smaller key or a larger buffer"
            )

    @property
    def line_size(self) -> int:
        """The octets of the longest line, LF included: less than the receive buffer."""
        return (self.receive_buffer_size - 1) // 8

    @property
    def text_size(self) -> int:
        """The characters of the longest text."""
        size = block_size(self.key_bits)
        return (self.line_size - 1) // 4 * 3 // size * (size - OVERHEAD)

    def blocks(self, line: bytes) -> int:
        """The number of RSA blocks in a sealed line."""
        return len(line) // 4 * 3 // block_size(self.key_bits)


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a client: the message it is, and the texts that carry it (two for PUT)."""

    message: Message
    texts: tuple[str, ...]

    @classmethod
    def connect(cls, wire: Wire, client_id: str) -> "Command":
        """CONNECT; raises `TextError`, as PUT, GET and DELETE do, if it cannot be carried."""
        size = wire.text_size - len("CONNECT ")
        return cls(Message.CONNECT, ("CONNECT " + checked("client id", client_id, 1, size),))

    @classmethod
    def put(cls, wire: Wire, key: str, value: str) -> "Command":
        """PUT and its value."""
        checked("value", value, 0, wire.text_size)
        if value == Reply.GET_ERROR.value:
            raise TextError(f"the value {value!r} cannot be stored: it means a missing key")
        return cls(Message.PUT, ("PUT " + checked_key(wire, key), value))

    @classmethod
    def get(cls, wire: Wire, key: str) -> "Command":
        """GET."""
        return cls(Message.GET, ("GET " + checked_key(wire, key),))

    @classmethod
    def delete(cls, wire: Wire, key: str) -> "Command":
        """DELETE."""
        return cls(Message.DELETE, ("DELETE " + checked_key(wire, key),))

    @classmethod
    def disconnect(cls) -> "Command":
        """DISCONNECT."""
        return cls(Message.DISCONNECT, ("DISCONNECT",))


def checked_key(wire: Wire, key: str) -> str:
    """`key`, if DELETE could carry it too: a longer one could be stored and never deleted."""
    return checked("key", key, 1, wire.text_size - len("DELETE "))


def checked(what: str, text: str, shortest: int, longest: int) -> str:
    """`text`, if the protocol can carry it as `what`; otherwise raises `TextError`."""
    if not isinstance(text, str):
        raise TypeError(f"the {what} must be a str, not {type(text).__name__}")
    if not text.isascii():
        wrong = next(character for character in text if not character.isascii())
        raise TextError(f"the {what} has {wrong!r}, which is not an ASCII character")
    if "\n" in text:
        raise TextError(f"the {what} has a line feed, which a text cannot carry")
    if len(text) < shortest:
        raise TextError(f"the {what} is empty")
    if len(text) > longest:
        raise TextError(f"the {what} has {len(text)} characters, at most {longest} are allowed")
    return text


def parse(text: str) -> tuple[Message, str]:
    """The command that `text` is and its argument; raises `Violation`."""
    verb, _, argument = text.partition(" ")
    message = WITH_ARGUMENT.get(verb)
    if message and argument:
        return message, argument
    if text == Message.DISCONNECT.value:
        return Message.DISCONNECT, ""
    raise Violation(f"{shortened(text)} is not a command")


def opened(peer: PublicKey, line: bytes) -> str:
    """The text of a sealed line; raises `Violation`."""
    octets = peer.open(line)
    if not octets.isascii():
        raise Violation("the text is not ASCII")
    if b"\n" in octets:
        raise Violation("the text contains a line feed")
    return octets.decode("ascii")


def shortened(text: str) -> str:
    """A peer's text, fit to be quoted in a log line or an error message."""
    return repr(text) if len(text) <= 40 else f"{text[:40]!r}… ({len(text)} characters)"


class Service:
    """What all conversations of one server share: sizes, key, store, and ready-made lines.

    Only the fixed replies are sealed once for everybody. One key gives one text one line, so other
    lines can be remembered, too, but by the session that they belong to: a memory shared between
    sessions would tell one client, by timing, what another has stored.
    """

    def __init__(self, wire: Wire, key: PrivateKey, store: Store) -> None:
        self.wire = wire
        self.key = key
        self.store = store
        self.lines = {reply: key.seal(text.encode()) for text, reply in FIXED_REPLIES.items()}
        self.lines[Reply.KEY] = key.public.to_line()
        self.lines[Reply.NONE] = b""


class ServerConversation:
    """The server's end of one connection: a line in, at most one line out."""

    __slots__ = ("_peer", "_service", "client_id", "session", "state", "work")

    def __init__(self, service: Service) -> None:
        self._service = service
        self._peer: PublicKey | None = None
        self.client_id = ""  # empty until CONNECT: OK; stays when the session is gone
        self.work = 0  # what the last line took, in units of one block opened, about 15 µs
        self.session: Session | None = None
        self.state = State.AWAITING_KEY

    def receive(self, line: bytes) -> bytes:
        """The reply to `line`, empty for a PUT whose value is still to come.

        Raises `Violation`; the conversation is then closed and the session gone. The same holds,
        without an error, after the reply to DISCONNECT: look at `state`.
        """
        self.work = 1
        try:
            message, argument = self._read(line)
            outcomes = TRANSITIONS[self.state].get(message)
            if outcomes is None:
                raise Violation(f"{message} in state {self.state}")
        except Violation:
            self.close()
            raise
        reply = self._execute(message, argument)
        self.state = outcomes[reply]
        if reply is GET_VALUE:
            return self._sealed_value(argument)
        return self._service.lines[reply]

    def close(self) -> None:
        """Ends the session, if there is one; its data is gone and its id free at once."""
        if self.session is not None:
            self._service.store.end(self.session)
        self.session = None
        self.state = State.CLOSED

    def _read(self, line: bytes) -> tuple[Message, str]:
        """The message that a line is, by its state, and its argument."""
        if self._peer is None:
            self._peer = PublicKey.from_line(line, self._service.wire.key_bits)
            return Message.KEY, ""
        if self.session is not None and not self.session.pending:
            known: tuple[Message, str] | None = self.session.opened.get(line)
            if known is not None:
                return known
        self.work = self._service.wire.blocks(line)
        text = opened(self._peer, line)
        if self.session is None:
            return parse(text)
        if self.session.pending:
            return Message.VALUE, text
        command = parse(text)
        self.session.opened.keep(line, command, len(line) + len(command[1]))
        return command

    def _sealed_value(self, key: str) -> bytes:
        assert self.session is not None
        line = self.session.sealed.get(key)
        if line is None:
            line = self._service.key.seal(self.session.values[key].encode("ascii"))
            self.work += SEALING * self._service.wire.blocks(line)
            self.session.sealed.keep(key, line, len(line))
        return line

    def _execute(self, message: Message, argument: str) -> Reply:
        """Does what `message` says, and returns which reply that calls for."""
        session = self.session
        if session is None:
            return self._shake_hands(message, argument)
        if message is GET:
            known = argument in session.sealed or argument in session.values
            return GET_VALUE if known else GET_ERROR
        if message is Message.PUT:
            session.await_value(argument)
            return Reply.NONE
        if message is Message.VALUE:
            key = session.take_pending()
            # A value that reads GET: ERROR would make the reply to GET ambiguous.
            stored = argument != GET_ERROR and session.put(key, argument)
            return Reply.PUT_OK if stored else Reply.PUT_ERROR
        if message is Message.DELETE:
            session.delete(argument)
            return Reply.DELETE_OK
        if message is Message.CONNECT:
            return Reply.CONNECT_ERROR
        self.close()
        return Reply.DISCONNECT_OK

    def _shake_hands(self, message: Message, argument: str) -> Reply:
        if message is Message.KEY:
            return Reply.KEY
        self.session = self._service.store.begin(argument)
        if self.session is None:
            return Reply.CONNECT_ERROR
        self.client_id = argument
        return Reply.CONNECT_OK


class ClientConversation:
    """The client's end of one connection: commands become lines, lines become their replies."""

    def __init__(self, wire: Wire, key: PrivateKey) -> None:
        self._wire = wire
        self.key = key
        self.peer: PublicKey | None = None
        self.awaiting: deque[Command] = deque()

    def lines(self, command: Command) -> Iterator[bytes]:
        """The lines that carry `command`, whose reply is awaited from now on."""
        self.awaiting.append(command)
        return (self.key.seal(text.encode("ascii")) for text in command.texts)

    def receive(self, line: bytes) -> tuple[Command, str] | None:
        """The oldest awaited command and its reply; None for the server's key line.

        Raises `Violation` for a line that the server should not have sent.
        """
        text = self.read(line)
        if text is None:
            return None
        if not self.awaiting:
            raise Violation(f"the server said {shortened(text)} to nothing")
        command = self.awaiting.popleft()
        # Any text at all may be a value, so there is no wrong reply to GET.
        verb = command.message
        if verb is not Message.GET and FIXED_REPLIES.get(text) not in ACCEPTED[verb]:
            raise Violation(f"the server answered {verb.value} with {shortened(text)}")
        return command, text

    def read(self, line: bytes) -> str | None:
        """The text of a line, unjudged; None for the server's key line. Raises `Violation`."""
        if self.peer is None:
            self.peer = PublicKey.from_line(line, self._wire.key_bits)
            return None
        return opened(self.peer, line)
