"""Damaged key lines and messages give `Violation`, or are what they seem to be; nothing else.

In this process, so a million of them take a minute: `make soak` does that.
"""

import random
import re
from binascii import a2b_base64, b2a_base64
from collections import Counter

from fuzz import VOCABULARY, noise, seal
from wire import KEY, OTHER_KEY

from kv.errors import Violation
from kv.protocol.cipher import PrivateKey, PublicKey
from kv.protocol.conversation import ClientConversation, ServerConversation, Service
from kv.protocol.messages import FIXED_REPLIES, Command, State, Wire
from kv.protocol.store import Store

OURS = PrivateKey.generate()
KEYS = [OURS.public.to_line(), KEY.line[:-1], OTHER_KEY.line[:-1]]
COMMANDS = [
    Command.get(Wire(), "k"),
    Command.put(Wire(), "k", "v"),
    Command.delete(Wire(), "k"),
    Command.disconnect(),
]


def test_twenty_thousand_damaged_lines() -> None:
    outcomes = refuse(1, 20_000)
    assert sum(outcomes.values()) == 20_000
    assert not WANTED - set(outcomes), outcomes


WANTED = {
    *("a good line", "the key is this server's own", "the server's key is this client's own"),
    *("the line is not base…", "the line is not canonical base…", "the modulus is even"),
    *("the modulus has fewer than … bits", "the key's DER does not end with the exponent …"),
    *("a block is not below the modulus", "… sealed octets are not whole blocks of …"),
    *("a block's padding is wrong, or another key sealed it", "the server answered "),
    *("the last block is empty", "a block before the last is not full", "the text is not ASCII"),
    *("the text contains a line feed", "a text that is not a command", "the key is not one of "),
}


def refuse(seed: int, count: int) -> Counter[str]:
    """How often each thing came of so many lines, most of them damaged.

    What is taken in spite of the damage must be the one line of what it carries.
    """
    rng = random.Random(seed)
    service = Service(Wire(), OURS, Store())
    messages = [seal(text)[:-1] for text in [*VOCABULARY, *FIXED_REPLIES, "w" * 106]]
    messages += [forged(rng) for _ in range(200)]
    peer = PublicKey.from_line(KEY.line[:-1], 512)
    outcomes: Counter[str] = Counter()
    server = begun(service, 0)
    for number in range(count):
        is_key = number % 4 < 2
        line = rng.choice(KEYS if is_key else messages)
        if rng.random() < 0.9:
            line = damaged(rng, line)
        client = ClientConversation(Wire(), OURS)
        try:
            if number % 4 == 0:
                ServerConversation(service).receive(line)
            elif number % 4 == 1:
                client.read(line)
            elif number % 4 == 2:
                server.receive(line)
            else:
                client.peer = peer
                client.lines(rng.choice(COMMANDS))
                client.receive(line)
        except Violation as violation:
            text = re.sub(r"\d+", "…", str(violation))
            outcomes[next(filter(text.startswith, WANTED), text)] += 1
        else:
            outcomes["a good line"] += 1
            if is_key:
                assert PublicKey.from_line(line, 512).to_line() == line
            else:
                assert KEY.seal(peer.open(line))[:-1] == line
        if server.state is State.CLOSED:
            server = begun(service, number)
    return outcomes


def begun(service: Service, number: int) -> ServerConversation:
    """A conversation that has a session, and half of them the key of a PUT."""
    conversation = ServerConversation(service)
    conversation.receive(KEY.line[:-1])
    conversation.receive(seal("CONNECT alice")[:-1])
    if number % 8 > 3:
        conversation.receive(seal("PUT k")[:-1])
    return conversation


def damaged(rng: random.Random, line: bytes) -> bytes:
    """A line that is nearly right: its characters, or the octets that they stand for, are not."""
    change, at = rng.randrange(9), rng.randrange(len(line))
    if change == 0:
        return line[:at] + bytes([rng.randrange(256)]) + line[at + 1 :]
    if change == 1:
        return line[:at] + noise(rng) + line[at + rng.choice([0, 1, 4, 64]) :]
    if change == 2:
        return line[:at] + line[at + rng.choice([1, 2, 4, 88]) :]
    if change == 3:
        return line[:at] + line
    octets = bytearray(a2b_base64(line))
    size = len(octets)
    at = rng.choice([rng.randrange(12), rng.randrange(size), size - 1 - rng.randrange(6)])
    if change == 4:
        octets[at] ^= 1 << rng.randrange(8)
    elif change == 5:
        octets[at : at + 1] = rng.randbytes(rng.randrange(4))
    elif change == 6:
        octets[at:] = octets[:at]
    elif change == 7:  # a modulus's first and last octet stand here, and a block's first
        octets[rng.choice([0, 5, -6])] = rng.choice([0x00, 0xFF])
    else:
        octets += octets[: rng.choice([1, 63, 64, 65])]
    return b2a_base64(octets, newline=False)


def forged(rng: random.Random) -> bytes:
    """Blocks that the key's owner has sealed, and that no honest program would seal."""
    blocks = []
    for _ in range(rng.choice([1, 2])):
        block = bytearray(KEY.block(bytes(rng.choices(b"PUT k", k=rng.choice([0, 4, 53])))))
        if rng.random() < 0.6:
            block[rng.randrange(64)] = rng.choice([0, 0x0A, 0x41, 0xFF])
        blocks.append(KEY.private(bytes(block)))
    return b2a_base64(b"".join(blocks), newline=False)
