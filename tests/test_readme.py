"""What the pages say is so: options, links, the map, and every command."""

import argparse
import ast
import contextlib
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from patience import patience
from pitfalls.gallery import Entry, gallery, grouped
from pitfalls.pitfall import line_of
from readme import PAGES, renewed

from kv.net.owner import Limits
from kv.net.turns import UNSENT
from kv.options import parser
from kv.protocol.store import ENTRY, SESSION

TEXTS = {page: page.read_text() for page in PAGES}
README = TEXTS[ROOT / "README.md"]
COURSE = TEXTS[ROOT / "kv/README.md"]
MAKEFILE = (ROOT / "Makefile").read_text()

#: What a command needs besides, so that a test can afford it.
SHORTER = {
    "make demo": "ARGS=--fast",
    "make pitfalls": "N=6",
    "make bench": "ARGS=--help",  # it has a test of its own
    "make ladder": "STEP=1",  # so has it
    "make ladder STEP=4": "ARGS=--help",
}


def options(role: str) -> dict[str, argparse.Action]:
    """The options of the server or the client, by name."""
    roles: Any = next(a for a in parser()._actions if isinstance(a.choices, dict))
    actions = roles.choices[role]._actions
    return {action.option_strings[-1]: action for action in actions if action.dest != "help"}


def test_the_servers_options_and_defaults_are_those_of_the_table() -> None:
    table = dict(re.findall(r"^\| `(--[a-z-]+) [A-Z]+` \| ([^\s`]+) \|", COURSE, re.M))
    others = {"--trace", "--trace-file", "--max-session-memory"}
    actions = {name: action for name, action in options("server").items() if name not in others}
    assert table == {n: str(a.default or "none") for n, a in actions.items()}
    assert all(f"`{name}" in COURSE for name in others)


def test_the_client_has_the_first_four_and_those_that_are_named() -> None:
    own = set(options("client")) - set(options("server"))
    assert own == {
        *("--id", "--timeout", "--raw", "--strict", "--quiet"),
        *("--tls", "--tls-ca", "--tls-name"),
    }
    assert all(f"`{name}" in COURSE for name in own)


def test_what_an_entry_and_a_session_are_charged_is_what_it_says() -> None:
    assert f"An entry is charged {ENTRY} octets" in COURSE
    assert f"a session {SESSION} besides its id" in COURSE


def test_what_may_wait_for_clients_that_do_not_read_is_what_it_says() -> None:
    each, together = Limits().high_water >> 10, UNSENT >> 20
    assert f"at most {each} KiB for each client, and {together} MiB" in " ".join(COURSE.split())


# --- links -----------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """What the headings of a Markdown text can be linked by."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


LINKS = sorted(
    (page.relative_to(ROOT).as_posix(), link)
    for page, text in TEXTS.items()
    for link in set(re.findall(r"\]\((?!https?://)([^)]+)\)", text))
)


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_a_link_leads_somewhere(page: str, link: str) -> None:
    path, _, anchor = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    assert target.exists()
    if target.is_dir():
        assert not anchor
    elif anchor and target.suffix == ".md":
        assert anchor in anchors(target.read_text())


@pytest.mark.parametrize("page", [page.relative_to(ROOT).as_posix() for page in PAGES])
def test_links_to_lines_and_the_table_of_pitfalls_are_up_to_date(page: str) -> None:
    text, nowhere = renewed(ROOT / page)
    assert not nowhere
    assert text == TEXTS[ROOT / page], "python -m tests.readme brings them up to date"


