"""The two directions of a connection: their states, what moves them, and what follows from them.

Everything that decides about this is here, and is data. The diagrams in the course are drawn from
the two tables of transitions. A connection is the pair of its directions, and nobody has to list
the pairs, as in RFC 9000, section 3. An event without a transition cannot happen, and raises.
"""

from enum import Enum, Flag, auto

from kv.net.reactor import READ, WRITE


class Incoming(Enum):
    """What happens to the octets that the peer sends."""

    __hash__ = object.__hash__  # that of `Enum` is in Python, and slow

    OPEN = "lines are handed over"
    DRAINING = "lines that have arrived are handed over"
    DISCARDING = "octets are read and thrown away"
    ENDED = "nothing more can come"


class Outgoing(Enum):
    """What happens to the octets that the owner writes."""

    __hash__ = object.__hash__  # that of `Enum` is in Python, and slow

    OPEN = "octets are sent"
    FINISHING = "what is unsent is sent, then FIN"
    SHUT = "FIN is sent"
    BROKEN = "nothing can be sent: what is unsent is void"


class Hold(Flag):
    """Why the stream hands no lines over now. The lines wait, and the stream reads nothing."""

    PEER = auto()  # the peer does not take its replies (8)
    TURN = auto()  # other streams are first (22)
    OWNER = auto()  # the owner waits for an answer from elsewhere


#: The same as plain numbers: `|` and `&` of a `Flag` are in Python, and take half a microsecond.
PEER, TURN, OWNER = (hold.value for hold in Hold)


class Event(Enum):
    """What happens to a connection."""

    __hash__ = object.__hash__  # that of `Enum` is in Python, and slow

    # actions of the owner
    WRITE = "write"
    FINISH = "finish"
    CLOSE = "close"
    HALF_CLOSE = "half_close"
    ABORT = "abort"
    # their consequences
    EMPTY = "nothing more has arrived"
    SENT = "all is sent"
    # events of the network
    FIN = "FIN is received"
    RESET = "recv fails"
    SEND_FAILED = "send fails"


INCOMING: dict[Incoming, dict[Event, Incoming]] = {
    Incoming.OPEN: {
        Event.FINISH: Incoming.DRAINING,
        Event.SEND_FAILED: Incoming.DRAINING,  # lines that came before are read first (36)
        Event.CLOSE: Incoming.DISCARDING,
        Event.FIN: Incoming.ENDED,
        Event.RESET: Incoming.ENDED,
        Event.ABORT: Incoming.ENDED,
    },
    Incoming.DRAINING: {
        Event.FINISH: Incoming.DRAINING,
        Event.SEND_FAILED: Incoming.DRAINING,
        Event.EMPTY: Incoming.DISCARDING,
        Event.CLOSE: Incoming.DISCARDING,
        Event.FIN: Incoming.ENDED,
        Event.RESET: Incoming.ENDED,
        Event.ABORT: Incoming.ENDED,
    },
    Incoming.DISCARDING: {
        Event.FINISH: Incoming.DISCARDING,
        Event.SEND_FAILED: Incoming.DISCARDING,
        Event.CLOSE: Incoming.DISCARDING,
        Event.FIN: Incoming.ENDED,
        Event.RESET: Incoming.ENDED,
        Event.ABORT: Incoming.ENDED,
    },
    Incoming.ENDED: {
        Event.FINISH: Incoming.ENDED,
        Event.SEND_FAILED: Incoming.ENDED,
        Event.CLOSE: Incoming.ENDED,
        Event.ABORT: Incoming.ENDED,
    },
}

