"""Pitfalls as exercises: a file to start with, and a check of what the learner made of it.

The file has the usual code, under the same names, and the learner changes it. Then the scenario of
the pitfall runs with the functions of that file in place of this project's own. In the gallery it
runs with the usual code in the same way. The files in `kv/` are not touched.
"""

import ast
import importlib.util
import inspect
import sys
import textwrap
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from .gallery import Entry
from .pitfall import ATTEMPT, Failure, Pitfall, mistakes

#: Seconds after which an attempt counts as hanging.
PATIENCE = 3.0
NO_CODE = "pitfall {} has no usual code: there is only an explanation"


def ways(entry: Entry) -> list[type[Pitfall]]:
    """The ways that have usual code."""
    return [way for way in entry.ways if way.naive]


def wanted(way: type[Pitfall]) -> dict[str, str]:
    """What stands for each name that is replaced: the name in the learner's file."""
    return {
        name: usual.__name__ if named(usual) else name.rpartition(".")[2]
        for name, usual in way.naive.items()
    }


def named(code: Any) -> bool:
    """Whether it is a function that was made with `def`."""
    return inspect.isfunction(code) and code.__name__ != "<lambda>"


# --- the file to begin with ------------------------------------------------------------------


def start(entry: Entry, path: Path) -> str:
    """The file to begin with, which will be at `path`."""
    module = inspect.getmodule(entry.ways[0])
    assert module is not None
    tree = ast.parse(inspect.getsource(module))
    head = [
        f"# {entry.number}. {entry.title}",
        "#",
        comment(entry.situation),
        "#",
        "# Below is the usual code. Change it so that it holds. Then:",
        f"#     make pitfalls N={entry.number} TRY={path}",
    ]
    parts = ["\n".join(head)]
    tasks = [task for way in ways(entry) for task in usual(way, tree)]
    parts.append("\n".join(imports(module, tree, [code for _, code in tasks])))
    parts += [f"{text}\n{code}" for text, code in tasks]
    return "\n\n\n".join(filter(None, parts)) + "\n"


def comment(text: str) -> str:
    """`text` as lines of comment."""
    return textwrap.fill(" ".join(text.split()), 98, initial_indent="# ", subsequent_indent="# ")


def usual(way: type[Pitfall], tree: ast.Module) -> Iterator[tuple[str, str]]:
    """For each name that is replaced: what it is, and the usual code."""
    (body,) = (
        node.body
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == way.__name__
    )
    values = {
        ast.literal_eval(key): value
        for node in body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        for key, value in zip(node.value.keys, node.value.values, strict=True)
        if key is not None
    }
    for name, own in wanted(way).items():
        told = f"In place of {name}. The scenario: {' '.join((way.__doc__ or '').split())}"
        told += f" What happens with this: {way.usually}."
        code = way.naive[name]
        if named(code):
            yield comment(told), inspect.getsource(code).rstrip()
        else:
            yield comment(told), f"{own} = {ast.unparse(values[name])}"


def imports(module: ModuleType, tree: ast.Module, code: list[str]) -> Iterator[str]:
    """What `code` uses of the gallery's file: what that imports itself, and its own helpers."""
    used = {n.id for text in code for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)}
    used -= {word for text in code for word in defined(ast.parse(text).body)}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            node.names = [each for each in node.names if (each.asname or each.name) in used]
            if node.names:
                yield ast.unparse(node).replace("from .", f"from {module.__package__}.")
    helpers = sorted(used & set(defined(tree.body)))
    if helpers:
        yield f"from {module.__name__} import {', '.join(helpers)}"


def defined(body: list[ast.stmt]) -> Iterator[str]:
    """The names that statements give to what they define."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


# --- the attempt -----------------------------------------------------------------------------


def load(path: Path) -> Any:
    """The learner's file, as a module. Raises whatever it raises."""
    spec = importlib.util.spec_from_file_location(ATTEMPT, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file: its name has to end in .py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def attempt(way: type[Pitfall], module: Any, patience: float = PATIENCE) -> tuple[bool, str]:
    """Whether the code in `module` holds, and what happened."""
    missing = [own for own in wanted(way).values() if not hasattr(module, own)]
    if missing:
        return False, f"the file has no `{missing[0]}`"
    instead = {name: getattr(module, own) for name, own in wanted(way).items()}
    with mistakes() as made:  # a connection's errors end it, and not the loop
        try:
            return True, way().run(instead, patience)
        except Failure as failure:
            last = f". The last error in the log: {shown(made[-1], module)}" if made else ""
            return False, f"{failure}{last}"
        except Exception as error:
            return False, shown(error, module)


def shown(error: BaseException, module: Any) -> str:
    """An exception, and the line of the learner's file that it came through last."""
    told = "".join(traceback.format_exception_only(error)).strip()
    places = list(traceback.extract_tb(error.__traceback__))
    own = [frame for frame in places if frame.filename == module.__file__]
    if own:
        return f"{told} (line {own[-1].lineno} of the file: {own[-1].line})"
    last = places[-1] if places else None
    return f"{told} (in {last.name})" if last else told


# --- what the command does -------------------------------------------------------------------


def write(entry: Entry, path: Path) -> int:
    """Writes the file to start with. Returns 1 if that is not possible."""
    if not ways(entry):
        print(NO_CODE.format(entry.number), file=sys.stderr)
        return 1
    try:
        with open(path, "x") as file:
            file.write(start(entry, path))
    except OSError as error:
        print(f"{path}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"{path} has the usual code. Make it hold, and then:")
    print(f"make pitfalls N={entry.number} TRY={path}")
    return 0


def mark(entry: Entry, path: Path) -> int:
    """Says whether the learner's file holds. Returns 1 if not."""
    if not ways(entry):
        print(NO_CODE.format(entry.number), file=sys.stderr)
        return 1
    try:
        module = load(path)
    except Exception as error:
        print("".join(traceback.format_exception_only(error)).strip(), file=sys.stderr)
        return 1
    print(f"{entry.number}. {entry.title}\n")
    all_hold = True
    for way in ways(entry):
        holds, told = attempt(way, module)
        all_hold = all_hold and holds
        print(textwrap.fill(" ".join((way.__doc__ or "").split()), 100))
        print(textwrap.fill(f"=> {'holds' if holds else 'does not hold'}: {told}", 100), end="\n\n")
    return 0 if all_hold else 1
