"""Both ends of a conversation: lines go in, lines come out (without LF).

Sans-I/O: no sockets, no selectors, no clock. What the words mean is in `messages`; here is what is
said and remembered in one conversation.
"""

from collections import deque
from collections.abc import Iterator

from kv.errors import Violation
from kv.protocol.cipher import PrivateKey, PublicKey
from kv.protocol.messages import (
    ACCEPTED,
    FIXED_REPLIES,
    GET,
    GET_ERROR,
    GET_VALUE,
    TRANSITIONS,
    Command,
    Message,
    Reply,
    State,
    Wire,
    parse,
    shortened,
)
from kv.protocol.store import Session, Store

#: The work of sealing one block, in blocks opened: a private-key operation against a public one.
#: A turn of the loop is bounded in this unit, because nobody else is served meanwhile (26).
SEALING = 20


def opened(peer: PublicKey, line: bytes) -> str:
    """The text of a sealed line; raises `Violation`."""
    octets = peer.open(line)
    if not octets.isascii():
        raise Violation("the text is not ASCII")
    if b"\n" in octets:
        raise Violation("the text contains a line feed")
    return octets.decode("ascii")


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

    def answer(self, lines: Iterator[bytes], budget: int, replies: list[bytes]) -> None:
        """Takes lines while `work` is below `budget`, and adds their replies to `replies`."""
        total, session = 0, self.session
        try:
            for line in lines:
                reply = self.receive(line)
                total += self.work
                if reply:
                    replies.append(reply)
                if total >= budget or self.session is not session:
                    break
        finally:
            self.work = max(total, self.work)

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