OUTGOING: dict[Outgoing, dict[Event, Outgoing]] = {
    Outgoing.OPEN: {
        Event.WRITE: Outgoing.OPEN,
        Event.CLOSE: Outgoing.FINISHING,
        Event.HALF_CLOSE: Outgoing.FINISHING,
        Event.SEND_FAILED: Outgoing.BROKEN,
        Event.RESET: Outgoing.BROKEN,
        Event.ABORT: Outgoing.BROKEN,
    },
    Outgoing.FINISHING: {
        Event.CLOSE: Outgoing.FINISHING,
        Event.HALF_CLOSE: Outgoing.FINISHING,
        Event.SENT: Outgoing.SHUT,
        Event.SEND_FAILED: Outgoing.BROKEN,
        Event.RESET: Outgoing.BROKEN,
        Event.ABORT: Outgoing.BROKEN,
    },
    Outgoing.SHUT: {
        Event.CLOSE: Outgoing.SHUT,
        Event.HALF_CLOSE: Outgoing.SHUT,
        Event.RESET: Outgoing.BROKEN,  # the kernel loses what it had not delivered
        Event.ABORT: Outgoing.BROKEN,
    },
    Outgoing.BROKEN: {
        Event.WRITE: Outgoing.BROKEN,  # the owner has not been told yet
        Event.CLOSE: Outgoing.BROKEN,
        Event.HALF_CLOSE: Outgoing.BROKEN,
        Event.RESET: Outgoing.BROKEN,
        Event.ABORT: Outgoing.BROKEN,
    },
}

#: The events that concern a direction. They raise in every state that does not list them.
CONCERNS_INCOMING = {event for row in INCOMING.values() for event in row}
CONCERNS_OUTGOING = {event for row in OUTGOING.values() for event in row}


class Deadline(Enum):
    """What a stream's timer waits for."""

    STALL = "the peer takes none of what is unsent"
    LINGER = "the peer does not end its side after we ended ours"
    DELIVERY = "the kernel still delivers, and nobody has anything more to say"


def after(event: Event, incoming: Incoming, outgoing: Outgoing) -> tuple[Incoming, Outgoing]:
    """The two states after `event`. Raises `RuntimeError` if it cannot happen in these states."""
    try:
        return (
            INCOMING[incoming][event] if event in CONCERNS_INCOMING else incoming,
            OUTGOING[outgoing][event] if event in CONCERNS_OUTGOING else outgoing,
        )
    except KeyError:
        raise RuntimeError(
            f"{event.name} cannot happen to a stream that is {incoming.name} and {outgoing.name}"
        ) from None


#: Which readiness to ask for. Ask only if the stream would act on it, or the loop spins. While a
#: hold is on, nothing is read (back-pressure: TCP makes the peer wait). Nothing is read after the
#: end either, because a stream that has ended stays readable (4).
READS = {
    (Incoming.OPEN, False): READ,
    (Incoming.OPEN, True): 0,
    (Incoming.DRAINING, False): 0,  # the stream reads in its turns, until "would block"
    (Incoming.DRAINING, True): 0,
    (Incoming.DISCARDING, False): READ,
    (Incoming.DISCARDING, True): READ,  # the peer may read only after it has sent all
    (Incoming.ENDED, False): 0,
    (Incoming.ENDED, True): 0,
}


def interest(incoming: Incoming, held: bool, unsent: bool) -> int:
    """The readiness to ask for."""
    return READS[incoming, held] | (WRITE if unsent else 0)


#: The time limits: one at most. In every state, unsent octets have STALL.
DEADLINES = {
    (Incoming.DISCARDING, Outgoing.SHUT): Deadline.LINGER,
    (Incoming.ENDED, Outgoing.SHUT): Deadline.DELIVERY,
}


def deadline(incoming: Incoming, outgoing: Outgoing, unsent: bool) -> Deadline | None:
    """What the timer has to wait for."""
    return Deadline.STALL if unsent else DEADLINES.get((incoming, outgoing))


def over(incoming: Incoming, outgoing: Outgoing, undelivered: bool) -> bool:
    """Whether nothing more can happen in either direction. Lines may still wait."""
    if outgoing is Outgoing.BROKEN:  # there is no peer to be polite to
        return incoming in (Incoming.ENDED, Incoming.DISCARDING)
    return deadline(incoming, outgoing, False) is Deadline.DELIVERY and not undelivered
