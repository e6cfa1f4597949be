"""The `Client` library: what `link` does on a reactor, for programs that call and wait.

A call blocks its caller and nobody else. `caller` runs the reactor meanwhile.
"""

import warnings
from typing import TYPE_CHECKING, Literal, TypeVar, overload

from kv.caller import Caller
from kv.errors import PutRefused
from kv.net.address import resolve
from kv.owner import Target
from kv.protocol.cipher import PrivateKey
from kv.protocol.messages import FIXED_REPLIES, Command, Message, Reply, Wire

if TYPE_CHECKING:
    import os
    import ssl


T = TypeVar("T")


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

    The constructor connects. The session and its data live until `close`, which `with` calls. If
    a client is thrown away unclosed, it gives a `ResourceWarning` and frees its id at once.

    `timeout`, in seconds, bounds the constructor and `close`. In between, it bounds each wait for
    the server: to reply, or to take what the client sends. Looking up a host name is not counted.
    Making a key takes about 35 ms at 512 bits. Programs that connect often can make one with
    `PrivateKey.generate()` and pass it as `key`. `key_bits` and `receive_buffer_size` are in bits,
    and must be those of the server.

    With `tls`, the client speaks TLS 1.3. `tls` is a PEM file with the authorities to trust, or
    True for those of the system. It may also be an `ssl.SSLContext`, which can have a certificate
    for the client. The server's certificate must be for `host`, or for `tls_name` if that is given.

    Any thread may use a client, but only one call runs at a time. If a second thread, a signal
    handler or a callback calls meanwhile, that call raises `RuntimeError`, and the first one goes
    on. Every call in a child process after `fork` raises it, too: the connection stays the
    parent's.

    Every method may also raise `TextError`, a `ValueError`, for a text that the protocol cannot
    carry. Nothing was sent then. It may raise `TimeoutError`, or `ConnectionError` for a lost
    connection (`Violation` if the server broke the protocol). After these the client is closed, and
    nobody knows whether the server did the command.
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
        tls: "ssl.SSLContext | str | os.PathLike[str] | Literal[True] | None" = None,
        tls_name: str | None = None,
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
        layer = None
        if tls is not None:
            from kv.net.credentials import client_tls  # noqa: PLC0415 (it takes 10 ms)

            layer = client_tls(tls, tls_name or host)
        addresses = resolve(host, port)
        key = key or PrivateKey.generate(key_bits)
        self._caller = Caller(Target(addresses, self._wire, key, client_id, timeout, layer))

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
        """Collects commands, to send them together without waiting for each reply."""
        return Pipeline(self)

    def close(self) -> None:
        """Disconnects, and the session's data is gone. A connection lost by now is no error."""
        self._caller.close()

    @property
    def closed(self) -> bool:
        """Whether the client can do nothing more: after `close`, or after a lost connection.

        If the connection is lost between two calls, the second call notices it.
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
        """As `delete`: a missing key is no error."""
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
    """Commands that are sent together. `Client.pipeline` makes one."""

    def __init__(self, client: Client) -> None:
        self._client = client  # so a client lives as long as its last pipeline
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
        """Sends the commands and returns their results in order. The pipeline is then empty.

        After a `RuntimeError` it is not: nothing was sent, so `execute` can be called again.
        """
        commands, self._commands = self._commands, []
        try:
            replies = self._client._caller.execute(commands)  # noqa: SLF001
        except RuntimeError:
            self._commands = commands + self._commands
            raise
        return [result(command, reply) for command, reply in zip(commands, replies, strict=True)]

    def _add(self, command: Command) -> "Pipeline":
        self._commands.append(command)
        return self


def result(command: Command, reply: str) -> str | bool | None:
    """What a reply means to the caller of a pipeline."""
    if command.message is Message.GET:
        return None if reply == Reply.GET_ERROR.value else reply
    return FIXED_REPLIES[reply] in (Reply.PUT_OK, Reply.DELETE_OK)
