"""A server that does as the test says, for tests of our client's end.

    with FakeServer() as fake:
        ...                          # start the client, in a process of its own
        client = fake.accept().connect()
        assert client.read_text() == "GET x"
        client.reply("blue")

`fake.behave(function)` runs `function(conversation)` for the first connection in a thread, for
tests in which this very thread is the client's. Nothing here comes from `kv/`, and every wait is
bounded.
"""

import contextlib
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from patience import patience
from wire import KEY, End, Key, from_line, open_line, parse_public_key


def opened(line: bytes, n: int, e: int) -> bytes:
    """The octets of a sealed line, ASCII or not, as many blocks as there are."""
    octets, size, parts = from_line(line), (n.bit_length() + 7) // 8, []
    for start in range(0, len(octets), size):
        block = pow(int.from_bytes(octets[start : start + size], "big"), e, n)
        prefix, zero, part = block.to_bytes(size, "big")[1:].partition(b"\x00")
        assert zero and prefix.startswith(b"\x01\xff"), "not sealed with the client's key"
        parts.append(part)
    return b"".join(parts)


class Conversation(End):
    """The server's end of one connection."""

    client_key = (0, 0)

    def handshake(self) -> "Conversation":
        """Reads the client's key line and sends this server's."""
        self.client_key = parse_public_key(from_line(self.read_line()))
        self.send_raw(self.key.line)
        return self

    def connect(self) -> "Conversation":
        """The handshake, and CONNECT answered with OK."""
        assert self.handshake().read_text().startswith("CONNECT ")
        self.reply("CONNECT: OK")
        return self

    def read_text(self) -> str:
        return open_line(self.read_line(), *self.client_key)

    def read_octets(self) -> bytes:
        """What the next line carries, allowed or not."""
        return opened(self.read_line(), *self.client_key)

    def read_to_end(self) -> list[str]:
        """Every text up to the end of the client's sending, by FIN or by RST."""
        texts: list[str] = []
        while True:
            try:
                texts.append(self.read_text())
            except EOFError as error:
                assert str(error).endswith("b''"), "the client ended in the middle of a line"
                return texts
            except ConnectionResetError:
                return texts

    def drain(self) -> None:
        """Reads whatever comes and throws it away, up to the end, by FIN or by RST."""
        with contextlib.suppress(ConnectionResetError):
            while self.socket.recv(65536):
                pass

    reply = End.send_text

    def serve(self) -> list[str]:
        """Answers every command with OK, GET with its key, until the client has ended its side.

        Returns the texts that came, DISCONNECT included; the client must end with FIN.
        """
        texts: list[str] = []
        while True:
            try:
                texts.append(text := self.read_text())
            except EOFError:
                return texts
            verb, _, argument = text.partition(" ")
            if verb == "PUT":
                texts.append(self.read_text())
            self.reply(argument if verb == "GET" else f"{verb}: OK")
            if verb == "DISCONNECT":
                self.half_close()


class FakeServer:
    """A listening socket on a free port, and the conversations that came of it."""

    def __init__(self, key: Key = KEY) -> None:
        self._key = key
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(patience())
        self.port: int = self._listener.getsockname()[1]
        self._conversations: list[Conversation] = []
        self._threads = ThreadPoolExecutor()
        self._behaviours: list[Future[object]] = []

    def accept(self) -> Conversation:
        """The next connection."""
        conversation = Conversation(self._listener.accept()[0], self._key)
        self._conversations.append(conversation)
        return conversation

    def behave(self, behaviour: Callable[[Conversation], object]) -> None:
        """Runs `behaviour` on the next connection in a thread; what it raises fails the test."""
        self._behaviours.append(self._threads.submit(lambda: behaviour(self.accept())))

    def join(self) -> None:
        """Waits until every behaviour has come to its end; raises what one of them raised."""
        while self._behaviours:
            self._behaviours.pop(0).result(patience(2))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:  # a test that failed already has its own story to tell
                self.join()
        finally:
            self._threads.shutdown(wait=False)
            self._listener.close()
            for conversation in self._conversations:
                conversation.close()
