"""Conversations that are nearly right: seeded mutations of valid ones, and plain noise."""

import random
import select
import socket
from collections.abc import Iterator

from patience import patience
from wire import KEY, OTHER_KEY

WORDS = ["CONNECT a", "PUT k", "value", "", "GET k", "GET nothing", "DELETE k", "DISCONNECT"]
VOCABULARY = [*WORDS, "GET: ERROR", "v" * 265, "get k", "PUT", "HELLO", "\x1b[2J", "CONNECT  b"]


def lines(rng: random.Random) -> list[bytes]:
    """A valid conversation, some of its messages replaced by others that can be opened."""
    texts = [f"CONNECT {rng.randrange(10**9)}"]
    texts += rng.choices(WORDS[1:-1], k=rng.randrange(12))
    if rng.random() < 0.3:
        texts[rng.randrange(len(texts))] = rng.choice(VOCABULARY)
    key = OTHER_KEY if rng.random() < 0.05 else KEY
    return [KEY.line, *(key.seal(text.encode()) for text in texts[:1]), *map(seal, texts[1:])]


def seal(text: str) -> bytes:
    return KEY.seal(text.encode())


def mutated(rng: random.Random, conversation: list[bytes]) -> bytes:
    """One conversation's octets, damaged in up to three places."""
    for _ in range(rng.randrange(3)):
        at = rng.randrange(len(conversation))
        change = rng.randrange(4)
        if change == 0:
            conversation.insert(at, rng.choice(conversation))
        elif change == 1:
            del conversation[at]
        elif change == 2:
            conversation.insert(at, noise(rng) + b"\n")
        else:
            conversation[at] = conversation[at].swapcase()
        if not conversation:
            break
    octets = bytearray(b"".join(conversation))
    for _ in range(rng.choice([0, 0, 1, 3])):
        if octets:
            at = rng.randrange(len(octets))
            cut = slice(at, at + rng.choice([0, 1, 1, 64]))
            octets[cut] = noise(rng) if rng.random() < 0.5 else bytes([rng.randrange(256)])
    return bytes(octets)


def noise(rng: random.Random) -> bytes:
    """Octets of any kind, at times more than a line may have."""
    return rng.randbytes(rng.choice([0, 1, 5, 64, 510, 511, 600]))


def conversations(seed: int, messages: int) -> Iterator[bytes]:
    """As many conversations as make up so many lines."""
    rng = random.Random(seed)
    while messages > 0:
        octets = noise(rng) if rng.random() < 0.1 else mutated(rng, lines(rng))
        messages -= 1 + octets.count(b"\n")
        yield octets


def run(port: int, octets: bytes, rng: random.Random) -> None:
    """Says it all in pieces, then half-closes, resets or just closes; waits for the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=patience()) as sock:
        try:
            while octets:
                size = rng.choice([1, 7, 100, 1000, 100_000])
                sock.sendall(octets[:size])
                octets = octets[size:]
            if rng.random() < 0.8:
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass
            elif rng.random() < 0.5 and select.select([sock], [], [], 0)[0]:
                sock.recv(1)
        except (ConnectionResetError, BrokenPipeError):
            pass  # the server's good right, if it has been sent a megabyte of rubbish