def test_the_line_of_a_name_is_that_of_its_def_below_any_decorator(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text(
        "class A:\n    @property\n    # why\n    def b(self): ...\nif 1:\n    C: int = 1\n"
    )
    assert [line_of(source, name) for name in ("A", "A.b", "C")] == [1, 4, 6]
    with pytest.raises(LookupError):
        line_of(source, "b")


def test_every_page_leads_to_every_other() -> None:
    for page, text in TEXTS.items():
        linked = {(page.parent / link).resolve() for link in re.findall(r"\]\(([\w./]+\.md)", text)}
        assert linked >= set(PAGES) - {page}, page


def sentences(text: str) -> list[str]:
    """The sentences of a Markdown text: its prose and lists, without code and tables."""
    text = re.sub(r"^```.*?^```|^\|.*?$|<!--.*?-->|^#.*?$", "\n\n", text, flags=re.M | re.S)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    paragraphs = re.split(r"\n\s*\n|^ *(?:-|\d+\.) ", text, flags=re.M)
    return [
        s for p in paragraphs for s in re.split(r"(?<=[.?!:])[*)]*\s+", " ".join(p.split())) if s
    ]


@pytest.mark.parametrize("page", [*(str(page.relative_to(ROOT)) for page in PAGES), "protocol.md"])
def test_no_sentence_has_more_than_thirty_words(page: str) -> None:
    text = re.sub(r"^ {4}.*$", "", (ROOT / page).read_text(), flags=re.M)  # drawings, octets
    assert not [s for s in sentences(text) if len(s.split()) > 30]


def docstrings(path: Path) -> Iterator[str]:
    """The docstrings of a module and of all in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


@pytest.mark.parametrize("path", sorted((ROOT / "kv").rglob("*.py")), ids=lambda path: path.stem)
def test_no_sentence_of_a_docstring_has_more_than_thirty_words(path: Path) -> None:
    prose = [re.sub(r"^    .*$", "", text, flags=re.M) for text in docstrings(path)]
    assert not [s for text in prose for s in sentences(text) if len(s.split()) > 30]


@pytest.mark.parametrize("entry", gallery(), ids=lambda entry: str(entry.number))
def test_a_pitfall_is_told_in_short_sentences_and_says_what_one_sees(entry: Entry) -> None:
    assert not [s for s in sentences(entry.situation) if len(s.split()) > 30]
    assert "\n\nWhat you see: " in entry.situation


def test_the_front_page_is_read_in_five_minutes() -> None:
    assert len(README.splitlines()) <= 200
    assert len(re.findall(r"[^\s|]+", README)) <= 1150


def test_every_pitfall_is_in_one_group() -> None:
    members = [entry.number for group in grouped(gallery()).values() for entry in group]
    assert sorted(members) == [entry.number for entry in gallery()]


def test_every_pitfall_is_found_by_what_one_sees() -> None:
    index = TEXTS[ROOT / "tests/pitfalls/README.md"].partition("## By subject")[0]
    assert not [entry.number for entry in gallery() if f"[{entry.number}](" not in index]


def test_every_pitfall_that_a_comment_names_is_in_the_gallery_once() -> None:
    numbers = [entry.number for entry in gallery()]
    assert numbers == sorted(set(numbers))
    source = "".join(path.read_text() for path in (ROOT / "kv").rglob("*.py"))
    named = {int(number) for number in re.findall(r" \(([1-9]\d?)\)", source)}
    assert named <= set(numbers)


def test_every_module_is_on_the_map() -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "kv").rglob("*.py")}
    modules = {path for path in modules if not path.endswith("__init__.py")}
    assert modules == {f"kv/{path}" for path in re.findall(r"^\| \[kv/.*\]\((.*)\)", COURSE, re.M)}


# --- commands --------------------------------------------------------------------------------


def blocks() -> list[tuple[str, list[str]]]:
    """Every command in a console block, and the lines that are shown below it."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```", "\n".join(TEXTS.values()), re.M | re.S):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


