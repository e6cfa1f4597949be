"""A client on asyncio: the sans-I/O half is the library's, the rest is here.

python -m tests.examples.asyncio_client PORT
"""

import asyncio
import sys

from kv import PrivateKey
from kv.protocol.conversation import ClientConversation
from kv.protocol.messages import Command, Wire


class Client:
    """A connection; one task at a time may ask."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.wire = Wire()
        self._reader, self._writer = reader, writer
        self._conversation = ClientConversation(self.wire, PrivateKey.generate())

    async def connect(self, client_id: str) -> None:
        """Exchanges keys and begins the session."""
        self._writer.write(self._conversation.key.public.to_line() + b"\n")
        self._conversation.read((await self._reader.readline()).rstrip(b"\n"))
        if await self.ask(Command.connect(self.wire, client_id)) != "CONNECT: OK":
            raise ConnectionRefusedError(f"{client_id!r} is in use")

    async def ask(self, command: Command) -> str:
        """The reply to a command."""
        self._writer.writelines(line + b"\n" for line in self._conversation.lines(command))
        await self._writer.drain()
        line = await asyncio.wait_for(self._reader.readline(), timeout=10)
        answered = self._conversation.receive(line.rstrip(b"\n"))
        return answered[1] if answered else ""


async def main(port: int) -> None:
    """Two clients at the same time."""

    async def use(name: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        client = Client(reader, writer)
        await client.connect(f"asyncio {name}")
        await client.ask(Command.put(client.wire, "name", name))
        print(await client.ask(Command.get(client.wire, "name")))
        print(await client.ask(Command.disconnect()))
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(use("alice"), use("bob"))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
