"""A slow reader is taken for one that has stalled

A peer that takes nothing for a minute should be given up. But readiness does not show what it
takes. It shows that `send` finds room in our own kernel's buffer. Linux lets that buffer grow to
4 MB, and reports it writable again when a third is free. An honest reader at 1 KiB a second needs
twenty minutes to make that room. In all that time the socket is not writable once, so a shorter
deadline ends a working connection. A smaller buffer helps, and so does a longer deadline, up to
some slower reader.

The kernel knows better. It can be asked how many octets the peer has not acknowledged yet. When the
deadline comes and that count has moved, the peer reads.

What you see: slow clients are dropped as stalled in the middle of a long reply. What a bystander
sees: nothing; those who read fast are never dropped.
"""

from house import house

from kv.net.patience import Patience
from kv.net.transport import Transport

from .moments import loses
from .pitfall import Failure, Pitfall

SECONDS = 60


def acknowledged(self: Transport) -> int:
    return self.sent  # what the kernel took


class TestStalled(Pitfall):
    """A client takes 1 KiB a second of its replies. One that takes nothing for 10 s is dropped."""

    usually = "an honest reader that is slow is dropped"
    wrong = loses
    handled = Patience.is_over
    naive = {"kv.net.transport.Transport.acknowledged": acknowledged}

    def scenario(self) -> str:
        with house(stream={"stall_timeout": 10}) as h:
            guest = h.owed(0)
            (connection,) = h.server.connections
            while not connection.stream.unsent:
                guest.send(*["GET k"] * 100)
            guest.send(*["GET k"] * 600)  # and more than it takes by the end
            for second in range(SECONDS):
                guest.take(1024)
                h.wait(1)
                if not h.server.connections:
                    raise Failure(f"it is dropped as stalled after {second + 1} s of 1 KiB each")
            assert connection.stream.unsent  # so that the deadline was running to the end
            return f"it is still there after {SECONDS} s of 1 KiB each"