ENDLESS = [command for command, _ in blocks() if command.endswith("# until Ctrl-C")]
CLIENTS = [(command, shown) for command, shown in blocks() if "run-client" in command]
EXERCISES = [(command, shown) for command, shown in blocks() if "mine.py" in command]
SHOWN = [*ENDLESS, *(command for command, _ in CLIENTS + EXERCISES)]
OTHERS = {
    f"{command} {SHORTER.get(command, '')}".rstrip(): None  # each once, whatever pages show it
    for command in (c.partition("#")[0].rstrip() for c, _ in blocks() if c not in SHOWN)
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as after the first `make`, its .venv this interpreter, its port a free one."""
    path = tmp_path_factory.mktemp("clone")
    for name in ("kv", "tests", "requirements.txt"):
        (path / name).symlink_to(ROOT / name)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    (path / "Makefile").write_text(MAKEFILE.replace("PORT := 4242", f"PORT := {port}"))
    python = path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    inputs = f"{sys.executable}\n{(ROOT / 'requirements.txt').read_text()}"
    (path / ".venv" / "made-from").write_text(inputs)
    return path


OUTPUT = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
#: As in a shell, even when `make test` runs the tests.
ENVIRONMENT = {name: value for name, value in os.environ.items() if "MAKE" not in name}


def start(clone: Path, command: str, **standard: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["sh", "-c", f"exec {command}"],
        cwd=clone,
        env=ENVIRONMENT,
        text=True,
        start_new_session=True,
        **{"stdin": subprocess.DEVNULL, **OUTPUT, **standard},
    )


def end(process: subprocess.Popen[str]) -> None:
    """Ends whatever is left of a command: make, and what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.fixture
def endless(clone: Path, request: Any) -> Iterator[subprocess.Popen[str]]:
    """A command that runs until it is told to stop, and does so with status 0."""
    process = start(clone, getattr(request, "param", ENDLESS[0]))
    try:
        assert process.stdout is not None
        assert "listening on 127.0.0.1:" in process.stdout.readline()
        yield process
        process.terminate()
        assert process.wait(patience()) is not None
    finally:
        end(process)


pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.mark.parametrize("endless", ENDLESS, indirect=True)
def test_a_command_that_runs_until_it_is_stopped(endless: subprocess.Popen[str]) -> None:
    assert endless.poll() is None


def without_place(text: str) -> str:
    """What make says of a failure, as versions before 4.0 say it."""
    return re.sub(r"\[Makefile:\d+: ", "[", text)


def run(clone: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command that ends by itself."""
    words = ["sh", "-c", command]
    return subprocess.run(
        words, cwd=clone, env=ENVIRONMENT, text=True, timeout=patience(3), **OUTPUT
    )


def assert_shows(clone: Path, command: str, shown: list[str]) -> None:
    """A command says what the page shows below it."""
    said = without_place(run(clone, command).stdout).splitlines()
    assert said == [without_place(line) for line in shown]


@pytest.mark.parametrize(("command", "shown"), [(c, s) for c, s in CLIENTS if "|" in c])
def test_a_script_prints_what_is_shown(
    clone: Path, endless: subprocess.Popen[str], command: str, shown: list[str]
) -> None:
    assert_shows(clone, command, shown)


@pytest.mark.parametrize(("command", "shown"), [(c, s) for c, s in CLIENTS if "|" not in c])
def test_a_person_sees_what_is_shown(
    clone: Path, endless: subprocess.Popen[str], command: str, shown: list[str]
) -> None:
    master, slave = os.openpty()
    with open(master, "r+b", buffering=0) as terminal:
        client = start(clone, command, stdin=slave, stdout=slave, stderr=slave)
        try:
            seen, read = "", 0
            for line in shown:
                prompt = re.match("(?:kv|value)> ", line)
                if prompt is None:
                    continue
                while prompt[0] not in seen[read:]:
                    assert select.select([terminal], [], [], patience())[0], seen
                    seen += terminal.read(4096).decode().replace("\r\n", "\n")
                read = len(seen)
                terminal.write(line[prompt.end() :].encode() + b"\n")
            assert client.wait(patience()) == 0
            while select.select([terminal], [], [], 0)[0]:
                seen += terminal.read(4096).decode().replace("\r\n", "\n")
        finally:
            os.close(slave)
            end(client)
    seen = re.sub(r"(?<=127\.0\.0\.1:)\d+ as '[^']+'", "4242 as 'alice-4711-9f3c2b1a'", seen)
    assert seen.splitlines() == shown


@pytest.mark.parametrize("command", OTHERS)
def test_any_other_command_ends_well(clone: Path, command: str) -> None:
    if "trace.json" in command:  # left by an earlier command, that ran until Ctrl-C
        trace = start(clone, ENDLESS[-1])
        try:
            assert trace.stdout is not None and "listening" in trace.stdout.readline()
            trace.terminate()
            trace.wait(patience())
        finally:
            end(trace)
    done = run(clone, command)
    assert done.returncode == 0, done.stdout
    if command.startswith("make demo"):
        for part in ("'carol'", "took none of its replies", " of 16384", "alice"):
            assert part in done.stdout


def test_an_exercise_is_started_and_marked_as_shown(clone: Path) -> None:
    assert len(EXERCISES) == 2
    for command, shown in EXERCISES:
        assert_shows(clone, command, shown)


def test_the_library_example_runs(endless: subprocess.Popen[str], clone: Path) -> None:
    port = re.search(r"^PORT := (\d+)", (clone / "Makefile").read_text(), re.M)
    assert port is not None
    (example,) = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
    source = example.replace("4242", port[1])
    done = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "blue blue None False\n[True, '1', True]\n", done.stderr


def test_what_is_said_of_make_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M))
    variables = set(re.findall(r"^([A-Z]+) :=", MAKEFILE, re.M))
    said = re.findall(r"`make\s+([a-z-]+)((?:\s+[A-Z]+=[^\s`]+)*)", "\n".join(TEXTS.values()))
    assert said and {target for target, _ in said} <= targets
    assert {name for _, rest in said for name in re.findall(r"([A-Z]+)=", rest)} <= variables
