"""The clients: what each has sent, what it has heard, and the scripts they follow.

A script is a generator. It sends, and yields how long it waits: a number of seconds, or None for
"until something changes" (octets were heard, the server ended its side, the connection was
reset). Honest scripts keep to the protocol and read what they are sent; all the others are what a
server meets on a network. On top of its script, any client may be struck at any moment by a reset,
a vanishing or an early close (`World` rolls for that).

A client checks by itself that every octet it hears is the one the model foretold.
"""

from collections.abc import Callable, Generator
from random import Random

from .kernel import Failure, Kernel
from .model import KEY_LINE, Story, line_of
from .network import Peer
from .tls import ClientTls

Script = Generator[float | None, None, None]

KEYS = ("a", "colour", " two spaces ", "k" * 60, "k" * 258)
VALUES = ("", "blue", "v" * 53, "v" * 54, "v" * 265, "DISCONNECT", "GET: ERROR", "PUT a")
SHARED_IDS = ("alice", "bob")


class Client(Peer):
    """A peer with a script and a memory."""

    def __init__(self, kernel: Kernel, number: int, script: Callable[["Client"], Script]) -> None:
        super().__init__(kernel, number)
        self.kind = script.__name__
        self.name = f"{self.kind} {number}"
        self.story = Story()
        self.lines: list[bytes] = []  # complete ones that it sent, without LF
        self.unfinished = b""
        self.handled = 0  # how many of `lines` the server has handled,
        self.handled_octets = 0  # and how many octets they were, LFs included
        self.expected = bytearray()  # all that the server is to say, so far
        self.replies: list[str] = []  # the same, as texts
        self.heard_octets = 0
        self.heard_lines = 0
        self.tls: ClientTls | None = None
        self.plain = False  # it speaks plainly, and the server does not
        self.arrived = False
        self._ends_soon = False  # it half-closes once hands are shaken
        self.done = False  # the script has come to its end
        self._waiting = False
        self._script = script(self)

    def go_on(self) -> None:
        """Runs the script up to its next wait."""
        self._waiting = False
        if self.gone or self.done:
            self.done = True
            return
        try:
            pause = next(self._script)
        except StopIteration:
            self.done = True
            self.close()
            return
        if pause is None:
            self._waiting = True
        else:
            self.kernel.at(pause, self.go_on)

    def changed(self) -> None:
        """Wakes the script, if it waits."""
        if self._waiting:
            self._waiting = False
            self.kernel.at(0, self.go_on)

    def arrive(self) -> None:
        """Begins: it is connected."""
        self.arrived = True
        if self.tls is not None:
            super().write(self.tls.hello())
        self.go_on()

    def write(self, octets: bytes) -> None:
        """Sends, sooner or later; sealed, if it speaks TLS."""
        super().write(octets if self.tls is None else self.tls.seal(octets))

    def half_close(self) -> None:
        """Ends the sending side; with TLS, when hands are shaken, since nobody can before."""
        self._ends_soon = self.tls is not None and not self.tls.shaken
        if not self._ends_soon:
            self._take_leave()
            super().half_close()

    def close(self) -> None:
        """Leaves. With TLS, it mostly says so."""
        if not self.inbox and not self.gone and self.kernel.chance(0.8 if self.tls else 0):
            self._take_leave()
        super().close()

    def _take_leave(self) -> None:
        if self.tls is not None:
            super().write(self.tls.close_notify())

    def heard(self, data: bytes) -> None:
        """Opens it, if it is sealed. Somebody who speaks plainly to TLS may hear an alert."""
        if self.tls is not None:
            data, answer = self.tls.hear(data)
            if answer:
                super().write(answer)
            if self._ends_soon and self.tls.shaken:
                self.half_close()
        if data and not self.plain:
            self.understood(data)

    def understood(self, data: bytes) -> None:
        """Compares with what the model foretold; a reply that nobody owes is a failure, too."""
        start, end = self.heard_octets, self.heard_octets + len(data)
        if self.expected[start:end] != data:
            raise Failure(f"{self.name} hears {data!r}, not {bytes(self.expected[start:end])!r}")
        self.heard_octets = end
        self.heard_lines += data.count(b"\n")
        if self.kernel.trace is not None:
            self.kernel.say(self.name, f"hears {len(data)} octets")
        self.changed()

    def send(self, octets: bytes) -> None:
        """Sends octets as they are, and notes the lines among them."""
        if self.gone or self.was_reset:
            return
        *lines, self.unfinished = (self.unfinished + octets).split(b"\n")
        self.lines += lines
        self.write(octets)

    def say(self, *texts: str) -> None:
        """Sends texts, each sealed in a line, or the key line."""
        for text in texts:
            self.send(line_of(text) + b"\n")

    # What scripts ask

    @property
    def over(self) -> bool:
        """Nothing more can come: the server ended its side or reset the connection."""
        return self.ended or self.was_reset

    @property
    def rng(self) -> Random:
        """This world's random numbers."""
        return self.kernel.rng

    def refused(self, text: str) -> bool:
        """Whether the latest reply heard was `text`."""
        return self.heard_lines > 0 and self.replies[self.heard_lines - 1] == text


def connect(c: Client, client_id: str) -> Script:
    """Key exchange and CONNECT, waiting for both replies."""
    c.say(KEY_LINE)
    while c.heard_lines < 1 and not c.over:
        yield None
    c.say(f"CONNECT {client_id}")
    while c.heard_lines < 2 and not c.over:
        yield None


