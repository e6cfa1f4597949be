"""What people type, and what is wrong with it: lines go in, commands or sentences come out.

Sans-I/O. One line is one message, and the line after PUT is the value. Each line is checked before
anything of it is sent. So a mistake costs a sentence, and not the session.

The rule that matters most: no value is run as a command. When a PUT is refused, the next line is
its value, and is skipped. The rule holds for every refused line that may have been meant as a PUT
(`meant_as_put`). A byte order mark, a quote, an escape sequence or a wrong letter changes nothing.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from kv.errors import TextError, Violation
from kv.protocol.messages import Command, Message, Wire, checked_key, parse, shortened

#: Octets of a line that are kept: more than any message has, and little memory.
LONGEST = 64 * 1024

FORMS = {
    "PUT": "PUT KEY",
    "GET": "GET KEY",
    "DELETE": "DELETE KEY",
    "DISCONNECT": "DISCONNECT",
}

HELP = """\
PUT KEY      stores a value: what you type on the next line, even nothing
GET KEY      shows the value under KEY, or GET: ERROR if there is none
DELETE KEY   forgets KEY
DISCONNECT   ends the session (so does Ctrl-D); its data is gone
CONNECT has been done for you. To be somebody else, start another client with --id.
Commands are case sensitive. One space ends the command. The key is everything behind it."""

#: Commands of other programs, which people type out of habit.
ELSEWHERE = {"help", "exit", "quit", "bye", "q", "?", r"\q", r"\?"}
CONNECTED = "CONNECT has been done already: to be somebody else, start another client with --id"
SKIPPED = "; the next line, its value, is skipped"

BOM = b"\xef\xbb\xbf"
#: The prompt for a value that nobody wants. It has a space, and may be copied with a line.
SKIPPING = "value (skipped)> "
#: What a terminal sends for a key, or around pasted text (ESC [200~); and that prompt.
SEQUENCE = re.compile(rf"\x1b(\[[0-?]*[ -/]*[@-~]|O?.)|{re.escape(SKIPPING.rstrip())}")
#: PUT with something behind it, or with one letter too many, missing, wrong or out of place.
LIKE_PUT = re.compile(r"PUT.*|.?UT|P.?T|PU.?|.PUT|P.UT|PU.T|UPT|PTU")


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence about a line. `refused` if the line was not sent."""

    text: str
    refused: bool = False


@dataclass(frozen=True, slots=True)
class PendingPut:
    """A PUT whose value is the next line. If the PUT was refused, that line is skipped."""

    key: str = ""
    refused: bool = False


class Typed:
    """Takes lines in their order, and gives commands and notices."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._returns = False  # the notice about a line that ends in CR was given
        self.lines = 0
        self.put: PendingPut | None = None

    def take(self, line: bytes) -> Iterator[Command | Notice]:
        """The command in one line, given without its LF, and the notices about it."""
        self.lines += 1
        if self.lines == 1:
            line = line.removeprefix(BOM)
        put, self.put = self.put, None
        text = line.decode(errors="surrogateescape")
        if put is None and not text.strip():
            return
        if line.endswith(b"\r") and not self._returns:
            self._returns = True
            yield Notice(
                f"line {self.lines} ends in a carriage return (CR), as files from Windows do;"
                " the CR is sent as a part of the text, here and in later lines"
            )
        try:
            if put is None:
                yield from self._command(line, text)
            elif not put.refused:
                checked_octets("value", line, text)
                yield Command.put(self._wire, put.key, text)
        except TextError as error:
            skips = put is None and meant_as_put(text)
            self.put = PendingPut(refused=True) if skips else None
            yield Notice(f"{error}{SKIPPED if skips else ''}", refused=True)

    def end(self) -> Iterator[Notice]:
        """The notices at the end of the input."""
        if self.put is not None and not self.put.refused:
            yield Notice("the last PUT has no value line; it was not sent", refused=True)

    def _command(self, line: bytes, text: str) -> Iterator[Command | Notice]:
        if text == "help":
            yield Notice(HELP)
            return
        checked_octets("line", line, text)
        message, argument = understood(text)
        if message is Message.PUT:
            self.put = PendingPut(checked_key(self._wire, argument))
        elif message is Message.GET:
            yield Command.get(self._wire, argument)
        elif message is Message.DELETE:
            yield Command.delete(self._wire, argument)
        else:
            yield Command.disconnect()


def understood(text: str) -> tuple[Message, str]:
    """The command in a line that a person wrote, and its argument.

    Raises `TextError`, which says what is wrong and what would be right.
    """
    word = (text.split(maxsplit=1) or [""])[0]
    if word == "CONNECT":
        raise TextError(CONNECTED)
    try:
        return parse(text)
    except Violation:
        pass
    if word.lower() in ELSEWHERE:
        raise TextError(f"{shortened(word)} is not a command: type help; Ctrl-D leaves")
    form = FORMS.get(word.upper())
    if form is None:
        raise TextError(f"{shortened(word)} is not a command: use {', '.join(FORMS.values())}")
    if word != word.upper():
        raise TextError(
            f"{shortened(word)} is not a command: commands are case sensitive, use {form}"
        )
    if text.rstrip() == word and word != "DISCONNECT":
        raise TextError(f"{word} needs a key: use {form}")
    raise TextError(f"{shortened(text)} is not a command: use {form}, and nothing else on the line")


def meant_as_put(text: str) -> bool:
    """Whether a refused line may have been meant as a PUT. Then the next line is its value.

    Only the letters of the first word count, in any case and of any width. Everything else is left
    out: quotes, NUL, zero-width spaces, octets that are no text, the sequences of keys.
    """
    word = ""
    # One by one, as the time for a whole text can grow with the square of its length.
    plain = (unicodedata.normalize("NFKC", one) for one in SEQUENCE.sub("", text))
    for character in chain.from_iterable(plain):
        if character.isalpha():
            word += character
        elif character == ">":  # a prompt that was copied with the line
            word = ""
        elif word and character.isspace() and character not in "\x1c\x1d\x1e\x1f":
            break
    return LIKE_PUT.fullmatch(word.upper()) is not None


def checked_octets(what: str, line: bytes, text: str) -> None:
    """Raises `TextError` if a line is too long, or is not text."""
    if len(line) > LONGEST:
        raise TextError(f"the line has more than {LONGEST} octets")
    for character in text:
        if "\udc80" <= character <= "\udcff":  # how `surrogateescape` shows an octet
            octet = ord(character) - 0xDC00
            raise TextError(f"the {what} has the octet 0x{octet:02X}, not an ASCII character")
