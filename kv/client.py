"""Joins them for callers: the `Client` library, blocking for its caller, reactor inside."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import TypeVar, overload

from kv.errors import PutRefused
from kv.link import Link
from kv.net.address import Address, resolve
from kv.net.reactor import Reactor
from kv.protocol.cipher import PrivateKey
from kv.protocol.messages import FIXED_REPLIES, Command, Message, Reply, Wire

T = TypeVar("T")

DISCONNECT = (Command.disconnect(),)

BUSY = (
    "this client is in the middle of another call, of another thread, or of the code that a signal"
    " handler or a callback has interrupted: give each its own client, or use a lock"
)
FORKED = "this client belongs to the process that made it, before a fork: make another one here"


class Client:
    """A connection to a server, for blocking code.

    >>> from kv import Client
    >>> with Client("127.0.0.1", 4242, client_id="alice", timeout=10) as kv:
    ...     kv.put("colour", "blue")
    ...     print(kv.get("colour"), kv["colour"])
    ...     kv["shape"] = "round"
    ...     del kv["shape"]
    ...     print(kv.get("shape"), kv.get("shape", "none"), "shape" in kv)
    ...     print(kv.pipeline().put("a", "1").get("a").delete("a").get("a").execute())
    blue blue
    None none False
    [True, '1', True, None]

    Connects at once; the session and its data live until `close`, which `with` calls. A client
    that is thrown away unclosed warns (`ResourceWarning`) and frees its id at once.

    `timeout`, in seconds, bounds the constructor and `close`; otherwise it is the longest time in
    which nothing happens though a reply is owed, or the server does not take what is sent. Looking
    up a host name is not counted. Making a key takes about 35 ms at 512 bits, so programs that
    connect often make one with `PrivateKey.generate()` and hand it in as `key`. `key_bits` and
    `receive_buffer_size`, in bits, must be the server's.

    Any thread may use a client, but one call at a time. A call from a second thread, from a signal
    handler or from a callback while another one runs raises `RuntimeError`, and the one that runs
    goes on. So does any call in a child after `fork`: the connection stays the parent's, whatever
    the child does with its copy.

    Every method may raise, besides what it names: `TextError` (a `ValueError`) for a text that the
    protocol cannot carry, before anything is sent; `ConnectionError` if the connection is lost,
    among them `Violation` if the server broke the protocol; `TimeoutError`. After the last two the
    client is closed: nobody knows what became of the command.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 4242,
        *,
        client_id: str,
        timeout: float = 10.0,
        key: PrivateKey | None = None,
        key_bits: int = 512,
        receive_buffer_size: int = 4096,
    ) -> None:
        """Raises `OSError` if there is no connection, `ConnectRefused` if the id is in use."""
        if not 0 < port < 65536:
            raise ValueError(f"{port} is not a port: use 1 to 65535")
        if not timeout > 0:
            raise ValueError(f"{timeout} is not a time-out: use seconds above 0")
        self._wire = Wire(key_bits, receive_buffer_size)
        if key is not None and key.bits != key_bits:
            raise ValueError(f"the key has {key.bits} bits, not {key_bits}")
        self._client_id = client_id
        Command.connect(self._wire, client_id)  # an id that cannot be sent is refused right here
        addresses = resolve(host, port)
        self._caller = Caller(
            addresses, self._wire, key or PrivateKey.generate(key_bits), client_id, timeout
        )

    def put(self, key: str, value: str) -> None:
        """Stores `value` under `key`; raises `PutRefused` if the server did not."""
        if self._ask(Command.put(self._wire, key, value)) != Reply.PUT_OK.value:
            raise PutRefused(f"the server did not store the value of {key!r}")

    @overload
    def get(self, key: str) -> str | None: ...
    @overload
    def get(self, key: str, default: T) -> str | T: ...
    def get(self, key: str, default: object = None) -> object:
        """The value under `key`, or `default` if there is none."""
        reply = self._ask(Command.get(self._wire, key))
        return default if reply == Reply.GET_ERROR.value else reply

    def delete(self, key: str) -> None:
        """Forgets `key`, whether or not it is there."""
        self._ask(Command.delete(self._wire, key))

    def pipeline(self) -> "Pipeline":
        """Collects commands to be sent in one go, without waiting for each reply."""
        return Pipeline(self)

    def close(self) -> None:
        """Disconnects; the session's data is gone. A connection that is lost by now is no error."""
        self._caller.close()

    @property
    def closed(self) -> bool:
        """Whether nothing more can be asked: after `close`, or once the connection was lost.

        A connection that is lost between two calls is noticed by the next one.
        """
        return bool(self._caller.closed)

    def __repr__(self) -> str:
        caller = getattr(self, "_caller", None)
        if caller is None:
            state = "not connected"
        else:
            state = f"closed: {caller.closed}" if caller.closed else f"at {caller.peer}"
        return f"<kv.Client {self._client_id!r} {state}>"

    def __del__(self) -> None:
        caller = getattr(self, "_caller", None)  # none if the constructor has raised
        if caller is not None and not caller.closed:
            named = repr(self)
            if caller.drop("it was thrown away"):
                warnings.warn(f"unclosed {named}", ResourceWarning, stacklevel=2, source=self)

    # As a mapping

    def __getitem__(self, key: str) -> str:
        """The value under `key`; raises `KeyError`."""
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: str) -> None:
        """As `put`."""
        self.put(key, value)

    def __delitem__(self, key: str) -> None:
        """As `delete`: a key that is not there is no error."""
        self.delete(key)

    def __contains__(self, key: str) -> bool:
        """Whether there is a value under `key`."""
        return self.get(key) is not None

    __iter__ = None  # the protocol cannot list keys

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, command: Command) -> str:
        return self._caller.execute((command,))[0]


