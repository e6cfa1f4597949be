"""What a Redis does with the commands that servers give it: a dict, a clock, and nothing else.

Sans-I/O. `tests/service/test_registry.py` holds it to a real one; the simulation and the pitfalls
use it where a real one cannot be slow, lossy or forgetful at the right moment.
"""

from collections.abc import Callable, Iterator

from kv.registry.resp import Act

ACTS = {act.value.encode(): act for act in Act}


def commands(buffer: bytearray) -> Iterator[list[bytes]]:
    """Takes the commands that are whole out of `buffer`."""
    while buffer and (end := buffer.find(b"\r\n")) >= 0:
        words, start = [], end + 2
        for _ in range(int(buffer[1:end])):
            end = buffer.find(b"\r\n", start)
            if end < 0:
                return
            size = int(buffer[start + 1 : end])
            if len(buffer) < end + 2 + size + 2:
                return
            words.append(bytes(buffer[end + 2 : end + 2 + size]))
            start = end + 2 + size + 2
        del buffer[:start]
        yield words


class Redis:
    """One registry; `clock` is in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.keys: dict[bytes, tuple[bytes, float]] = {}  # value, and when it is gone
        self.runs = 0
        self.full = False

    def restart(self, keys: dict[bytes, tuple[bytes, float]]) -> None:
        """Begins another run, with these data."""
        self.runs += 1
        self.keys = dict(keys)

    def execute(self, words: list[bytes]) -> bytes:
        """The line that a command is answered with."""
        if words[0] != b"EVAL":
            return b"+OK\r\n"
        count = int(words[2])
        keys, tokens = words[3 : 3 + count], words[4 + count :]
        return self._run(ACTS[words[1]], keys, tokens, int(words[3 + count]) / 1000)

    def _run(self, act: Act, keys: list[bytes], tokens: list[bytes], lease: float) -> bytes:
        run, young, said = b"%d" % self.runs, False, b""
        if act is not Act.RELEASE:
            if self.get(b"kv:run") != run:
                if self.full:
                    return b"-OOM command not allowed\r\n"
                self.set(b"kv:young", b"1", lease)
                self.set(b"kv:run", run)
            young = self.get(b"kv:young") is not None
        for key, token in zip(keys, tokens, strict=True):
            holder = self.get(key)
            if act is Act.RELEASE:
                verdict = b"1"
                if holder == token:
                    del self.keys[key]
            elif act is Act.CLAIM:
                verdict = b"y" if young else b"0" if holder is not None else b"1"
            else:
                mine = holder == token or (young and holder is None)
                verdict = b"1" if mine else b"0"
            if act is not Act.RELEASE and verdict == b"1":
                if self.full and holder is None:
                    return b"-OOM command not allowed\r\n"
                self.set(key, token, lease)
            said += verdict
        return b"+" + said + b"\r\n"

    def get(self, key: bytes) -> bytes | None:
        """What is there, if it is still there."""
        value, until = self.keys.get(key, (None, 0.0))
        return value if until > self.clock() else None

    def set(self, key: bytes, value: bytes, seconds: float = float("inf")) -> None:
        """Puts something there for so long."""
        self.keys[key] = value, self.clock() + seconds
