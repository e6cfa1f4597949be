"""Both ends of a conversation: lines go in, lines come out (without LF).

Sans-I/O: no sockets, no selectors, no clock. `messages` knows what the words mean. This module
knows what has been said in one conversation, and answers.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from kv.errors import Violation
from kv.protocol.cipher import PrivateKey, PublicKey, work
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
from kv.protocol.recent import Recent
from kv.protocol.store import Session, Store

#: Used while any line may be a value: no answer is ready then.
NOTHING_READY: dict[bytes, bytes] = {}
#: CPython 3.11 takes 80 ns to look a member up in its enum, four times what globals take.
AWAITING_COMMAND, AWAITING_PUT_VALUE = State.AWAITING_COMMAND, State.AWAITING_PUT_VALUE
PUT, VALUE = Message.PUT, Message.VALUE


def opened(peer: PublicKey, line: bytes) -> str:
    """The text of a sealed line; raises `Violation`."""
    try:
        text = peer.open(line).decode("ascii")
    except UnicodeDecodeError as error:
        raise Violation("the text is not ASCII") from error
    if "\n" in text:
        raise Violation("the text contains a line feed")
    return text


class Service:
    """What all conversations of one server share: sizes, key, store, and ready-made lines.

    The fixed replies are sealed once, for everybody. Under one key, one text has one line, so other
    lines can be remembered, too. Each session remembers its own. A memory shared between sessions
    would tell one client, by timing, what another has stored.

    `opening` and `sealing` are the work of one block, in units of about 1 µs (26).
    """

    def __init__(self, wire: Wire, key: PrivateKey, store: Store) -> None:
        self.wire = wire
        self.key = key
        self.store = store
        self.opening, self.sealing = work(wire.key_bits)
        self.lines = {reply: key.seal(text.encode()) for text, reply in FIXED_REPLIES.items()}
        self.lines[Reply.KEY] = key.public.to_line()
        self.lines[Reply.NONE] = b""

    def longest_message(self, seconds: float) -> float:
        """How long the longest message takes, in seconds, if making this service took `seconds`."""
        opening, sealing = self.opening, self.sealing
        return self.wire.blocks_of_text * seconds / len(FIXED_REPLIES) * (1 + opening / sealing)


class ServerConversation:
    """The server's end of one connection: a line in, at most one line out."""

    __slots__ = ("_peer", "_service", "client_id", "session", "state", "work")

    def __init__(self, service: Service) -> None:
        self._service = service
        self._peer: PublicKey | None = None
        self.client_id = ""  # empty until CONNECT: OK; kept after the end of the session
        self.work = 0  # of the last call, in units of about 1 µs; at least one for each line
        self.session: Session | None = None
        self.state = State.AWAITING_KEY

    def answer(self, lines: Iterable[bytes], budget: int, replies: list[bytes]) -> None:
        """Takes lines while `work` is below `budget`, and adds their replies to `replies`.

        Stops right after a line that begins or ends the session. Raises `Violation`: then the
        conversation is closed, the session is gone, and `replies` has the replies to earlier lines.
        After DISCONNECT, the conversation is closed, too, without an error: look at `state`.
        """
        before, session, state = len(replies), self.session, self.state
        self.work = 0  # the one unit for each reply is added at the end
        known, add = self._ready(), replies.append
        try:
            for line in islice(lines, budget):
                reply = known(line)
                if reply is not None:  # usual, when a program asks for the same keys again
                    add(reply)
                    continue
                reply = self._handle(line)
                if reply:
                    add(reply)
                else:
                    self.work += 1
                if self.session is not session or self.work + len(replies) - before >= budget:
                    break
                if self.state is not state:
                    state, known = self.state, self._ready()
        except Violation:
            self.work += 1
            self.close()
            raise
        finally:
            self.work += len(replies) - before

    def receive(self, line: bytes) -> bytes:
        """The reply to one line, as `answer` gives it. Empty for a PUT without its value yet."""
        replies: list[bytes] = []
        self.answer((line,), 1, replies)
        return replies[0] if replies else b""

    def refuse(self) -> bytes:
        """Takes a CONNECT: OK back that nobody has heard; the reply to be sent in its place.

        For whoever knows better than this server's store whether the client id is in use.
        """
        self.close()
        self.client_id = ""
        reply = Reply.CONNECT_ERROR
        self.state = TRANSITIONS[State.AWAITING_CONNECT][Message.CONNECT][reply]
        return self._service.lines[reply]

    def close(self) -> None:
        """Ends the session, if there is one. Its data is gone and its id is free at once."""
        if self.session is not None:
            self._service.store.end(self.session)
        self.session = None
        self.state = State.CLOSED

    def _ready(self) -> Callable[[bytes], bytes | None]:
        """The function that finds ready answers. It finds none while a line may be a value."""
        if self.state is AWAITING_COMMAND and self.session is not None:
            return self.session.answers.get
        return NOTHING_READY.get

    def _handle(self, line: bytes) -> bytes:
        """The reply to a line without a ready answer. Adds to `work`."""
        service = self._service
        if self._peer is None:
            message, argument = self._take_key(line), ""
        else:
            self.work += service.opening * service.wire.blocks(line)
            text = opened(self._peer, line)
            message, argument = (VALUE, text) if self.state is AWAITING_PUT_VALUE else parse(text)
        outcomes = TRANSITIONS[self.state].get(message)
        if outcomes is None:
            raise Violation(f"{message} in state {self.state}")
        reply = self._execute(message, argument)
        self.state = outcomes[reply]
        if reply is GET_VALUE:
            return self._sealed_value(argument, line)
        return service.lines[reply]

    def _take_key(self, line: bytes) -> Message:
        # A client that shows the server's own key needs no private key. It could send lines
        # that the server has sealed for others, and they would count as its messages.
        service = self._service
        if line == service.lines[Reply.KEY]:
            raise Violation("the key is this server's own")
        self._peer = PublicKey.from_line(line, service.wire.key_bits)
        return Message.KEY

    def _sealed_value(self, key: str, line: bytes) -> bytes:
        """The sealed value that `line` asks for. Both are remembered, for the same line again."""
        assert self.session is not None
        service = self._service
        reply = service.key.seal(self.session.values[key].encode("ascii"))
        self.work += service.sealing * service.wire.blocks(reply)
        self.session.remember(key, line, reply)
        return reply

    def _execute(self, message: Message, argument: str) -> Reply:
        """Does what `message` says, and returns the reply to give."""
        session = self.session
        if session is None:
            return self._shake_hands(message, argument)
        if message is GET:
            return GET_VALUE if argument in session.values else GET_ERROR
        if message is PUT:
            session.await_value(argument)
            return Reply.NONE
        if message is VALUE:
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
        self._sealed: Recent[str, bytes] = Recent()
        self._opened: Recent[bytes, str] = Recent()

    def lines(self, command: Command) -> Iterator[bytes]:
        """The lines that carry `command`. From now on, its reply is awaited."""
        self.awaiting.append(command)
        known = self._sealed.get
        return (known(text) or self._seal(text) for text in command.texts)

    def receive(self, line: bytes) -> tuple[Command, str] | None:
        """The oldest command without a reply, and its reply. None for the server's key line.

        Raises `Violation` for a line that the server must not send.
        """
        text = self._opened.get(line)
        if text is None:
            text = self.read(line)
            if text is None:
                return None
        if not self.awaiting:
            raise Violation(f"the server sent {shortened(text)} without a command")
        command = self.awaiting.popleft()
        # Any text may be a value, so no reply to GET is wrong.
        verb = command.message
        if verb is not Message.GET and FIXED_REPLIES.get(text) not in ACCEPTED[verb]:
            raise Violation(f"the server answered {verb.value} with {shortened(text)}")
        return command, text

    def read(self, line: bytes) -> str | None:
        """The text of a line, whatever it says. None for the key line. Raises `Violation`."""
        if self.peer is None:
            if line == self.key.public.to_line():
                raise Violation("the server's key is this client's own")
            self.peer = PublicKey.from_line(line, self._wire.key_bits)
            return None
        return self._opened.keep(line, opened(self.peer, line))

    def _seal(self, text: str) -> bytes:
        return self._sealed.keep(text, self.key.seal(text.encode("ascii")))
