"""What is lazy blocks when it is needed

A program starts faster if it imports a module at its first use. Libraries do that, too: for a rare
format, a codec, a traceback. In a loop the first use is some client's message. An import reads
files, and a regular file is always "ready": `read` waits for the disk, and nobody else is served.

It also needs a descriptor, and a server may have none left (18). Then the import fails in the
middle of one client's message, with an `OSError`. Code that takes every `OSError` for the network's
blames the client for it (28).

So everything that is needed is imported, looked up and made before the loop runs. A test looks at
what the interpreter imports after that.

What you see: the first client after a start waits, or is "lost" with `Too many open files`. What a
bystander sees: that the first replies after a start are late.
"""

import resource
import sys

from house import house

from kv.process import serve
from kv.protocol.cipher import PublicKey

from .moments import never
from .pitfall import Failure, Pitfall, mistakes
from .test_18_no_descriptors import lowest_free

REAL_FROM_LINE = PublicKey.from_line


def from_line(*how: object) -> PublicKey:
    import stringprep  # noqa: F401, PLC0415 (nobody needs it before this)

    return REAL_FROM_LINE(*how)


class TestImport(Pitfall):
    """The first client has just connected, and has the last descriptor; it sends its key."""

    usually = "the first client is dropped for want of a descriptor that it does not need"
    wrong = never("^#1 message GET")
    handled = serve
    naive = {"kv.protocol.cipher.PublicKey.from_line": from_line}

    def scenario(self) -> str:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        with house() as h, mistakes() as made:
            guest = h.guest()
            sys.modules.pop("stringprep", None)  # as at the start
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free(), limits[1]))
            try:
                guest.send_raw(guest.key.line).send("CONNECT a", "GET k")
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            replies = guest.texts()
        if made:
            raise Failure(f"{len(replies)} of 2 replies, and {made[0]!r}")
        return f"{len(replies)} of 2 replies"
