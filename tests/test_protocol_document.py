"""`protocol.md` and the code, held together.

Everything is read out of the document itself: keys, vectors, refused lines, the transcript, the
diagram, the grammar and the limits. `python -m tests.test_protocol_document` prints the diagram
that belongs in section 7.
"""

import base64
import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import rsa
from house import house

from kv.errors import TextError, Violation
from kv.protocol.cipher import EXPONENT, PrivateKey, PublicKey, form, key_line_size
from kv.protocol.conversation import ClientConversation, ServerConversation, Service, opened
from kv.protocol.messages import (
    FIXED_REPLIES,
    TRANSITIONS,
    Command,
    Message,
    Reply,
    State,
    Wire,
    parse,
    shortened,
)
from kv.protocol.store import Store

DOCUMENT = (Path(__file__).resolve().parent.parent / "protocol.md").read_text(encoding="utf-8")

# --- reading the document ------------------------------------------------------------------------


def section(heading: str) -> str:
    """What stands under a heading, up to the next heading of any depth."""
    start = re.search(rf"^#+ {re.escape(heading)}$", DOCUMENT, re.MULTILINE)
    assert start, f"protocol.md has no heading {heading!r}"
    rest = DOCUMENT[start.end() :]
    end = re.search(r"^#+ ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def blocks(heading: str, language: str = "text") -> list[str]:
    """The fenced blocks under a heading."""
    return re.findall(rf"^```{language}\n(.*?)^```$", section(heading), re.MULTILINE | re.DOTALL)


def value(rows: list[str]) -> str:
    """A value from its rows: JSON strings one after the other, or bare text."""
    bare = [row.strip() for row in rows]
    if bare[0].startswith('"'):
        return "".join(json.loads(row) for row in bare)
    return "".join(bare)


def entries(heading: str) -> list[dict[str, str]]:
    """The entries of the vectors under a heading, by the rules that section 14 opens with."""
    found: list[dict[str, list[str]]] = []
    for block in blocks(heading):
        current: dict[str, list[str]] = {}
        for row in block.splitlines():
            name, _, rest = row.partition(": ")
            if not row or name in current:
                current = {}
            if row.startswith(" "):
                list(current.values())[-1].append(row)
            elif row and not row.startswith("-----") and rest:
                if not current:
                    found.append(current)
                current[name] = [rest]
    return [{name: value(rows) for name, rows in entry.items()} for entry in found]


def transcript() -> list[tuple[str, str, str]]:
    """Who (C or S), the text or `(key line)`, and the line."""
    (block,) = blocks("A whole connection")
    steps = re.findall(r"^([CS]): (.*)\n((?:   .*\n)+)", block, re.MULTILINE)
    assert block == "".join(f"{who}: {text}\n{rows}" for who, text, rows in steps)
    return [
        (who, text if text == "(key line)" else json.loads(text), "".join(rows.split()))
        for who, text, rows in steps
    ]


def key_pair(heading: str) -> PrivateKey:
    """The key pair whose PEM is under a heading."""
    return PrivateKey(rsa.PrivateKey.load_pkcs1(blocks(heading)[0].encode()))


CLIENT = key_pair("The client's key pair")
SERVER = key_pair("The server's key pair")
SIDES = {
    "client": (CLIENT, "The client's key pair", "Texts that the client seals"),
    "server": (SERVER, "The server's key pair", "Texts that the server seals"),
}
BY_THE_CLIENT = entries("Texts that the client seals")
BY_THE_SERVER = entries("Texts that the server seals")
REFUSED_LINES = entries("Sealed lines to refuse")
REFUSED_KEYS = entries("Key lines to refuse")
REFUSED_REPLIES = entries("Replies that a client must refuse")
REFUSED_TEXTS = [entry["text"] for entry in entries("Texts to refuse")]

# --- vectors -------------------------------------------------------------------------------------


def case(entry: dict[str, str]) -> str:
    return entry["case"]


def test_every_kind_of_vector_is_there() -> None:
    lengths = {len(entry["text"]) for entry in BY_THE_CLIENT}
    assert {0, 53, 54, 106, 265} <= lengths
    assert len(BY_THE_CLIENT) >= 12
    assert {entry["text"] for entry in BY_THE_SERVER} >= set(FIXED_REPLIES)
    assert len(REFUSED_LINES) >= 19
    assert len(REFUSED_KEYS) >= 14
    assert len(REFUSED_TEXTS) >= 19
    assert len(transcript()) >= 30


@pytest.mark.parametrize("side", SIDES)
def test_the_key_lines_are_those_of_the_published_keys(side: str) -> None:
    key, heading, _ = SIDES[side]
    (entry,) = entries(heading)
    line = entry["line"].encode()
    assert key.public.to_line() == line
    assert PublicKey.from_line(line, 512) == key.public
    assert key.bits == 512


@pytest.mark.parametrize("side", SIDES)
def test_the_documents_texts_and_lines_become_each_other(side: str) -> None:
    key, key_heading, heading = SIDES[side]
    (key_entry,) = entries(key_heading)
    public = PublicKey.from_line(key_entry["line"].encode(), 512)
    for entry in entries(heading):
        line = entry["line"].encode()
        assert key.seal(entry["text"].encode("ascii")) == line
        assert public.open(line) == entry["text"].encode("ascii")
        assert opened(public, line) == entry["text"]


@pytest.mark.parametrize("entry", REFUSED_LINES, ids=case)
def test_the_documents_bad_sealed_lines_are_refused_for_the_reason_given(
    entry: dict[str, str],
) -> None:
    with pytest.raises(Violation) as violation:
        opened(CLIENT.public, entry["line"].encode())
    assert entry["why"] in str(violation.value)


@pytest.mark.parametrize("entry", REFUSED_KEYS, ids=case)
def test_the_documents_bad_key_lines_are_refused_for_the_reason_given(
    entry: dict[str, str],
) -> None:
    with pytest.raises(Violation) as violation:
        PublicKey.from_line(entry["line"].encode(), 512)
    assert entry["why"] in str(violation.value)


@pytest.mark.parametrize("text", REFUSED_TEXTS, ids=json.dumps)
def test_the_documents_bad_texts_are_no_commands(text: str) -> None:
    with pytest.raises(Violation):
        parse(text)
    conversation = conversation_in(State.AWAITING_COMMAND)
    with pytest.raises(Violation):
        conversation.receive(CLIENT.seal(text.encode()))
    assert conversation.state is State.CLOSED


def test_the_block_shown_octet_by_octet_is_what_sealing_blue_starts_from() -> None:
    rows = re.search(r"before the operation:\n\n((?:    .*\n)+)", section("4. Sealed messages"))
    assert rows
    shown = bytes.fromhex("".join(rows[1].split()))
    (line,) = (entry["line"] for entry in BY_THE_CLIENT if entry["text"] == "blue")
    sealed = int.from_bytes(base64.b64decode(line), "big")
    assert pow(sealed, EXPONENT, CLIENT.public.n).to_bytes(64, "big") == shown


def test_the_header_of_20_octets_turns_pkcs1_into_subject_public_key_info() -> None:
    (spki,) = (entry for entry in REFUSED_KEYS if entry["case"].startswith("SubjectPublicKeyInfo"))
    shown = re.search(
        r"^    (30 [0-9A-F ]+)$", section("PKCS#1 and SubjectPublicKeyInfo"), re.MULTILINE
    )
    assert shown
    header = bytes.fromhex(shown[1])
    assert len(header) == 20
    assert header + base64.b64decode(CLIENT.public.to_line()) == base64.b64decode(spki["line"])


def test_what_a_client_must_refuse_is_refused() -> None:
    wire = Wire()
    commands = {
        "CONNECT alice": Command.connect(wire, "alice"),
        "PUT colour": Command.put(wire, "colour", "blue"),
        "DELETE colour": Command.delete(wire, "colour"),
        "DISCONNECT": Command.disconnect(),
    }
    assert {entry["sent"] for entry in REFUSED_REPLIES} == {*commands, "(nothing)"}
    for entry in REFUSED_REPLIES:
        assert opened(SERVER.public, entry["line"].encode()) == entry["text"]
        conversation = ClientConversation(wire, CLIENT)
        conversation.receive(SERVER.public.to_line())
        if entry["sent"] in commands:
            assert list(conversation.lines(commands[entry["sent"]]))
        with pytest.raises(Violation):
            conversation.receive(entry["line"].encode())


def test_lines_are_too_long_from_the_octet_that_it_says(caplog: pytest.LogCaptureFixture) -> None:
    cases = entries("Lines too long")
    assert len(cases) == 3
    for entry in cases:
        times, octet, lf = re.fullmatch(r"(\d+) times ([0-9A-F]{2})(, LF)?", entry["send"]).groups()
        octets = bytes.fromhex(octet) * int(times) + (b"\n" if lf else b"")
        caplog.clear()
        with house() as h, caplog.at_level("INFO", "kv"):
            guest = h.guest().connect()
            guest.send_raw(octets)
            h.settle()
            assert guest.ended
        (dropped,) = [text for text in caplog.messages if text.startswith("dropped")]
        assert entry["why"] in dropped


def test_each_state_answers_as_the_table_says() -> None:
    head, *rows = re.findall(r"^\| (.*) \|$", section("Each state"), re.MULTILINE)
    states = [State(name) for name in head.split(" | ")[1:]]
    assert set(states) == set(State) - {State.CLOSED}
    assert len(rows) >= 11
    for row in rows:
        message, *cells = row.split(" | ")
        text = None if message == "(key line)" else json.loads(message.strip("`"))
        for state, expected in zip(states, cells, strict=True):
            shared = service()
            assert shared.store.begin("bob") is not None
            conversation = conversation_in(state, shared)
            if expected == "drop":
                with pytest.raises(Violation):
                    conversation.receive(client_line(text))
                continue
            reply = conversation.receive(client_line(text))
            if expected == "key line":
                assert reply == SERVER.public.to_line()
            elif expected == "no reply":
                assert not reply
            else:
                assert f"`{opened(SERVER.public, reply)}`" == expected


def test_another_key_size_seals_and_opens_as_the_document_says() -> None:
    key = key_pair("Another key size")
    key_line, *texts = entries("Another key size")
    assert key.bits == 1024
    assert PublicKey.from_line(key_line["line"].encode(), 1024) == key.public
    assert [len(entry["text"]) for entry in texts] == [0, 10, 117, 118]
    assert Wire(1024).text_size == 2 * 117
    for entry in texts:
        assert key.seal(entry["text"].encode()).decode() == entry["line"]
        assert opened(key.public, entry["line"].encode()) == entry["text"]


@pytest.mark.parametrize("sizes", [(128, 393), (136, 393), (128, 329), (4104, 1 << 20)])
def test_settings_under_which_a_fixed_reply_does_not_fit_are_refused(
    sizes: tuple[int, int],
) -> None:
    with pytest.raises(ValueError):
        Wire(*sizes)


@pytest.mark.parametrize("sizes", [(8_000_000, 1 << 40), (8 * 10**10, 1 << 60), (8 * 10**10, 4096)])
def test_settings_that_would_compute_for_minutes_are_refused_at_once(
    sizes: tuple[int, int],
) -> None:
    with pytest.raises(ValueError, match=r"use a multiple of 8 from 128 to 4096"):
        Wire(*sizes)
    with pytest.raises(ValueError, match="minutes"):
        PrivateKey.generate(sizes[0])


def test_a_buffer_that_fits_nowhere_is_refused_at_once() -> None:
    assert Wire(512, 1 << 60).blocks_of_text
    with pytest.raises(ValueError, match="fits nowhere"):
        Wire(512, (1 << 60) + 1)


def test_the_smallest_sizes_are_those_with_room_for_every_fixed_reply() -> None:
    assert Wire(128, 521).text_size >= 14 == max(map(len, FIXED_REPLIES))
    stated = re.search(r"fewer than (\d+) characters", section("9. Limits").replace("\n", " "))
    assert stated and int(stated[1]) == 14


# --- the transcript ------------------------------------------------------------------------------


def service() -> Service:
    return Service(Wire(), SERVER, Store())


def test_the_server_answers_the_transcript_octet_for_octet() -> None:
    shared = service()
    assert shared.store.begin("bob") is not None
    conversation = ServerConversation(shared)
    said: list[str] = []
    for who, _, line in transcript():
        if who == "S":
            assert said.pop(0) == line
            continue
        assert not said, f"the server says {said} before the client's {line}"
        if reply := conversation.receive(line.encode()):
            said.append(reply.decode())
    assert not said
    assert conversation.state is State.CLOSED
    assert len(shared.store) == 1, "only bob is left"


def test_the_lines_of_the_transcript_carry_the_texts_above_them() -> None:
    for who, text, line in transcript():
        key = {"C": CLIENT, "S": SERVER}[who]
        if text == "(key line)":
            assert key.public.to_line().decode() == line
        else:
            assert key.seal(text.encode("ascii")).decode() == line
            assert opened(key.public, line.encode()) == text


def test_our_client_makes_the_transcripts_lines_and_understands_the_replies() -> None:
    wire = Wire()
    conversation = ClientConversation(wire, CLIENT)
    sent = [conversation.key.public.to_line().decode()]
    texts = [text for who, text, _ in transcript() if who == "C"][1:]
    make = {
        Message.CONNECT: Command.connect,
        Message.PUT: Command.put,
        Message.GET: Command.get,
        Message.DELETE: Command.delete,
    }
    while texts:
        message, argument = parse(text := texts.pop(0))
        value = [texts.pop(0)] if message is Message.PUT else []
        if message is Message.DISCONNECT:
            command = Command.disconnect()
        elif value == [Reply.GET_ERROR.value]:  # `Command.put` refuses it, as the server must
            command = Command(message, (text, *value))
        else:
            command = make[message](wire, argument, *value)
        sent += [line.decode() for line in conversation.lines(command)]
    assert sent == [line for who, _, line in transcript() if who == "C"]
    replies = [(text, line) for who, text, line in transcript() if who == "S"]
    assert conversation.receive(replies.pop(0)[1].encode()) is None
    for text, line in replies:
        received = conversation.receive(line.encode())
        assert received is not None
        assert received[1] == text
    assert not conversation.awaiting


# --- states --------------------------------------------------------------------------------------


def state_diagram(transitions: dict[State, dict[Message, dict[Reply, State]]]) -> str:
    """The Mermaid block of section 7. A label has one colon in it at the most: Mermaid's own."""
    rows = ["stateDiagram-v2", f"    [*] --> {next(iter(transitions)).value}"]
    for state, messages in transitions.items():
        for message, outcomes in messages.items():
            for reply, after in outcomes.items():
                label = f"{message.value} / {reply.value.rpartition(': ')[2]}"
                rows.append(f"    {state.value} --> {after.value} : {label}")
        if not messages:
            rows.append(f"    {state.value} --> [*]")
    return "\n".join(rows) + "\n"


def test_the_diagram_is_the_one_that_the_transition_table_makes() -> None:
    assert blocks("7. States", "mermaid") == [state_diagram(TRANSITIONS)]


def test_no_state_is_unreachable() -> None:
    reached: set[State] = set()
    ahead = [State.AWAITING_KEY]
    while ahead:
        state = ahead.pop()
        if state not in reached:
            reached.add(state)
            ahead += [
                after for outcomes in TRANSITIONS[state].values() for after in outcomes.values()
            ]
    assert reached == set(State) == set(TRANSITIONS)


#: What brings a new conversation into each state; None is the key line.
WAYS: dict[State, list[str | None]] = {
    State.AWAITING_KEY: [],
    State.AWAITING_CONNECT: [None],
    State.AWAITING_COMMAND: [None, "CONNECT alice"],
    State.AWAITING_PUT_VALUE: [None, "CONNECT alice", "PUT colour"],
    State.CLOSED: [None, "CONNECT alice", "DISCONNECT"],
}

#: For each message, lines that are one, each with what the server may answer where it is allowed.
EXAMPLES: dict[Message, list[str | None]] = {
    Message.KEY: [None],
    Message.CONNECT: ["CONNECT carol", "CONNECT bob"],
    Message.PUT: ["PUT colour"],
    Message.VALUE: ["blue", "GET: ERROR"],
    Message.GET: ["GET colour", "GET size"],
    Message.DELETE: ["DELETE colour", "DELETE size"],
    Message.DISCONNECT: ["DISCONNECT"],
}


def client_line(text: str | None) -> bytes:
    return CLIENT.public.to_line() if text is None else CLIENT.seal(text.encode())


def conversation_in(state: State, shared: Service | None = None) -> ServerConversation:
    """A conversation that has been led into `state` by messages."""
    conversation = ServerConversation(shared or service())
    for text in WAYS[state]:
        conversation.receive(client_line(text))
        if text == "CONNECT alice" and conversation.session:
            conversation.session.values["colour"] = "red"
    assert conversation.state is state
    return conversation


def reply_in(line: bytes) -> Reply:
    """Which reply a line of the server's is."""
    if not line:
        return Reply.NONE
    if line == SERVER.public.to_line():
        return Reply.KEY
    return FIXED_REPLIES.get(opened(SERVER.public, line), Reply.GET_VALUE)


@pytest.mark.parametrize("message", Message, ids=lambda message: message.name)
@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_every_message_has_its_answer_in_every_state(state: State, message: Message) -> None:
    seen: set[Reply] = set()
    # While a value is awaited, every text is the value.
    waiting = state is State.AWAITING_PUT_VALUE and message is not Message.KEY
    outcomes = TRANSITIONS[state].get(Message.VALUE if waiting else message)
    for text in EXAMPLES[message]:
        shared = service()
        assert shared.store.begin("bob") is not None
        conversation = conversation_in(state, shared)
        if outcomes is None:
            with pytest.raises(Violation):
                conversation.receive(client_line(text))
            assert conversation.state is State.CLOSED
            assert conversation.session is None
            assert len(shared.store) == 1, "a violation leaves nothing behind"
        else:
            reply = reply_in(conversation.receive(client_line(text)))
            assert conversation.state is outcomes[reply]
            assert (conversation.session is None) is (
                conversation.state not in (State.AWAITING_COMMAND, State.AWAITING_PUT_VALUE)
            )
            seen.add(reply)
    if outcomes is not None and not (waiting and message is not Message.VALUE):
        assert seen == set(outcomes), "every reply in the table can be had"


# --- grammar -------------------------------------------------------------------------------------


def grammar() -> dict[str, str]:
    """The rules of section 8: name -> elements."""
    text = "".join(blocks("8. Grammar", "abnf"))
    text = re.sub(r"\s*;.*", "", text)
    text = re.sub(r"\n +", " ", text)
    rules = dict(re.findall(r"^([a-z0-9-]+) += (.+)$", text, re.MULTILINE | re.IGNORECASE))
    assert len(rules) == len([row for row in text.splitlines() if row])
    return rules


RULES = grammar()
TOKEN = re.compile(
    r"""
      %s"(?P<exact>[^"]*)" | "(?P<any>[^"]*)"
    | %x(?P<low>[0-9A-F]+)(?:-(?P<high>[0-9A-F]+))?
    | (?P<least>\d*)(?P<star>\*)(?P<most>\d*) | (?P<times>\d+)
    | (?P<rule>[A-Za-z][A-Za-z0-9-]*) | (?P<mark>[][()/]) | [ ]+
    """,
    re.VERBOSE,
)


@functools.cache
def expression(rule: str) -> str:
    """The regular expression of a rule (no rule here refers to itself)."""
    out = ["(?:"]
    repeat = ""
    elements, at = RULES[rule], 0
    opened_at: list[tuple[int, str]] = []
    while at < len(elements):
        token = TOKEN.match(elements, at)
        assert token, f"cannot read {elements[at:]!r} in rule {rule}"
        at = token.end()
        part = None
        if token["star"]:
            repeat = f"{{{token['least'] or 0},{token['most']}}}"
        elif token["times"]:
            repeat = f"{{{token['times']}}}"
        elif token["exact"] is not None:
            part = re.escape(token["exact"])
        elif token["any"] is not None:
            part = f"(?i:{re.escape(token['any'])})"
        elif token["low"]:
            part = rf"[\x{token['low']}-\x{token['high'] or token['low']}]"
        elif token["rule"]:
            part = expression(token["rule"])
        elif token["mark"] in ("(", "["):
            opened_at.append((len(out), repeat))
            out.append("(?:")
            repeat = ""
        elif token["mark"] == "/":
            out.append("|")
        elif token["mark"]:
            start, outer = opened_at.pop()
            group = "".join(out[start:]) + ")" + ("?" if token["mark"] == "]" else outer)
            out[start:] = [group]
        if part is not None:
            out.append(f"(?:{part}){repeat}")
            repeat = ""
    return "".join(out) + ")"


def is_a(rule: str, text: str) -> bool:
    """Whether `text` is a `rule` of the grammar."""
    return re.fullmatch(expression(rule), text, re.DOTALL) is not None


COMMANDS = {message: message.name.lower() for message in Message} | {Message.KEY: "key-line"}


def test_the_grammar_and_the_parser_agree_about_what_is_a_command() -> None:
    texts = [entry["text"] for entry in BY_THE_CLIENT] + REFUSED_TEXTS
    texts += ["PUT \t", "GET  ", "GET \r", "CONNECT CONNECT", "DELETE \x7f", "PUT  a b "]
    texts += [text.lower() for text in texts]
    for text in texts:
        try:
            message = parse(text)[0]
        except Violation:
            found = set[str]()
        else:
            found = {COMMANDS[message]}
        rules = {"connect", "put", "get", "delete", "disconnect"}
        assert {rule for rule in rules if is_a(rule, text)} == found, repr(text)
        assert is_a("value", text) and is_a("message", text)
    assert not is_a("value", "a\nb") and not is_a("value", "caf\xe9")


def test_the_replies_of_the_grammar_are_those_of_the_table() -> None:
    fixed = set(re.findall(r'%s"([A-Z]+: [A-Z]+)"', " ".join(RULES.values())))
    assert fixed == set(FIXED_REPLIES)
    assert all(is_a("reply", reply) for reply in fixed)
    assert is_a("get-reply", "anything") and not is_a("put-reply", "anything")


def test_the_lines_of_the_vectors_are_lines_of_the_grammar() -> None:
    for entry in BY_THE_CLIENT + BY_THE_SERVER:
        assert is_a("sealed-line", entry["line"] + "\n")
    for who in "CS":
        stream = "".join(line + "\n" for side, _, line in transcript() if side == who)
        assert is_a("stream", stream) and is_a("stream", "")
    # The rest of the refused lines have the form of a line, and something else is wrong.
    misshapen = {
        "missing base64 padding",
        "a space in the line",
        "CR before the LF",
        "an empty line",
    }
    refused = {
        entry["case"] for entry in REFUSED_LINES if not is_a("sealed-line", entry["line"] + "\n")
    }
    assert refused == misshapen


# --- limits --------------------------------------------------------------------------------------


def limits() -> list[tuple[str, str, int]]:
    """The rows of section 9's table: what, formula, number."""
    rows = re.findall(r"^\| (.*?) \| (.*?) \| (\d+) \|$", section("9. Limits"), re.MULTILINE)
    return [(what, formula, int(number)) for what, formula, number in rows]


def calculated(key_bits: int, receive_buffer_size: int) -> dict[str, int]:
    """The limits by the document's own formulas, row after row."""
    names = {"K": key_bits, "B": receive_buffer_size}
    found: dict[str, int] = {}
    for what, formula, _ in limits():
        name, _, right = formula.replace("*", "").replace("·", "*").rpartition(" = ")
        found[what] = eval(right.replace("/", "//"), {}, names)
        if name:
            names[name] = found[what]
    return found


def test_the_limits_table_follows_from_its_formulas() -> None:
    assert len(limits()) == 10
    assert calculated(512, 4096) == {what: number for what, _, number in limits()}


@pytest.mark.parametrize("sizes", [(512, 4096), (1024, 4096), (4096, 8192), (128, 1000)])
def test_the_limits_are_those_of_the_code(sizes: tuple[int, int]) -> None:
    wire = Wire(*sizes)
    numbers = calculated(*sizes)
    assert numbers["octets of a line, with its LF"] == wire.line_size
    assert numbers["characters of a text"] == wire.text_size
    id_size, value_size = numbers["characters of a client id"], numbers["characters of a value"]
    key_size = numbers["characters of a key in DELETE"]
    assert numbers["characters of a key in PUT and GET"] == key_size + 3
    made = [
        (id_size, lambda n: Command.connect(wire, "x" * n)),
        (value_size, lambda n: Command.put(wire, "key", "x" * n)),
        (key_size, lambda n: Command.put(wire, "x" * n, "")),
        (key_size + 3, lambda n: Command.get(wire, "x" * n)),
        (key_size, lambda n: Command.delete(wire, "x" * n)),
    ]
    for size, make in made:
        for allowed in (1, size):
            assert make(allowed)
        empty = [0] if make is not made[1][1] else []  # a value may be empty
        for refused in (size + 1, *empty):
            with pytest.raises(ValueError):
                make(refused)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("b\xe9\xe8", TextError, "the client id has 'é', which is not an ASCII character"),
        ("a\nb", TextError, "the client id has a line feed, which a text cannot carry"),
        (b"abc", TypeError, "the client id must be a str, not bytes"),
    ],
)
def test_what_a_text_cannot_carry_is_named(text: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error) as raised:
        Command.connect(Wire(), text)
    assert str(raised.value) == said
    with pytest.raises(TextError, match="it means a missing key"):
        Command.put(Wire(), "key", "GET: ERROR")