class Pipeline:
    """Commands to be sent in one go; made by `Client.pipeline`."""

    def __init__(self, client: Client) -> None:
        self._client = client  # which is not thrown away before its last pipeline
        self._wire = client._wire  # noqa: SLF001 (the other half of one class)
        self._commands: list[Command] = []

    def put(self, key: str, value: str) -> "Pipeline":
        """Adds a PUT; its result is True, or False if the server did not store the value."""
        return self._add(Command.put(self._wire, key, value))

    def get(self, key: str) -> "Pipeline":
        """Adds a GET; its result is the value, or None."""
        return self._add(Command.get(self._wire, key))

    def delete(self, key: str) -> "Pipeline":
        """Adds a DELETE; its result is True."""
        return self._add(Command.delete(self._wire, key))

    def execute(self) -> list[str | bool | None]:
        """Sends the commands and returns their results in order; the pipeline is then empty."""
        commands, self._commands = self._commands, []
        replies = self._client._caller.execute(commands)  # noqa: SLF001
        return [result(command, reply) for command, reply in zip(commands, replies, strict=True)]

    def _add(self, command: Command) -> "Pipeline":
        self._commands.append(command)
        return self


def result(command: Command, reply: str) -> str | bool | None:
    """What a reply means to the caller of a pipeline."""
    if command.message is Message.GET:
        return None if reply == Reply.GET_ERROR.value else reply
    return FIXED_REPLIES[reply] in (Reply.PUT_OK, Reply.DELETE_OK)


class Caller:
    """Runs a link until its commands are answered: where the blocking caller waits.

    One call at a time. A second thread, a signal handler or a callback that comes in the middle of
    one would take replies that are not its own (44), and after a fork two processes would share one
    conversation (43). Both are told so, at once.
    """

    def __init__(
        self,
        addresses: list[tuple[int, Address]],
        wire: Wire,
        key: PrivateKey,
        client_id: str,
        timeout: float,
    ) -> None:
        self.closed = ""  # why, once it is
        self._process = os.getpid()
        self._turn = [None]  # whoever holds what is in it may call
        self._timeout = timeout
        self._commands: Iterator[Command] = iter(())
        self._replies: list[str] = []
        self._awaited = 0
        self._leaving = False  # what is awaited is the end
        self._answered = False  # all that the caller waits for is there
        self._error: Exception | None = None
        self._reactor = Reactor()
        self._link = Link(self._reactor, addresses, wire, key, client_id, self, timeout)
        self._run()

    @property
    def peer(self) -> str:
        """The server's address, for people."""
        return self._link.peer

    def execute(self, commands: Sequence[Command]) -> list[str]:
        """Sends `commands`, at most WINDOW ahead of their replies, which it returns in order."""
        if os.getpid() != self._process:
            raise RuntimeError(FORKED)
        turn: list[None] = []
        try:
            # Out of one list and into the other in one step of the interpreter: neither a thread
            # nor a signal comes in between, as after the test of a flag and before it is set (44).
            with suppress(IndexError):
                turn.extend(map(self._turn.pop, (0,)))
            if not turn:
                raise RuntimeError(BUSY)
            return self._execute(commands)
        finally:
            self._turn += turn

    def close(self) -> None:
        """Disconnects politely, if there still is a connection."""
        if os.getpid() != self._process:
            self.drop("it belongs to the process that made it")
        elif not self.closed:
            self._reactor.call_later(self._timeout, self._reactor.stop)  # however polite it is
            with suppress(OSError):
                self.execute(DISCONNECT)
            self._abandon("close was called")

    def drop(self, reason: str) -> bool:
        """Ends the connection at once; False if it is another process's, who shall keep it."""
        if os.getpid() == self._process:
            self._abandon(reason)
            return True
        self.closed = self.closed or reason
        self._link.forget()
        self._reactor.close()
        return False

    def connected(self) -> None:
        """The constructor may return."""
        self._answered = True
        self._reactor.stop()

    def replied(self, _: Command | None, reply: str) -> None:
        """One more reply. The call returns with the last one; DISCONNECT's, with the end."""
        self._replies.append(reply)
        if len(self._replies) == self._awaited:
            self._answered = True
            if not self._leaving:
                self._reactor.stop()

    def may_send(self) -> None:
        """Sends more."""
        self._send_more()

    def ended(self, error: Exception | None) -> None:
        """The connection is gone."""
        self._error = error
        self._reactor.stop()

    def _execute(self, commands: Sequence[Command]) -> list[str]:
        if self.closed:
            raise ConnectionError(f"this client is closed: {self.closed}")
        self._commands = iter(commands)
        self._replies = []
        self._awaited = len(commands)
        self._leaving = commands == DISCONNECT
        self._answered = False
        if commands:
            self._run()
        return self._replies

    def _send_more(self) -> None:
        for command in islice(self._commands, self._link.room):
            self._link.send(command)

    def _run(self) -> None:
        """Runs the reactor until there is a result.

        Whatever is raised, Ctrl-C included, leaves the conversation at no known point: the client
        is then closed.
        """
        try:
            self._send_more()
            self._link.flush()
            self._reactor.run()
            if self._error is not None:
                if not self._answered:
                    raise self._error
                self._abandon(str(self._error))  # what the next call is told
        except BaseException as error:
            self._abandon(str(error) or type(error).__name__)
            raise

    def _abandon(self, reason: str) -> None:
        self.closed = self.closed or reason
        self._link.abort(None)
        self._reactor.close()