def command(rng: Random) -> tuple[str, ...]:
    """The texts of one command."""
    kind, key = rng.randrange(8), rng.choice(KEYS)
    if kind < 3:
        return f"PUT {key}", rng.choice(VALUES)
    if kind < 6:
        return (f"GET {key}",)
    return (f"DELETE {key[:258]}",) if kind == 6 else ("CONNECT again",)


def until_over(c: Client) -> Script:
    """Reads to the end."""
    while not c.over:
        yield None


def honest(c: Client) -> Script:
    """Keeps to the protocol, pipelines to some depth, and leaves in one of the polite ways."""
    rng = c.rng
    shared = rng.random() < 0.2
    client_id = rng.choice(SHARED_IDS) if shared else f"client-{c.number}"
    yield from connect(c, client_id)
    while c.refused("CONNECT: ERROR") and not c.over:
        yield rng.random() * 2
        heard = c.heard_lines
        c.say(f"CONNECT {rng.choice((client_id, f'client-{c.number}'))}")
        while c.heard_lines == heard and not c.over:
            yield None
    depth, pauses = rng.choice((1, 2, 10, 100)), rng.random() < 0.3
    owed = c.heard_lines
    for _ in range(rng.choice((3, 15, 60))):
        owed += 1
        c.say(*command(rng))
        while owed - c.heard_lines >= depth and not c.over:
            yield None
        if pauses:
            yield rng.random() * 0.3
    if rng.random() < 0.5:
        c.say("DISCONNECT")
    else:
        c.half_close()
    yield from until_over(c)


def blind(c: Client) -> Script:
    """Sends everything at once, waits for nothing: the deepest pipeline."""
    c.say(KEY_LINE, f"CONNECT client-{c.number}", "PUT a", "v" * 265)
    for _ in range(c.rng.choice((5, 40, 120))):
        c.say(*c.rng.choice((("GET a",), command(c.rng))))
    c.half_close()
    yield from until_over(c)


def sleeper(c: Client) -> Script:
    """Pipelines GETs of the longest value and does not read, for a while or for ever."""
    yield from connect(c, f"client-{c.number}")
    c.say("PUT a", "v" * 265)
    c.reading = False
    for _ in range(c.rng.choice((10, 60))):
        c.say("GET a")
    c.say("DISCONNECT")
    if c.rng.random() < 0.3:
        c.disturbed = "it never reads"
        yield c.rng.random() * 100
    else:
        yield c.rng.random() * c.rng.choice((2, 20))
        c.read_on()
        yield from until_over(c)


def talkative(c: Client) -> Script:
    """Goes on after DISCONNECT, for longer than anybody would listen."""
    yield from connect(c, f"client-{c.number}")
    c.say("GET a", "DISCONNECT", "GET a", "CONNECT bob", "PUT b")
    for _ in range(c.rng.choice((2, 30))):
        c.send(c.rng.randbytes(300))
        yield c.rng.random() * 0.1
    yield from until_over(c)


def wrong(c: Client) -> Script:
    """Is good for a while, then commits one violation."""
    rng = c.rng
    early = rng.random() < 0.3
    if not early:
        yield from connect(c, f"client-{c.number}")
        for _ in range(rng.randrange(5)):
            c.say(*command(rng))
    elif rng.random() < 0.7:
        c.say(KEY_LINE)
    violation = rng.choice((KEY_LINE, "get a", "PUT ", "DISCONNECT x", "", "GET", "\x80", "<line>"))
    if violation == "<line>":
        c.send(bytes(rng.choices(range(32, 127), k=rng.choice((510, 511, 512, 700, 3000)))))
    elif violation == "\x80":
        c.send(rng.randbytes(rng.choice((1, 88, 400))) + b"\n")
    else:
        c.say(violation, violation)  # one of them can be a value
    if rng.random() < 0.5:
        c.say("GET a", "DISCONNECT")
    yield from until_over(c)


def flood(c: Client) -> Script:
    """Noise, as fast as it goes."""
    for _ in range(c.rng.choice((3, 30))):
        c.send(c.rng.randbytes(c.rng.choice((20, 500))))
        yield c.rng.random() * c.rng.choice((0, 0.1))
    yield from until_over(c)


def drip(c: Client) -> Script:
    """One octet a second, of an impeccable handshake."""
    for octet in line_of(KEY_LINE) + b"\n" + line_of(f"CONNECT client-{c.number}") + b"\n":
        c.send(bytes([octet]))
        yield 1.0
        if c.over:
            return


def mute(c: Client) -> Script:
    """Says nothing, or half a handshake, and waits for what comes of it."""
    c.send((line_of(KEY_LINE) + b"\n")[: c.rng.choice((0, 0, 50, 200))])
    yield from until_over(c)


def idler(c: Client) -> Script:
    """Has a session and forgets about it."""
    yield from connect(c, f"client-{c.number}")
    c.say(*command(c.rng))
    yield from until_over(c)


def hasty(c: Client) -> Script:
    """Ends its side in the middle of something: of a line, of a PUT, of the handshake."""
    rng = c.rng
    c.say(KEY_LINE)
    if rng.random() < 0.7:
        c.say(f"CONNECT client-{c.number}", "PUT a", "blue", "GET a")
        c.say(*rng.choice(((), ("PUT b",), ("DELETE a",))))
    c.send(line_of("GET a")[: rng.choice((0, 30))])
    c.half_close()
    yield from until_over(c)


#: What may turn up, honest ones more often than others.
SCRIPTS = (
    *(honest,) * 7,
    *(blind, sleeper, talkative, wrong, wrong, flood, drip, mute, idler, hasty),
)
