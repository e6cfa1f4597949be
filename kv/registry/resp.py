"""What is said to a Redis or Valkey: commands out, replies in.

Sans-I/O. Every command used here has a reply of one line: `+` and a word, or `-` and what is wrong
(RESP, the protocol of Redis, calls them simple strings and simple errors). So no parser is needed.

What has to be one step, like "delete it if it is still mine", is a script that Redis runs: nothing
else runs meanwhile. A script takes many ids at once, and answers with one character for each:
`1` it is done, `0` another has the id, `y` the registry is young.

Why it can be young: a registry that has lost its data, in a restart or by going back to an old
copy, believes that ids are free, while servers still serve under them. So the scripts note in
`kv:run` in which run of the registry they have been at work. In a new run nobody gets an id for
one lease: by then whoever held one has said so again, or has dropped it. (Servers of NFS do the
same, and call it a grace period.)
"""

import re
from collections.abc import Iterable, Sequence
from enum import Enum
from urllib.parse import unquote, urlsplit

from kv.errors import Violation

#: Octets of the longest line that a registry may answer with.
LINE_SIZE = 1024
#: The line that answers each command of a greeting.
GREETED = b"+OK\r"

YOUNG = """
local run = redis.call('INFO', 'server'):match('run_id:(%x+)')
if redis.call('GET', 'kv:run') ~= run then
  redis.call('SET', 'kv:young', 1, 'PX', ARGV[1])
  redis.call('SET', 'kv:run', run)
end
local young = redis.call('EXISTS', 'kv:young') == 1"""
EACH = """
local said = ''
for i, key in ipairs(KEYS) do
  local holder, token, verdict = redis.call('GET', key), ARGV[i + 1], '1'
  %s
  said = said .. verdict
end
return {ok = said}"""
RELEASE = "if holder == token then redis.call('DEL', key) end"
RENEW = """if holder == token then redis.call('PEXPIRE', key, ARGV[1])
  elseif young and not holder then redis.call('SET', key, token, 'PX', ARGV[1])
  else verdict = '0' end"""
CLAIM = """if young then verdict = 'y'
  elseif holder then verdict = '0'
  else redis.call('SET', key, token, 'PX', ARGV[1]) end"""


class Act(Enum):
    """What can be asked for some ids, the most urgent first; the value is the script."""

    RELEASE = EACH % RELEASE
    RENEW = YOUNG + EACH % RENEW
    CLAIM = YOUNG + EACH % CLAIM


class Unwilling(ConnectionError):
    """The registry answered a command with an error."""


class Place:
    """Where the registry is, and how to begin there.

    From `redis://[[user]:password@]host[:port][/db]`, or `rediss://` for TLS. Raises `ValueError`.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        database = parts.path.removeprefix("/")
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            raise ValueError("use redis://[[user]:password@]host[:port][/db], or rediss:// for TLS")
        if parts.query or parts.fragment or not (database or "0").isdecimal():
            raise ValueError(f"{database or '?'!r} is not the number of a database")
        if parts.username and parts.password is None:
            raise ValueError("a user of the registry needs a password")
        self.tls = parts.scheme == "rediss"
        self.host = parts.hostname
        self.port = parts.port or 6379
        self.greeting = b""  # commands; each is answered with `GREETED`
        if parts.password is not None:
            user = [unquote(parts.username)] if parts.username else []
            self.greeting += command("AUTH", *user, unquote(parts.password))
        if database:
            self.greeting += command("SELECT", database)


def command(*words: str) -> bytes:
    """A command: an array of strings, each with its length in front."""
    octets = [word.encode() for word in words]
    strings = [b"$%d\r\n%b\r\n" % (len(each), each) for each in octets]
    return b"*%d\r\n%b" % (len(strings), b"".join(strings))


def request(act: Act, ids: Sequence[str], tokens: Iterable[str], lease: float) -> bytes:
    """A command for some client ids, each with the token of who holds it; `lease` in seconds."""
    keys = [f"kv:id:{client_id}" for client_id in ids]
    return command("EVAL", act.value, str(len(keys)), *keys, str(round(lease * 1000)), *tokens)


def verdicts(line: bytes, number: int) -> str:
    """What a line, without its LF, answers: a character for each of so many ids.

    Raises `Unwilling` for an error, and `Violation` for what is no such line.
    """
    text = line.decode("ascii", "backslashreplace")
    if text.startswith("-"):
        raise Unwilling(f"it says {text[1:].rstrip()!r}")
    if not re.fullmatch(rf"\+[01y]{{{number}}}\r", text):
        raise Violation(f"it does not answer as a Redis does: {text[:40]!r} for {number} ids")
    return text[1:-1]
