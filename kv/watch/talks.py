"""The methods that the microscope watches, last part: messages, and what people type and see.

As in `loop.py`. Two methods are private: what a message was, and how TLS goes on, only they know.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kv.net.stdio import Input, Output
from kv.net.tls import Event as TlsEvent
from kv.net.tls import Tls
from kv.protocol.cipher import PrivateKey, PublicKey
from kv.protocol.conversation import ClientConversation, ServerConversation
from kv.protocol.messages import Command, Message, Reply, shortened
from kv.protocol.recent import Recent
from kv.watch.loop import LoopTaps, Tap

if TYPE_CHECKING:
    from kv.watch.trace import Trace


class Talks:
    """The taps between the methods and their callers, while a trace is on."""

    def __init__(self, trace: "Trace", loop: LoopTaps) -> None:
        self._trace = trace
        self._loop = loop
        self._message = ""  # what is worked on

    def all(self) -> Iterator[tuple[type, str, Tap]]:
        """Each method, and the tap for it."""
        yield from (
            (Tls, "received", self._records),
            (Tls, "write", self._record),
            (Tls, "_enter", self._tls_state),
            (PublicKey, "open", self._open),
            (PrivateKey, "seal", self._seal),
            (ServerConversation, "answer", self._answer),
            (ServerConversation, "_execute", self._execute),
            (ClientConversation, "lines", self._command),
            (ClientConversation, "read", self._read),
            (ClientConversation, "receive", self._reply),
            (Input, "take", self._take),
            (Output, "write", self._write),
        )

    def _records(self, call: Any, tls: Tls, octets: bytes) -> bytes:
        what = f"{'the handshake, ' if tls.shaking else ''}{len(octets)} octets"
        with self._trace.timed(self._loop.who, "tls", what) as text:
            plaintext: bytes = call(tls, octets)
            text.append(f"{what}: {len(plaintext)} of plaintext")
            return plaintext

    def _record(self, call: Any, tls: Tls, plaintext: bytes) -> bytes:
        what = f"{len(plaintext)} octets of plaintext"
        with self._trace.timed(self._loop.who, "tls", what) as text:
            octets: bytes = call(tls, plaintext)
            text.append(f"{what}: {f'{len(octets)} octets' if octets else 'they wait'}")
            return octets

    def _tls_state(self, call: Any, tls: Tls, event: TlsEvent) -> None:
        before = tls.state
        call(tls, event)
        why = f": {tls.error}" if tls.error else ""
        self._trace.tell(self._loop.who, "tls", f"{before.value} -> {tls.state.value}{why}")

    def _open(self, call: Any, key: PublicKey, line: bytes) -> bytes:
        with self._trace.timed(
            self._loop.who, "open", f"{len(line)} octets, with their public key"
        ):
            opened: bytes = call(key, line)
        self._trace.begin()
        return opened

    def _seal(self, call: Any, key: PrivateKey, text: bytes) -> bytes:
        if self._loop.who == "loop":  # it is none of this program's
            return bytes(call(key, text))
        with self._trace.timed(self._loop.who, "seal", f"{len(text)} octets, with the private key"):
            sealed: bytes = call(key, text)
        self._trace.begin()
        return sealed

    def _execute(self, call: Any, talk: ServerConversation, message: Message, text: str) -> Reply:
        self._message = f"{message} {shortened(text)}" if text else str(message)
        reply: Reply = call(talk, message, text)
        self._message += f" -> {reply}"
        return reply

    def _answer(self, call: Any, talk: Any, lines: Any, budget: int, replies: Any) -> None:
        """Looks at each line while it is handled: from when it is taken until the next one is."""
        if self._loop.who in self._trace.looks:
            self._trace.looks[self._loop.who].talk = talk
        taken: list[tuple[bytes, float]] = []
        try:
            call(talk, self._one_by_one(lines, taken), budget, replies)
        except Exception as error:
            self._message = str(error)
            raise
        finally:
            self._handled(taken)

    def _one_by_one(self, lines: Any, taken: Any) -> Iterator[bytes]:
        for line in lines:
            self._handled(taken)
            self._trace.begin(self._loop.who)
            taken.append((line, self._trace.now()))
            yield line

    def _handled(self, taken: Any) -> None:
        if taken:
            line, start = taken.pop()
            known = self._loop.known.setdefault(self._loop.who, Recent())
            said, self._message = self._message, ""
            if said:
                known.keep(line, said)
            else:
                said = f"{known.get(line, 'a line')}, which was ready"
            self._trace.tell(self._loop.who, "message", said, start)

    def _command(self, call: Any, talk: ClientConversation, command: Command) -> list[bytes]:
        self._loop.who = self._loop.latest  # a client has one; a command may come from its input
        texts = " and ".join(shortened(text) for text in command.texts)
        with self._trace.timed(self._loop.who, "command", texts):
            return list(call(talk, command))  # it is lazy, and the sealing belongs here

    def _read(self, call: Any, talk: ClientConversation, line: bytes) -> str | None:
        read: str | None = call(talk, line)
        if read is None:
            self._trace.tell(self._loop.who, "reply", "the server's key line")
        return read

    def _reply(
        self, call: Any, talk: ClientConversation, line: bytes
    ) -> tuple[Command, str] | None:
        with self._trace.timed(self._loop.who, "reply", "") as text:
            answered: tuple[Command, str] | None = call(talk, line)
            if answered is not None:
                text.append(f"{shortened(answered[0].texts[0])} -> {shortened(answered[1])}")
            return answered

    def _take(self, call: Any, source: Input) -> bytes | None:
        line: bytes | None = call(source)
        if line is not None:
            self._trace.tell("stdin", "line", f"{len(line)} octets")
        return line

    def _write(self, call: Any, output: Output, data: bytes) -> None:
        with self._trace.timed("stdout", "write", f"{len(data)} octets"):
            call(output, data)
