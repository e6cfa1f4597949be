"""`pip install ./kv`: what another project gets, and that it is typed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Server
from wire import new_id

PROGRAM = '''
"""A small program of somebody else's."""

from kv import Client, PrivateKey, PutRefused


def use(port: int, client_id: str) -> tuple[str | None, list[str | bool | None]]:
    """Stores and asks."""
    with Client(port=port, client_id=client_id, key=PrivateKey.generate()) as kv:
        try:
            kv.put("colour", "blue")
        except PutRefused as refused:
            print(refused)
        value: str = kv.get("colour", "none")
        length: int = len(value)
        assert length == 4 and not kv.closed
        return kv.get("size"), kv.pipeline().put("a", "1").get("a").execute()


def wrong() -> int:
    """What mypy must find."""
    return Client(client_id="x").get("colour")
'''


def run(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if "PYTHON" not in name}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=environment, **options
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment into which kv was installed."""
    directory = tmp_path_factory.mktemp("elsewhere")
    made = run(sys.executable, "-m", "venv", "--without-pip", str(directory / "venv"))
    python = directory / "venv" / "bin" / "python"
    if made.returncode:
        pytest.skip("no environment can be made here: " + made.stdout.splitlines()[-1])
    pip = [sys.executable, "-m", "pip", f"--python={python}", "install", "--quiet", "--no-input"]
    before = listed()
    done = run(*pip, "--retries=1", str(ROOT / "kv"))
    if done.returncode and run(*pip, "--retries=0", "--dry-run", "rsa").returncode:
        pytest.skip("pip finds no index here")
    assert done.returncode == 0, done.stderr
    assert listed() == before, "building leaves something behind"
    return python


def listed() -> list[str]:
    """What is in the directory that the package is built from."""
    paths = [path for path in (ROOT / "kv").rglob("*") if "__pycache__" not in path.parts]
    return sorted(map(str, paths))


def test_the_installed_package_works_and_has_its_parts(
    installed: Path, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    code = (
        "import pathlib, kv, kv.net.stream, kv.protocol.store, kv.watch.trace, program\n"
        "assert pathlib.Path(kv.__file__).with_name('py.typed').exists()\n"
        f"print(program.use({server.port}, {new_id()!r}))\n"
    )
    done = run(str(installed), "-c", code, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("(None, [True, '1'])\n", "")


def test_the_installed_programs_say_which_version_they_are(installed: Path, tmp_path: Path) -> None:
    code = "import importlib.metadata; print('kv', importlib.metadata.version('kv'))"
    version = run(str(installed), "-c", code, cwd=tmp_path).stdout
    assert version.startswith("kv ")
    assert run(str(installed), "-m", "kv", "--version", cwd=tmp_path).stdout == version


def test_it_is_typed_for_whoever_uses_it(installed: Path, tmp_path: Path) -> None:
    mypy = shutil.which("mypy", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if mypy is None:
        pytest.skip("mypy is not installed (make lint does that)")
    (tmp_path / "program.py").write_text(PROGRAM)
    cache = f"--cache-dir={tmp_path / 'cache'}"
    done = run(
        mypy, "--strict", cache, f"--python-executable={installed}", "program.py", cwd=tmp_path
    )
    found = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len(found) == 1 and 'got "str | None", expected "int"' in found[0], done.stdout
