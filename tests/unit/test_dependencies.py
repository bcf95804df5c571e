"""What is imported is declared in pyproject.toml, not left to what other packages happen to require."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = {"statemachine", "worker", "tests", "_typeshed"}


def name(requirement: str) -> str:
    """The normalized name of a requirement's project."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


def imported(path: Path) -> set[str]:
    """The top-level modules that a file imports, but for the standard library's and ours."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            found.add(node.module)
    return {module.split(".")[0] for module in found} - sys.stdlib_module_names - OURS


@pytest.mark.parametrize(
    ("folder", "extras"),
    [("statemachine", ()), ("worker", ("tracing",)), ("deploy", ("dev",)), ("tests", ("bench", "dev", "tracing"))],
)
def test_every_import_is_declared(folder: str, extras: tuple[str, ...]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    given = [
        *project["dependencies"],
        *(each for extra in extras for each in project["optional-dependencies"][extra]),
    ]
    declared, distributions = {name(each) for each in given}, packages_distributions()
    missing = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in (ROOT / folder).rglob("*.py")
        for module in imported(path)
        if declared.isdisjoint(map(name, distributions.get(module, ())))
    }
    assert missing == set()


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {name(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    given = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    assert {name(each) for each in given} - pinned - {project["name"]} == set()
