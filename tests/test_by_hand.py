"""Section 15 of `protocol.md`: what is printed there is pasted into a bash, and it works.

The commands are used as they stand, the port apart; the comment behind each `hear` is what the
bash must print there.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from patience import patience

DOCUMENT = (Path(__file__).resolve().parent.parent / "protocol.md").read_text(encoding="utf-8")
MISSING = [program for program in ("bash", "openssl", "base64") if not shutil.which(program)]
ADDRESS = "HOST=127.0.0.1 PORT=4242\n"


def session() -> str:
    """All bash blocks of the section, one after the other."""
    by_hand = DOCUMENT.partition("\n## 15. By hand\n")[2]
    return "".join(re.findall(r"^```bash\n(.*?)^```$", by_hand, re.MULTILINE | re.DOTALL))


def promised() -> list[str]:
    """The replies that the section says `hear` prints."""
    return re.findall(r"; hear +# ?(.*)$", session(), re.MULTILINE)


def test_the_session_shows_every_command_and_says_what_is_heard() -> None:
    verbs = set(re.findall(r"^say '([A-Z]+)", session(), re.MULTILINE))
    assert verbs == {"CONNECT", "PUT", "GET", "DELETE", "DISCONNECT"}
    assert len(promised()) == len(re.findall(r"\bhear\b", session())) - 1, "one is its definition"
    assert max(map(len, promised())) > 53, "one value needs two blocks"
    assert session().count(ADDRESS) == 1


def test_the_commands_of_the_tables_are_those_of_the_session() -> None:
    commands = re.findall(r"`(openssl [^`]+)`", DOCUMENT)
    assert len(commands) == 4
    for command in commands:
        assert command in session()


@pytest.mark.skipif(bool(MISSING), reason=f"not on this machine: {', '.join(MISSING)}")
def test_the_session_by_hand_hears_what_the_document_says(server: Any, tmp_path: Path) -> None:
    script = session().replace(ADDRESS, f"HOST=127.0.0.1 PORT={server.port}\n")
    bash = subprocess.run(
        ["bash", "--norc", "--noprofile"],
        input=script,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=patience(3),
        check=False,
    )
    assert bash.stdout.splitlines() == promised(), bash.stderr
    assert bash.stderr == ""
    assert bash.returncode == 0
    assert not server.log_lines("dropped")
