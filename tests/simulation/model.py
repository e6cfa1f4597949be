"""What the server should say: its words, its keys, and a model of it that is a plain dict.

The model has no network, no reactor and no RSA. It gets each message that the server is going to
handle, with its client, and says what the reply must be. It has two things in common with the
server. One is the order of different clients' messages: any order is right, but it shows in the
account of memory. The other is the two charges of `kv.protocol.store`.

Sealing is a pure function of key and octets, and RSA is nine tenths of the server's work. So this
module remembers sealed and opened lines, and the simulated server's keys do, too (`quick_rsa`). No
world can see through that what another one did.
"""

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import rsa

from kv.protocol.cipher import PrivateKey, PublicKey, work
from kv.protocol.messages import Wire
from kv.protocol.store import ENTRY, SESSION

from .kernel import Failure

DOCUMENT = Path(__file__).resolve().parents[2] / "protocol.md"
#: The key pairs of section 14, which are nobody's secret: the client's, the server's, and a larger.
CLIENT_PEM, SERVER_PEM, _ = re.findall(
    rb"^-----BEGIN .*?^-----END .*?$", DOCUMENT.read_bytes(), re.M | re.S
)


class QuickKey(PrivateKey):
    """A private key that remembers what it has sealed."""

    def __init__(self, pem: bytes) -> None:
        super().__init__(rsa.PrivateKey.load_pkcs1(pem))
        self.seal = functools.cache(super().seal)  # type: ignore[method-assign]


SERVER_KEY = QuickKey(SERVER_PEM)
CLIENT_KEY = QuickKey(CLIENT_PEM)
SERVER_KEY_LINE = SERVER_KEY.public.to_line()
#: Units of work of the longest message: a GET of the longest value, say, that is not ready.
LONGEST_MESSAGE = Wire().blocks_of_text * sum(work(512)) + 1
#: Stands for the key line where a text is expected.
KEY_LINE = "(the client's key line)"
_LINES = {KEY_LINE: CLIENT_KEY.public.to_line()}
_MEANINGS = {line: text for text, line in _LINES.items()}


_from_line = functools.cache(PublicKey.from_line)
_open = functools.cache(PublicKey.open)


@contextmanager
def quick_rsa() -> Iterator[None]:
    """While this lasts, public keys remember, too, what they have opened."""
    with (
        mock.patch.object(PublicKey, "from_line", _from_line),
        mock.patch.object(PublicKey, "open", _open),
    ):
        yield


def line_of(text: str) -> bytes:
    """The client's line, without LF, that carries `text`, or its key line."""
    if text not in _LINES:
        line = _LINES[text] = CLIENT_KEY.seal(text.encode("ascii"))
        _MEANINGS[line] = text
    return _LINES[text]


def meaning_of(line: bytes) -> str | None:
    """The text that a line carries; None for a line that no client can have sealed."""
    return _MEANINGS.get(line)


def reply_line(text: str) -> bytes:
    """The server's line, without LF, that carries `text`; its key line for the client's."""
    if text == KEY_LINE:
        return SERVER_KEY_LINE
    return SERVER_KEY.seal(text.encode("ascii"))


class Story:
    """One client, as the model sees it."""

    __slots__ = ("client_id", "pending", "state", "values")

    def __init__(self) -> None:
        self.state = "AWAITING_KEY"
        self.client_id = ""
        self.values: dict[str, str] = {}
        self.pending = ""

    @property
    def in_session(self) -> bool:
        """Between CONNECT: OK and the end."""
        return self.state == "AWAITING_COMMAND" or self.state == "AWAITING_PUT_VALUE"  # noqa: PLR1714


class Model:
    """The server as a dict of dicts, with an account."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.sessions: dict[str, Story] = {}

    def used(self) -> int:
        """The account: what `kv.protocol.store` says it charges."""
        return sum(
            SESSION
            + len(story.client_id)
            + len(story.pending)
            + sum(ENTRY + len(key) + len(value) for key, value in story.values.items())
            for story in self.sessions.values()
        )

    def end(self, story: Story) -> None:
        """The client's session, if it has one, is gone and all its data."""
        if story.in_session:
            del self.sessions[story.client_id]
        story.state = "CLOSED"

    def receive(self, story: Story, text: str | None) -> str | None:
        """The reply to one message; None if there is none: to PUT, and to a violation.

        A violation ends the session.
        """
        reply = self._reply(story, text)
        if reply is None and story.state != "AWAITING_PUT_VALUE":
            self.end(story)
        return reply

    def _reply(self, story: Story, text: str | None) -> str | None:
        if story.state == "CLOSED":
            raise Failure("a message is handled after the one that ended the conversation")
        if story.state == "AWAITING_KEY" and text == KEY_LINE:
            story.state = "AWAITING_CONNECT"
            return KEY_LINE
        if story.state == "AWAITING_KEY" or text is None or text == KEY_LINE:
            self.end(story)
            return None
        if story.state == "AWAITING_PUT_VALUE":
            return self._put(story, text)
        verb, _, argument = text.partition(" ")
        if verb == "CONNECT" and argument:
            return self._connect(story, argument)
        if story.state == "AWAITING_CONNECT":
            return None
        if text == "DISCONNECT":
            self.end(story)
            return "DISCONNECT: OK"
        if not argument:
            return None
        if verb == "PUT":
            story.state, story.pending = "AWAITING_PUT_VALUE", argument
            return None
        if verb == "GET":
            return story.values.get(argument, "GET: ERROR")
        if verb == "DELETE":
            story.values.pop(argument, None)
            return "DELETE: OK"
        return None

    def _connect(self, story: Story, client_id: str) -> str:
        if story.in_session or client_id in self.sessions:
            return "CONNECT: ERROR"
        story.state, story.client_id = "AWAITING_COMMAND", client_id
        self.sessions[client_id] = story
        return "CONNECT: OK"

    def _put(self, story: Story, value: str) -> str:
        key, story.pending, story.state = story.pending, "", "AWAITING_COMMAND"
        before = self.used()
        old = story.values.get(key)
        story.values[key] = value
        if value == "GET: ERROR" or self.used() > max(self.capacity, before):
            del story.values[key]
            if old is not None:
                story.values[key] = old
            return "PUT: ERROR"
        return "PUT: OK"
