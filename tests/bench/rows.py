"""What is measured: the rows of the table, and how one is made.

A row is measured in several rounds, each with every server, and with the bare arithmetic before and
after each. A server is compared with the others in the same round, and the table shows the median
over the rounds. A machine that slows down for a while slows all alike.

*Cold* is a new line each time: no connection sends a line twice in the whole run. *Hot* is a few
lines again and again. All lines and replies are of one block.
"""

import itertools
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import rsa

from kv.protocol.cipher import EXPONENT, power, private_operation

from .lines import WIDTH, WIRE, Sealer
from .load import Connection, Figures, Script, Wrong, connect, converse, drive
from .servers import Process

PIPELINED = 16


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    rounds: int = 5
    seconds: float = 0.2  # that one server is measured in one round
    connections: int = 50
    cold: int = 20_000  # lines
    hot: int = 200
    puts: int = 4_000
    unseen: int = 40  # values per connection and round
    calls: int = 500  # new commands of one caller and round
    sessions: int = 10_000  # of the crowd, the busy ones among them
    tls_sessions: int = 1_000  # of those that keep still
    idle: float = 2.0  # seconds for which the crowd is left in peace
    keys: tuple[int, ...] = (512, 1024, 2048)  # bits
    services: tuple[int, ...] = (1, 2, 4)  # servers behind one balancer
    ids: int = 100_000  # in the registry


FULL = Scale()
QUICK = Scale(
    rounds=3,
    seconds=0.06,
    cold=4_000,
    hot=20,
    puts=1_000,
    unseen=10,
    calls=100,
    sessions=1_000,
    tls_sessions=200,
    idle=0.5,
    keys=(512, 1024),
    services=(1, 2),
    ids=10_000,
)


class Prepared:
    """The lines, sealed before anything is measured. A `bytes` has them end to end."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self.sealer = Sealer()
        seal = self.sealer.seal
        ids = max(scale.sessions, 5 * scale.connections)
        self.connects = [seal(f"CONNECT client {i}") for i in range(ids)]
        self.disconnect = seal("DISCONNECT")
        self.cold = b"".join(seal(f"GET cold {i}") for i in range(scale.cold))
        self.puts = b"".join(seal(f"PUT {i}") + seal(f"value {i}") for i in range(scale.puts))
        self.hot_texts = [f"the value of hot {i}" for i in range(scale.hot)]
        self.hot_gets = b"".join(seal(f"GET hot {i}") for i in range(scale.hot))
        self.hot_puts = b"".join(
            seal(f"PUT hot {i}") + seal(text) for i, text in enumerate(self.hot_texts)
        )
        self.unseen_gets = b"".join(seal(f"GET unseen {i}") for i in range(scale.unseen))
        keys = [seal(f"PUT unseen {i}") for i in range(scale.unseen)]
        # For each round and connection: the texts, and the PUTs that store them.
        self.unseen = [
            [
                (texts, b"".join(key + seal(text) for key, text in zip(keys, texts, strict=True)))
                for texts in (
                    [f"{round_} {connection} {i}" for i in range(scale.unseen)]
                    for connection in range(scale.connections)
                )
            ]
            for round_ in range(scale.rounds)
        ]


@dataclass
class Side:
    """A server under measurement, and the connections to it."""

    server: Process
    connections: list[Connection]
    has_hot: bool = False  # the hot values are stored, and their lines remembered

    @classmethod
    def of(
        cls, server: Process, prepared: Prepared, kind: Callable[[int], Connection] = Connection
    ) -> "Side":
        """With as many sessions as are busy in every row."""
        ids = prepared.connects[: prepared.scale.connections]
        return cls(server, connect(server.port, prepared.sealer, ids, kind))

    def close(self) -> None:
        """Closes the connections; the server is somebody else's."""
        for connection in self.connections:
            connection.sock.close()


# --- The rows -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One row. `begin` and `prepare` are not measured; `prepare` comes before each `measure`."""

    title: str
    measure: Callable[[Side, int], Figures]  # the int is the round
    begin: Callable[[Sequence[Side]], None] = lambda *_: None
    prepare: Callable[[Side, int], None] = lambda *_: None
    # The arithmetic that one reply cannot do without where nothing is remembered, if any is.
    opens: int = 1
    seals: int = 0
    unit: str = "replies"


def rows(prepared: Prepared) -> list[Row]:
    """All rows but the crowd's."""
    scale = prepared.scale

    def steady(side: Side, number: int) -> Figures:
        return drive(side.connections, scale.seconds)

    def cold(batch: int, offset: int) -> Callable[[Sequence[Side]], None]:
        def begin(sides: Sequence[Side]) -> None:
            script = Script(prepared.cold, ["GET: ERROR"], batch)
            apart = scale.cold // scale.connections
            for side in sides:
                for i, connection in enumerate(side.connections):
                    place = (i * apart + offset) % scale.cold * WIDTH
                    connection.begin(script, place)

        return begin

    def put(sides: Sequence[Side]) -> None:
        script = Script(prepared.puts, ["PUT: OK"], PIPELINED, size=2 * WIDTH)
        for side in sides:
            for connection in side.connections:
                connection.begin(script)

    def store_unseen(side: Side, number: int) -> None:
        for connection, (_, puts) in zip(side.connections, prepared.unseen[number], strict=True):
            connection.begin(Script(puts, ["PUT: OK"], size=2 * WIDTH))
        drive(side.connections, batches=scale.unseen)
        for connection, (texts, _) in zip(side.connections, prepared.unseen[number], strict=True):
            connection.begin(Script(prepared.unseen_gets, texts))

    def unseen(side: Side, number: int) -> Figures:
        return drive(side.connections, batches=scale.unseen)

    # The standing connections' ids are in use.
    ids = itertools.cycle(prepared.connects[scale.connections :])

    def conversations(side: Side, number: int) -> Figures:
        lines = prepared.sealer.key_line, ids, prepared.disconnect
        return converse(side.server.port, *lines, scale.connections, scale.seconds)

    half = scale.cold // 2  # so that the second cold row does not repeat the first one's lines
    return [
        hot(prepared, 1),
        hot(prepared, PIPELINED),
        Row("GET cold, 1 in flight", steady, cold(1, 0)),
        Row(f"GET cold, {PIPELINED} in flight", steady, cold(PIPELINED, half)),
        Row(f"PUT cold, {PIPELINED} in flight", steady, put, opens=2),
        Row("GET of values never asked for before", unseen, prepare=store_unseen, opens=0, seals=1),
        Row("from connect to disconnect", conversations, opens=2, unit="conversations"),
    ]


