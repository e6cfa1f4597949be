"""The two halves of the house do not know each other; this reads their imports."""

import ast
from pathlib import Path

import pytest

KV = Path(__file__).resolve().parent.parent / "kv"

#: The rooms that stand above the folders and join them.
JOINS = {
    "__init__",
    "__main__",
    "caller",
    "client",
    "connection",
    "link",
    "options",
    "owner",
    "process",
    "screen",
    "server",
    "shell",
    "typed",
}

OUTSIDE_WORLD = {
    *("datetime", "io", "os", "pathlib", "select", "selectors", "shutil", "signal", "socket"),
    *("socketserver", "ssl", "sys", "tempfile", "time"),
}
OTHER_WAYS = {"_thread", "asyncio", "concurrent", "multiprocessing", "subprocess", "threading"}
RSA = {"pyasn1", "rsa"}

MODULES = sorted(
    path.relative_to(KV).with_suffix("").as_posix().replace("/", ".") for path in KV.rglob("*.py")
)
FOLDERS = ("net", "protocol", "registry", "watch")


def inside(folder: str) -> list[str]:
    """The modules of a folder, itself included."""
    return [module for module in MODULES if module.split(".")[0] == folder]


def imports(source: str) -> set[str]:
    """What `source` imports, anywhere in it: `rsa` for `rsa.key`, modules of kv in full."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, ["kv" if node.level else "", node.module]))
            names.add(module)
            if module.split(".")[0] == "kv":  # what is named may be a module, too
                names |= {f"{module}.{alias.name}" for alias in node.names}
    return {name if name.split(".")[0] == "kv" else name.split(".")[0] for name in names}


def imports_of(module: str) -> set[str]:
    return imports(KV.joinpath(*module.split(".")).with_suffix(".py").read_text())


def of_kv(names: set[str]) -> set[str]:
    """The modules of kv/ among `names`, packages left out."""
    return {name.removeprefix("kv.") for name in names if name.split(".")[0] == "kv"} & set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_its_place_in_the_house(module: str) -> None:
    assert module in JOINS | {"errors"} or module.split(".", maxsplit=1)[0] in FOLDERS


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_says_what_may_live_there(folder: str) -> None:
    text = (KV / folder / "__init__.py").read_text()
    assert "What may live here" in text and "What must not" in text


@pytest.mark.parametrize("module", inside("net"))
def test_net_knows_nothing_of_keys_values_or_rsa(module: str) -> None:
    assert of_kv(imports_of(module)) <= set(inside("net"))


@pytest.mark.parametrize("module", inside("protocol"))
def test_protocol_knows_nothing_of_sockets_selectors_or_clocks(module: str) -> None:
    assert of_kv(imports_of(module)) <= {*inside("protocol"), "errors"}
    assert not imports_of(module) & OUTSIDE_WORLD


@pytest.mark.parametrize("module", inside("registry"))
def test_the_registry_knows_nothing_of_the_protocol(module: str) -> None:
    assert of_kv(imports_of(module)) <= {*inside("registry"), *inside("net"), "errors"}
    assert module == "registry.registry" or not imports_of(module) & OUTSIDE_WORLD


@pytest.mark.parametrize("module", set(MODULES) - set(inside("watch")) - {"__main__"})
def test_nothing_knows_that_it_is_watched(module: str) -> None:
    assert not of_kv(imports_of(module)) & set(inside("watch"))


@pytest.mark.parametrize("module", MODULES)
def test_only_the_cipher_imports_rsa(module: str) -> None:
    assert module == "protocol.cipher" or not imports_of(module) & RSA


@pytest.mark.parametrize("module", MODULES)
def test_nothing_runs_beside_the_one_thread(module: str) -> None:
    assert not imports_of(module) & OTHER_WAYS


def test_there_is_something_to_read() -> None:
    assert {"net.reactor", "net.stream", "protocol.cipher", "protocol.store"} <= set(MODULES)
    assert "rsa" in imports_of("protocol.cipher")


@pytest.mark.parametrize(
    "source",
    [
        "import kv.protocol.cipher",
        "import kv.protocol.cipher as c",
        "from kv.protocol.cipher import PublicKey",
        "from kv.protocol import cipher",
        "def f():\n    from kv.protocol.cipher import PublicKey",
        "if TYPE_CHECKING:\n    from kv.protocol import messages, cipher",
    ],
)
def test_no_way_of_importing_goes_unseen(source: str) -> None:
    assert "kv.protocol.cipher" in imports(source)


@pytest.mark.parametrize("module", MODULES)
def test_imports_within_the_house_are_absolute(module: str) -> None:
    source = KV.joinpath(*module.split(".")).with_suffix(".py").read_text()
    assert not any(
        isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(ast.parse(source))
    )


def test_a_submodule_counts_as_its_package() -> None:
    assert imports("import rsa.key\nfrom concurrent.futures import Future") == {"rsa", "concurrent"}
