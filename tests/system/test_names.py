"""Public names are unique, and descriptions keep the rules of CONTRIBUTING.md."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from pydantic import BaseModel

from tests.helpers.repository import ROOT

PACKAGES = ("data_catalog", "pipeline", "trainer", "flows")
LARGEST_SHARED_SHARE = 0.015  # of the public names, those defined in more than one module
EXEMPT = {
    *("VERSION", "logger"),  # one per stage of a build, one per module that logs
    *("add", "app", "build", "demo", "plan", "query", "report", "serve", "train", "verify"),
}  # and what a user calls a command or a flow

OPENINGS = ("What", "Which", "How", "Whether", "Where", "Of", "Or")
DIALECT = (
    r"passed over",
    r"goes on",
    r"go on",
    r"so many",
    r"is told",
    r"are told",
    r"it is said",
    r"of it\b",
    r"drawn without return",
    r"at the most",
    r"in vain",
    r"no more than that",
)


def modules(package: str) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        yield name, ast.parse(path.read_text(encoding="utf-8"))


def defined_names(module: ast.Module) -> Iterator[str]:
    """Yield the functions, classes and constants that a module defines at its top level."""
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def shared_names() -> tuple[int, dict[str, list[str]]]:
    """Return the number of public names, and the modules of each that several define."""
    places = defaultdict(set)
    for package in PACKAGES:
        for module, tree in modules(package):
            for name in defined_names(tree):
                if not name.startswith("_") and name not in EXEMPT:
                    places[name].add(module)
    return len(places), {name: sorted(at) for name, at in places.items() if len(at) > 1}


def descriptions(package: str) -> Iterator[tuple[str, str]]:
    """Yield where a docstring or a field's description stands, and its text."""
    for module, tree in modules(package):
        for node in ast.walk(tree):
            if isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ) and (text := ast.get_docstring(node)):
                yield f"{module}.{getattr(node, 'name', '')}", text
            if isinstance(node, ast.ClassDef):  # attribute docstrings describe fields
                for before, after in zip(node.body, node.body[1:], strict=False):
                    if (
                        isinstance(before, ast.AnnAssign)
                        and isinstance(after, ast.Expr)
                        and isinstance(after.value, ast.Constant)
                        and isinstance(after.value.value, str)
                    ):
                        field = f"{node.name}.{ast.unparse(before.target)}"
                        yield f"{module}.{field}", after.value.value


def faults_of_english(package: str) -> list[str]:
    opening = re.compile(rf"(?:{'|'.join(OPENINGS)})\b")
    dialect = re.compile("|".join(DIALECT), re.IGNORECASE)
    faults = []
    for place, text in descriptions(package):
        if opening.match(text):
            faults.append(f"{place}: opens with {text.split()[0]!r}")
        if word := dialect.search(text):
            faults.append(f"{place}: says {word[0]!r}")
    return faults


def test_public_names_are_unique() -> None:
    names, shared = shared_names()
    lines = "\n".join(f"{name}: {', '.join(at)}" for name, at in sorted(shared.items()))
    assert len(shared) <= LARGEST_SHARED_SHARE * names, (
        f"{len(shared)} of {names} names are defined in several modules\n{lines}"
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_descriptions_are_plain_english(package: str) -> None:
    faults = faults_of_english(package)
    assert faults == []


def test_every_field_of_a_config_has_a_description() -> None:
    for module, name in (("pipeline.config", "Build"), ("trainer.config", "Train")):
        model: type[BaseModel] = getattr(import_module(module), name)
        assert [key for key, field in model.model_fields.items() if not field.description] == []


STAGES = sorted(
    str(path.relative_to(ROOT))
    for package in ("data_catalog", "pipeline", "trainer")
    for path in (ROOT / package).rglob("*.py")
    if re.search(r"^VERSION = ", path.read_text(encoding="utf-8"), re.MULTILINE)
)


@pytest.mark.parametrize("path", STAGES)
def test_each_version_of_a_stage_has_a_line(path: str) -> None:
    lines = Path(ROOT / path).read_text(encoding="utf-8").splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("VERSION = "))
    version = int(lines[at].split("=")[1].split("#")[0])
    above = lines[at - version : at]
    assert [line.split(":")[0] for line in above] == [f"# {n}" for n in range(1, version + 1)]


def test_the_stages_with_a_version_are_found() -> None:
    assert len(STAGES) >= 13
