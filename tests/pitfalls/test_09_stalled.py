"""A slow reader is taken for one that has stalled

A peer that takes nothing for a minute should be given up. But nobody can see what it takes. What
shows is that `send` finds room in our own kernel's buffer. Left alone, Linux lets that buffer grow
to 4 MB, and reports it writable again when a third is free. An honest reader at 1 KiB a second
needs twenty minutes to make that room. In all that time the socket is not writable once, so a
shorter deadline ends a working connection. A longer deadline does not help. A smaller buffer does:
progress shows in it.

What one sees: slow clients are dropped as stalled in the middle of a long reply.
"""

from house import house

from .pitfall import Failure, Pitfall

SECONDS = 150


class TestStalled(Pitfall):
    """A client has asked for more than the buffers hold, and takes 1 KiB a second of it."""

    usually = "an honest reader that is slow is dropped"
    handled = "kv.net.stream.KERNEL_BUFFER"
    naive = {"kv.net.stream.KERNEL_BUFFER": 2 << 20}  # doubled: 4 MB, or net.core.wmem_max

    def scenario(self) -> str:
        with house() as h:
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
