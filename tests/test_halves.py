"""The two halves of the house do not know each other; this reads their imports."""

import ast
from pathlib import Path

import pytest

KV = Path(__file__).resolve().parent.parent / "kv"

#: Non-blocking I/O: knows nothing of keys, values or RSA.
IO = {"address", "connector", "listener", "reactor", "stdio", "stream"}
#: Sans-I/O: knows nothing of sockets, selectors or clocks.
SANS_IO = {"cipher", "errors", "protocol", "store", "table"}
#: The rooms that join them.
JOINS = {"__init__", "__main__", "client", "link", "process", "server", "shell"}
#: What watches and draws: apart from everything else.
APART = {"timeline", "trace"}

OUTSIDE_WORLD = {
    *("datetime", "io", "os", "pathlib", "select", "selectors", "shutil", "signal", "socket"),
    *("socketserver", "ssl", "sys", "tempfile", "time"),
}
OTHER_WAYS = {"_thread", "asyncio", "concurrent", "multiprocessing", "subprocess", "threading"}
RSA = {"pyasn1", "rsa"}

MODULES = sorted(path.stem for path in KV.glob("*.py"))


def imports(source: str) -> set[str]:
    """What `source` imports, anywhere in it: `rsa` for `rsa.key`, `kv.cipher` in full."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, ["kv" if node.level else "", node.module]))
            of_package = module == "kv"
            names |= {f"kv.{a.name}" for a in node.names} if of_package else {module}
    return {".".join(name.split(".")[: 2 if name.startswith("kv.") else 1]) for name in names}


def imports_of(module: str) -> set[str]:
    return imports((KV / f"{module}.py").read_text())


def of_kv(names: set[str]) -> set[str]:
    """The modules of kv/ among `names`."""
    return {name.removeprefix("kv.") for name in names if name.split(".")[0] == "kv"}


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_its_place_in_the_house(module: str) -> None:
    assert module in IO | SANS_IO | JOINS | APART, (
        f"say in {__file__} which half kv/{module}.py is in"
    )


@pytest.mark.parametrize("module", [module for module in MODULES if module in IO])
def test_non_blocking_io_knows_nothing_of_keys_values_or_rsa(module: str) -> None:
    assert of_kv(imports_of(module)) <= IO


@pytest.mark.parametrize("module", [module for module in MODULES if module in SANS_IO])
def test_sans_io_knows_nothing_of_sockets_selectors_or_clocks(module: str) -> None:
    assert of_kv(imports_of(module)) <= SANS_IO
    assert not imports_of(module) & OUTSIDE_WORLD


@pytest.mark.parametrize("module", set(MODULES) - APART - {"__main__"})
def test_nothing_knows_that_it_is_watched(module: str) -> None:
    assert not of_kv(imports_of(module)) & APART


@pytest.mark.parametrize("module", MODULES)
def test_only_the_cipher_imports_rsa(module: str) -> None:
    assert module == "cipher" or not imports_of(module) & RSA


@pytest.mark.parametrize("module", MODULES)
def test_nothing_runs_beside_the_one_thread(module: str) -> None:
    assert not imports_of(module) & OTHER_WAYS


def test_there_is_something_to_read() -> None:
    assert {"reactor", "stream", "listener", "cipher", "protocol", "store", "table"} <= set(MODULES)
    assert "rsa" in imports_of("cipher")


@pytest.mark.parametrize(
    "source",
    [
        "import kv.cipher",
        "import kv.cipher as c",
        "from kv.cipher import PublicKey",
        "from kv import cipher",
        "from . import cipher",
        "from .cipher import PublicKey as K",
        "def f():\n    from kv.cipher import PublicKey",
        "if TYPE_CHECKING:\n    from kv import errors, cipher",
    ],
)
def test_no_way_of_importing_goes_unseen(source: str) -> None:
    assert "kv.cipher" in imports(source)


def test_a_submodule_counts_as_its_package() -> None:
    assert imports("import rsa.key\nfrom concurrent.futures import Future") == {"rsa", "concurrent"}
