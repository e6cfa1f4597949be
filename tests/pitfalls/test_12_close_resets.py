"""Closing with unread input destroys what was sent

`close` looks like the end of a conversation: what was sent still arrives, and then FIN. That holds
only if all input has been read. If one octet is unread in our kernel, or arrives afterwards, the
kernel sends RST instead (RFC 2525, section 2.17). It drops what it had accepted and not delivered
yet. Some systems also drop what has arrived and was not read. So a client with a mistake in its
script loses its replies just when it needs them.

The order that works: send everything, and shut down our side. Then read and throw away until the
peer has ended its side or a bound is reached. Then close.

What you see: the last replies are missing, or the client gets `Connection reset by peer`. What a
bystander sees: nothing; a client without mistakes never meets it.
"""

from house import house

from kv.net.stream import Stream

from .pitfall import Failure, Pitfall


def close(self: Stream) -> None:
    self.transport.send()
    self._release(None)


class TestCloseResets(Pitfall):
    """A client sends 150 commands, a mistake, and goes on; then it begins to read."""

    usually = "replies that `send` had accepted are lost"
    wrong = "^#1 incoming OPEN -> ENDED"
    handled = Stream.close
    naive = {"kv.net.stream.Stream.close": close}

    def scenario(self) -> str:
        with house() as h:
            guest = h.owed(150).send("HELLO")
            guest.send("GET k")
            guest.read_on(153)
            replies = guest.values
            told = f"{replies} of the 150 replies that are due arrive"
            if replies < 150:
                raise Failure(told)
            return told
