"""What the README says of the code is so."""

import argparse
import re
from typing import Any

import pytest
from conftest import ROOT

from kv.__main__ import parser
from kv.store import ENTRY, SESSION

README = (ROOT / "README.md").read_text()


def options(role: str) -> dict[str, argparse.Action]:
    """The options of the server or the client, by name."""
    roles: Any = next(a for a in parser()._actions if isinstance(a.choices, dict))
    actions = roles.choices[role]._actions
    return {action.option_strings[-1]: action for action in actions if action.dest != "help"}


def test_the_servers_options_and_defaults_are_those_of_the_table() -> None:
    table = dict(re.findall(r"^\| `(--[a-z-]+) [A-Z]+` \| (\S+) \|", README, re.M))
    assert table == {name: str(action.default) for name, action in options("server").items()}


def test_the_client_has_the_first_four_and_those_that_are_named() -> None:
    own = set(options("client")) - set(options("server"))
    assert own == {"--id", "--timeout", "--raw"}
    assert all(f"`{name}`" in README for name in own)


def test_what_an_entry_and_a_session_are_charged_is_what_it_says() -> None:
    assert f"An entry is charged {ENTRY} octets" in README
    assert f"a session {SESSION} besides its id" in README


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README))
def test_a_link_leads_to_a_file(link: str) -> None:
    assert (ROOT / link).is_file()


def test_every_module_is_on_the_map() -> None:
    modules = {path.name for path in (ROOT / "kv").glob("*.py")} - {"__init__.py"}
    assert modules == set(re.findall(r"^\| \[kv/.*\]\(kv/(\w+\.py)\)", README, re.M))
