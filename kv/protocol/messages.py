"""The words of the protocol: states, messages, replies, what may follow what, and sizes.

This file decides what a message means, and which messages may follow it. `protocol.md` is the
normative text. The transition table is data: the diagram in `protocol.md` is drawn from it.
"""

from dataclasses import dataclass
from enum import StrEnum

from kv.errors import TextError, Violation
from kv.protocol.cipher import LARGEST, OVERHEAD, key_line_size


class Word(StrEnum):
    """An enum whose members are dict keys: each is hashed as its string.

    The hash function of `Enum` is written in Python, and takes longer than the look-up itself.
    """

    __hash__ = str.__hash__


class State(Word):
    """How far a conversation has come, seen from the server."""

    AWAITING_KEY = "AWAITING_KEY"
    AWAITING_CONNECT = "AWAITING_CONNECT"
    AWAITING_COMMAND = "AWAITING_COMMAND"
    AWAITING_PUT_VALUE = "AWAITING_PUT_VALUE"
    CLOSED = "CLOSED"


class Message(Word):
    """What a client's line can be. In AWAITING_PUT_VALUE every text is a VALUE."""

    KEY = "key line"
    CONNECT = "CONNECT"
    PUT = "PUT"
    VALUE = "value"
    GET = "GET"
    DELETE = "DELETE"
    DISCONNECT = "DISCONNECT"


class Reply(Word):
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


#: Every GET needs these. CPython 3.11 takes 80 ns to look a member up in its enum, four times as
#: long as a global.
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

#: What a client accepts as the reply to each command. To GET, it accepts any text. This server
#: never sends DELETE: ERROR, but another server may.
ACCEPTED = {
    Message.CONNECT: {Reply.CONNECT_OK, Reply.CONNECT_ERROR},
    Message.PUT: {Reply.PUT_OK, Reply.PUT_ERROR},
    Message.DELETE: {Reply.DELETE_OK, Reply.DELETE_ERROR},
    Message.DISCONNECT: {Reply.DISCONNECT_OK},
}

#: The largest receive buffer, in bits: far more than any machine has.
LARGEST_BUFFER = 1 << 60

WITH_ARGUMENT = {
    message.value: message
    for message in (Message.CONNECT, Message.PUT, Message.GET, Message.DELETE)
}


@dataclass(frozen=True, slots=True)
class Wire:
    """The two sizes that both ends must agree on, in bits, and what follows from them.

    Raises `ValueError` for sizes that cannot be used: if a key takes minutes to make, or if a key
    line or a fixed reply does not fit in a line.
    """

    key_bits: int = 512
    receive_buffer_size: int = 4096

    def __post_init__(self) -> None:
        if self.key_bits % 8 or not 128 <= self.key_bits <= LARGEST:
            raise ValueError(
                f"a key of {self.key_bits} bits: use a multiple of 8 from 128 to {LARGEST}"
            )
        if self.receive_buffer_size > LARGEST_BUFFER:
            raise ValueError(f"a receive buffer of more than {LARGEST_BUFFER} bits fits nowhere")
        longest = max(map(len, FIXED_REPLIES))
        if key_line_size(self.key_bits) > self.line_size or self.text_size < longest:
            raise ValueError(
                f"a key of {self.key_bits} bits, or a text of {longest} characters under it, does"
                f" not fit in a line under a receive buffer of {self.receive_buffer_size} bits: use"
                " a smaller key or a larger buffer"
            )

    @property
    def line_size(self) -> int:
        """The octets of the longest line, LF included: less than the receive buffer."""
        return (self.receive_buffer_size - 1) // 8

    @property
    def text_size(self) -> int:
        """The characters of the longest text."""
        return self.blocks_of_text * (self.key_bits // 8 - OVERHEAD)

    @property
    def blocks_of_text(self) -> int:
        """The RSA blocks of the longest text."""
        return (self.line_size - 1) // 4 * 3 // (self.key_bits // 8)

    def blocks(self, line: bytes) -> int:
        """The number of RSA blocks in a sealed line: each of its characters stands for six bits."""
        return len(line) * 6 // self.key_bits


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a client: its message, and the texts that carry it (two for PUT)."""

    message: Message
    texts: tuple[str, ...]

    @classmethod
    def connect(cls, wire: Wire, client_id: str) -> "Command":
        """CONNECT. As PUT, GET and DELETE, raises `TextError` for a text that cannot be sent."""
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
        longest = wire.text_size - len("GET ")  # another client may store a key it cannot delete
        return cls(Message.GET, ("GET " + checked("key", key, 1, longest),))

    @classmethod
    def delete(cls, wire: Wire, key: str) -> "Command":
        """DELETE."""
        return cls(Message.DELETE, ("DELETE " + checked_key(wire, key),))

    @classmethod
    def disconnect(cls) -> "Command":
        """DISCONNECT."""
        return cls(Message.DISCONNECT, ("DISCONNECT",))


def checked_key(wire: Wire, key: str) -> str:
    """`key`, if DELETE can carry it, too. A longer key could be stored and never deleted."""
    return checked("key", key, 1, wire.text_size - len("DELETE "))


def checked(what: str, text: str, shortest: int, longest: int) -> str:
    """`text`, if the protocol can carry it as `what`. Otherwise raises `TextError`."""
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
    """The command in `text`, and its argument. Raises `Violation`.

    The violation's message can be logged. The text is the client's data, so it stands in a note to
    the violation.
    """
    verb, _, argument = text.partition(" ")
    message = WITH_ARGUMENT.get(verb)
    if message and argument:
        return message, argument
    if text == Message.DISCONNECT.value:
        return Message.DISCONNECT, ""
    violation = Violation("a text that is not a command")
    violation.add_note(f"the text was {shortened(text)}")
    raise violation


def shortened(text: str) -> str:
    """A peer's text as it is quoted in log lines and error messages."""
    return repr(text) if len(text) <= 40 else f"{text[:40]!r}… ({len(text)} characters)"