def hot(prepared: Prepared, batch: int, title: str = "") -> Row:
    """The row for so many hot GETs in flight."""
    return Row(
        f"{title}GET hot, {batch} in flight",
        lambda side, _: drive(side.connections, prepared.scale.seconds),
        lambda sides: begin_hot(prepared, sides, batch),
    )


def begin_hot(prepared: Prepared, sides: Sequence[Side], batch: int) -> None:
    """Leaves the connections ready to ask for the hot values, so many at a time.

    They are stored, and asked for until they are all remembered, on all servers at the same time.
    Asked for twice: the first time may fill a session's memory halfway through, and then it forgets
    what it has just learnt.
    """

    def begin(connections: list[Connection], script: Script) -> None:
        for connection in connections:
            connection.begin(script)

    new = [connection for side in sides if not side.has_hot for connection in side.connections]
    if new:
        begin(new, Script(prepared.hot_puts, ["PUT: OK"], size=2 * WIDTH))
        drive(new, batches=prepared.scale.hot)
        begin(new, Script(prepared.hot_gets, prepared.hot_texts))
        drive(new, batches=2 * prepared.scale.hot)
    for side in sides:
        side.has_hot = True
        begin(side.connections, Script(prepared.hot_gets, prepared.hot_texts, batch))


# --- Measuring ------------------------------------------------------------------------------


@dataclass
class Sample:
    """One server in one round."""

    rate: float  # by the clock
    cpu_rate: float  # per second of the server's processor time
    busy: float  # the share of the time in which the server had a processor
    p50: float  # seconds, as is p99
    p99: float
    # Right before and after it. A machine that slows down for a while slows these alike.
    opens: float  # public-key operations a second, bare
    seals: float  # private-key operations a second


@dataclass
class Result:
    """A row as measured: for each server its samples."""

    row: Row
    samples: dict[str, list[Sample]]

    def median(self, server: str, figure: str) -> float:
        """Of one figure of one server over the rounds."""
        return float(statistics.median(getattr(each, figure) for each in self.samples[server]))

    def ratio(self, one: str, other: str, figure: str) -> float:
        """How many times the other's figure the one's is, in the same round."""
        pairs = zip(self.samples[one], self.samples[other], strict=True)
        return float(statistics.median(getattr(a, figure) / getattr(b, figure) for a, b in pairs))

    def share(self, server: str) -> float | None:
        """The rate per CPU second as a share of what the arithmetic alone would allow."""
        row = self.row
        if not row.opens + row.seals:
            return None
        return statistics.median(
            sample.cpu_rate * (row.opens / sample.opens + row.seals / sample.seals)
            for sample in self.samples[server]
        )


def measure(row: Row, sides: dict[str, Side], scale: Scale, progress: Callable[[], None]) -> Result:
    """Measures one row."""
    result = Result(row, {name: [] for name in sides})
    row.begin(list(sides.values()))
    names = list(sides)
    for number in range(scale.rounds):
        for name in names:
            result.samples[name].append(sample(row, sides[name], number, scale.seconds / 10))
            progress()
        names.append(names.pop(0))  # nobody always has the turn after the same other
    return result


def sample(row: Row, side: Side, number: int, seconds: float) -> Sample:
    """One server's turn. Each kind of bare arithmetic gets `seconds` before it, and after."""
    row.prepare(side, number)
    before = arithmetic(seconds)
    cpu = side.server.cpu()
    try:
        figures = row.measure(side, number)
    except (Wrong, OSError) as error:
        raise Wrong(f"{side.server.name}: {error}") from error
    cpu = side.server.cpu() - cpu
    opens, seals = map(statistics.mean, zip(before, arithmetic(seconds), strict=True))
    latencies = sorted(figures.latencies)
    return Sample(
        rate=figures.count / figures.seconds,
        cpu_rate=figures.count / cpu,
        busy=cpu / figures.seconds,
        p50=latencies[len(latencies) // 2],
        p99=latencies[len(latencies) * 99 // 100],
        opens=opens,
        seals=seals,
    )


_KEY = rsa.newkeys(WIRE.key_bits)[1]
#: A processor learns the branches that one number takes by heart, and `pow` is then 10 % faster
#: than it can ever be for a server.
_BLOCKS = [random.randrange(_KEY.n) for _ in range(1000)]


def arithmetic(seconds: float) -> tuple[float, float]:
    """Bare public-key and private-key operations per second of processor time."""
    return (
        _per_second(lambda block: power(block, EXPONENT, _KEY.n), seconds),
        _per_second(private_operation(_KEY), seconds),
    )


def _per_second(operation: Callable[[int], object], seconds: float) -> float:
    count = 0
    blocks = itertools.cycle(_BLOCKS)
    start = now = time.process_time()
    while now < start + seconds:
        for block in itertools.islice(blocks, 10):
            operation(block)
        count += 10
        now = time.process_time()
    return count / (now - start)
