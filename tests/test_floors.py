"""The plan of the house: imports go strictly downwards, and into a function only for what is optional."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = [  # from the ground up; a module belongs to the longest prefix that fits
    ["netrun.version", "netrun.errors"],
    ["netrun.config"],
    ["netrun.types", "netrun.expression", "netrun.random", "netrun.kernels", "netrun.program", "netrun.device",
     "netrun.log", "netrun.storage"],
    ["netrun.formula"],
    ["netrun.cpu", "layers_cuda"],
    ["netrun.data", "netrun.fillers", "netrun.updates", "netrun.schedule"],
    ["netrun.layers"],
    ["netrun.compiler"],
    ["netrun.session", "netrun.shortage", "netrun.loss_scale", "netrun.params", "netrun.runner", "netrun.training",
     "netrun.snapshot", "netrun.debug", "netrun.varying", "netrun.whole", "netrun.visible", "netrun.blob",
     "netrun.names", "netrun.forms", "netrun.lean", "netrun.engine", "netrun.predict", "netrun.solver",
     "netrun.solver_nets", "netrun.net", "netrun.net_solver", "netrun.netspec", "netrun.deploy", "netrun.decode",
     "netrun.draw", "netrun.draw_layout", "netrun.draw_png", "netrun.images", "netrun.recipe", "netrun.sparse",
     "netrun.gradcheck", "netrun.homes", "netrun.memory", "netrun.losses", "netrun.display",
     "netrun.feeding", "netrun.beam", "netrun"],
    ["netrun.pycaffe"],
    ["netrun.cli", "netrun.__main__"],
]  # fmt: skip

APART = [("netrun.cpu", "layers_cuda"), ("netrun.cpu", "netrun.layers"), ("layers_cuda", "netrun.config")]
"""Pairs that never see each other though the floors would allow it (devices know neither schema nor layers)."""

DEVICES_SEE = {"netrun.types", "netrun.expression", "netrun.random", "netrun.kernels", "netrun.program",
               "netrun.device", "netrun.errors", "netrun.storage"}  # fmt: skip

OPTIONAL = {"h5py", "PIL", "plyvel", "cupy", "grpc_tools", "yaml"}


def modules() -> Iterator[tuple[str, Path]]:
    for package in ("netrun", "layers_cuda"):
        for file in sorted((ROOT / package).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


def floor(module: str) -> int:
    best = (-1, -1)
    for level, prefixes in enumerate(FLOORS):
        for prefix in prefixes:
            exact = prefix == "netrun"  # the package itself, not everything in it
            if module == prefix or (not exact and module.startswith(prefix + ".")):
                best = max(best, (len(prefix), level))
    return best[1]


@cache
def imports(module: str, file: Path) -> list[tuple[str, ast.AST, bool]]:
    """Modules imported, and whether inside a function. Imports for type checking alone do not count."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    found: list[tuple[str, ast.AST, bool]] = []
    waiting: list[tuple[ast.AST, bool]] = [(ast.parse(file.read_text()), False)]
    while waiting:
        node, inside = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting += ((child, inside) for child in node.orelse)
            continue
        if isinstance(node, ast.Import):
            found += ((a.name, node, inside) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{name}.{alias.name}"
                found.append((full if full in KNOWN else name, node, inside))
        elif not isinstance(node, ast.expr):  # no statement stands in an expression
            function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            waiting += ((child, inside or function) for child in ast.iter_child_nodes(node))
    return found


KNOWN = {name for name, _ in modules()}


@pytest.mark.parametrize(("module", "file"), list(modules()), ids=lambda v: v if isinstance(v, str) else "")
def test_imports_go_downwards(module: str, file: Path) -> None:
    level = floor(module)
    assert level >= 0, f"{module} stands on no floor: give it a place in FLOORS"
    for name, node, inside in imports(module, file):
        where = f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)} imports {name}"
        if inside:
            cli = module.startswith("netrun.cli") or module == "netrun.__main__"
            assert name.split(".")[0] in OPTIONAL or cli, f"{where} inside a function"
        if not name.startswith(("netrun", "layers_cuda")):
            continue
        assert name.split(".")[0] != "layers_cuda" or module.startswith("layers_cuda"), f"{where}: found by name alone"
        same_room = module.rpartition(".")[0] == name.rpartition(".")[0] or name.startswith(module + ".")
        assert floor(name) < level or (floor(name) == level and _same_package(module, name, same_room)), where
        for a, b in APART:
            assert not (module.startswith(a) and name.startswith(b)), f"{where}: they never see each other"
        if module.startswith(("netrun.cpu", "layers_cuda")) and not name.startswith(("netrun.cpu", "layers_cuda")):
            assert name in DEVICES_SEE, f"{where}: devices know kernels and nothing above"


def _same_package(a: str, b: str, same_room: bool) -> bool:
    return same_room or a.split(".")[:2] == b.split(".")[:2]


def test_there_is_no_cycle() -> None:
    graph = {module: {n for n, _, inside in imports(module, file) if n in KNOWN and not inside} - {module}
             for module, file in modules()}  # fmt: skip
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        if module in done:
            return
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        for other in graph[module]:
            if not module.startswith(other + "."):  # a package is loaded before what is in it, whoever asks
                walk(other, (*path, module))
        done.add(module)

    for module in graph:
        walk(module, ())


def test_the_rules_can_fail() -> None:
    assert floor("netrun.cpu.fast") < floor("netrun.layers.pool") < floor("netrun.solver") < floor("netrun.cli.train")
    assert floor("netrun.unheard_of") == -1