def test_what_a_peer_says_is_quoted_up_to_a_bound() -> None:
    assert shortened("x" * 40) == repr("x" * 40)
    assert shortened("x" * 41) == f"{'x' * 40!r}… (41 characters)"


def test_the_modulus_itself_is_no_block() -> None:
    block = SERVER.public.n.to_bytes(SERVER.public.form.size)
    with pytest.raises(Violation, match="not below the modulus"):
        SERVER.public.open(base64.b64encode(block))


def test_a_key_line_is_as_long_as_stated() -> None:
    stated = re.search(r"(\d+) octets with its LF\.", section("9. Limits").replace("\n", " "))
    assert stated
    assert int(stated[1]) == len(CLIENT.public.to_line()) + 1 == key_line_size(512)


def test_the_key_of_74_octets_begins_and_ends_as_shown() -> None:
    rows = re.findall(r"^    ([0-9A-F ]+)(?: …)? +(?:SEQ|INT)", section("3. Key exchange"), re.M)
    sequence, modulus, exponent = map(bytes.fromhex, rows)
    octets = base64.b64decode(CLIENT.public.to_line())
    assert len(octets) == 74
    assert octets.startswith(sequence + modulus) and len(sequence + modulus) == 5
    assert octets.endswith(exponent) and len(exponent) == 5
    assert form(512).prefix == sequence + modulus and form(512).suffix == exponent


@pytest.mark.parametrize("bits", [1024, 2048])
def test_larger_keys_begin_as_shown(bits: int) -> None:
    text = section("3. Key exchange").replace("\n", " ")
    shown = re.search(rf"{bits} bits(?: begins)? `([0-9A-F ]+)`", text)
    assert shown
    assert form(bits).prefix == bytes.fromhex(shown[1])


@pytest.mark.parametrize("bits", [128, 512, 1008, 1016, 1024, 2048, 4096])
def test_a_key_line_is_what_a_library_makes(bits: int) -> None:
    n = 1 << bits - 1 | 1
    octets = rsa.PublicKey(n, EXPONENT).save_pkcs1("DER")
    line = PublicKey(n, form(bits)).to_line()
    assert base64.b64decode(line) == octets
    assert len(line) + 1 == key_line_size(bits)
    assert PublicKey.from_line(line, bits).n == n


if __name__ == "__main__":
    print(state_diagram(TRANSITIONS), end="")
