"""Docstrings and bundled documentation of installed Python packages.

Every machine has this corpus. Packages are parsed and never imported.
"""

import ast
import gc
import importlib.metadata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from threading import Lock

from data_catalog.errors import UserError
from data_catalog.format.manifest import fingerprint
from pipeline.location import is_file_fault
from pipeline.source.config import AnySource, PythonDocs, Target
from pipeline.source.documents import Document, Fault, Input, Inventory, Shard, unit_hash
from pipeline.source.head import Head, head_of_documents
from pipeline.source.interface import Source
from pipeline.source.lines import text_fault
from pipeline.source.packages import (
    PROSE_ENDINGS,
    STDLIB,
    PackageFiles,
    locate_package,
    module_name,
    package_files,
    survey_package,
)
from pipeline.source.unread import unread_notes

DEFAULT_PACKAGES = (  # large and well documented; those not installed are skipped
    *("alembic", "beartype", "click", "datasets", "duckdb", "faiss", "fastapi", "fsspec"),
    *("huggingface_hub", "hypothesis", "jinja2", "mpmath", "narwhals", "networkx", "numpy"),
    *("pandas", "prefect", "pyarrow", "pydantic", "pygments", "redis", "rich", "scipy"),
    *("sentence_transformers", "setuptools", "sklearn", "sqlalchemy", "sympy", "torch"),
    *("transformers", "typer", "websockets", STDLIB),
)
_HEAD_DOCUMENTS = 16  # per package, for an estimate: parsing is slow
_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
# Python 3.11 counts the depth of the trees of all threads together, and fails if two are made at
# the same time ("AST constructor recursion depth mismatch").
_PARSER = Lock()
_DISTRIBUTIONS = Lock()  # one thread lists the installed distributions, and the others wait


class PythonDocsSource(Source[PythonDocs]):
    """The documentation of installed packages."""

    def plan(self) -> Inventory:
        """Return one shard per package, by name.

        A package may give a share of `max_documents` in proportion to its bytes of source. One
        with fewer documents leaves the rest of its share unused.

        Raises:
            UserError: A package in the config is not installed, or has no Python source.
        """
        section, places = self.section, {}
        for name in sorted(set(section.packages or DEFAULT_PACKAGES)):
            if (place := locate_package(name)) is not None:
                places[name] = place
            elif section.packages:
                raise UserError(
                    f"source.packages: {name} is not an installed package with Python source. "
                    "Install it or leave it out."
                )
        inputs = {name: _describe(name, place) for name, place in places.items()}
        size = sum(entry.bytes for entry in inputs.values())
        shards = [
            Shard(
                name=name,
                kind="python-docs",
                root=places[name].root,
                key=name,
                inputs=(entry,),
                quota=max(1, section.max_documents * entry.bytes // max(1, size)),
            )
            for name, entry in inputs.items()
        ]
        return Inventory(shards, self._notes(places.values()))

    def _notes(self, places: Iterable[PackageFiles]) -> list[Fault]:
        """Return notes on the files and folders of packages that are not read."""
        prefixes, share = self.reservations.modules, self.section.held_out_share
        unread: dict[str, list[str]] = defaultdict(list)
        for place in places:
            files, left_out = survey_package(place)
            for reason, labels in left_out.items():
                unread[reason] += labels
            unread["held_out"] += [
                place.label(path)
                for path in files
                if path.suffix == ".py" and _is_held_out(module_name(place, path), prefixes, share)
            ]
        return unread_notes(unread, ", ".join((".py", *PROSE_ENDINGS)))

    def read(self, shard: Shard) -> Iterator[Document | Fault]:
        """Yield a package's documents until the shard's quota is full.

        Files come in an order given by hashes. `doc_id` is `package/module.path:Qualified.name`
        for a docstring, without the colon for the module's own, and `package/path/of/file.rst` for
        a bundled text. `source` is the package. Files that are held out for targets are skipped.
        """
        place = locate_package(shard.key)
        if place is None:
            yield Fault(shard.key, None, "unreadable_file", "the package is no longer there")
            return
        prefixes, share = self.reservations.modules, self.section.held_out_share
        documents = _documents(
            shard.key, place, self.section, lambda module: not _is_held_out(module, prefixes, share)
        )
        yield from islice(documents, shard.quota)

    def choices(self) -> list[object]:
        """Return the minimum length and the held-out modules."""
        modules = list(self.reservations.modules)
        return [self.section.min_characters, self.section.held_out_share, modules]

    def size(self, shard: Shard) -> float:
        """Return the shard's quota of documents."""
        return float(shard.quota or 0)

    def read_head(self, shard: Shard) -> Head:
        """Return the first documents. A package that has more is assumed to fill its quota."""
        head = head_of_documents(self.read(shard), _HEAD_DOCUMENTS)
        documents = len(head.texts)
        records = (shard.quota or 0) if documents == _HEAD_DOCUMENTS else documents
        return Head(head.texts, head.languages, records, documents / max(records, 1))

    def caveats(self, shards: Sequence[Shard]) -> list[str]:  # noqa: ARG002
        """Return a sentence: packages may have fewer documents than their quotas."""
        return ["source.max_documents is a maximum. Packages may have fewer documents."]


def check_modules(target: Target, section: AnySource) -> PythonDocs:
    """Return the source section that a target's modules are held out of.

    Raises:
        UserError: The build's source is of another kind, or a package is not installed.
    """
    if not isinstance(section, PythonDocs):
        raise UserError(
            f"target {target.name}: modules can be held out of a source of kind "
            '"python-docs" only. Give a path or a dataset instead.'
        )
    for name in _packages(target):
        if locate_package(name) is None:
            raise UserError(
                f"target {target.name}: modules: {name} is not an installed package with Python "
                "source. Install it or name other modules."
            )
    return section


def read_modules(target: Target, section: AnySource) -> Iterator[tuple[str, Document | Fault]]:
    """Yield `(module, document)` for the held-out files of the modules that a target names.

    Raises:
        UserError: See `check_modules`.
    """
    source = check_modules(target, section)
    for name in _packages(target):
        if (place := locate_package(name)) is None:
            continue
        for path in package_files(
            place, lambda module: _is_held_out(module, target.modules, source.held_out_share)
        ):
            if path.suffix == ".py":
                module = module_name(place, path)
                for record in _docstrings(name, module, path, source.min_characters):
                    yield module, record


def _packages(target: Target) -> list[str]:
    return sorted({prefix.partition(".")[0] for prefix in target.modules})


def _is_held_out(module: str, prefixes: Sequence[str], share: float) -> bool:
    return (
        any(f"{module}.".startswith(f"{prefix}.") for prefix in prefixes)
        and unit_hash("held out", module) < share
    )


def _describe(name: str, place: PackageFiles) -> Input:
    """Return one identity for all files of a package.

    Its path holds a hash of their names and sizes, and its time is that of the latest change.
    """
    states = [(place.label(path), path.stat()) for path in package_files(place, lambda _: True)]
    names = fingerprint(sorted((path, state.st_size) for path, state in states))[:16]
    return Input(
        path=f"{name}@{names}",
        bytes=sum(state.st_size for path, state in states if path.endswith(".py")),
        modified_ns=max((state.st_mtime_ns for _, state in states), default=0),
    )


def _documents(
    name: str, place: PackageFiles, source: PythonDocs, wanted: Callable[[str], bool]
) -> Iterator[Document | Fault]:
    yield from _descriptions(name, source.min_characters)
    for path in package_files(place, wanted):
        if path.suffix == ".py":
            yield from _docstrings(name, module_name(place, path), path, source.min_characters)
        else:
            yield from _prose(name, place.label(path), path, source.min_characters)


def _descriptions(name: str, min_characters: int) -> Iterator[Document | Fault]:
    """Yield the long descriptions of the distributions that provide a package."""
    with _DISTRIBUTIONS:
        distributions = sorted(set(_installed_distributions().get(name, ())))
    for number, distribution in enumerate(distributions):
        text = importlib.metadata.metadata(distribution).get_payload()  # type: ignore[attr-defined]
        if isinstance(text, str):
            yield from _document(
                name, f"{name}/METADATA{number or ''}", text.strip(), min_characters
            )


@cache
def _installed_distributions() -> Mapping[str, list[str]]:
    """Return the distributions of each top-level name. It takes a second, so it is done once."""
    return importlib.metadata.packages_distributions()


def _prose(name: str, relative: str, path: Path, min_characters: int) -> Iterator[Document | Fault]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        yield Fault(f"{name}/{relative}", None, "bad_utf8", f"byte {error.start}: {error.reason}")
    except OSError as error:
        if not is_file_fault(error, path):
            raise
        yield Fault(f"{name}/{relative}", None, "unreadable_file", str(error.strerror))
    else:
        yield from _document(name, f"{name}/{relative}", text.strip(), min_characters)


def _docstrings(
    name: str, module: str, path: Path, min_characters: int
) -> Iterator[Document | Fault]:
    label = f"{name}/{module}"
    try:
        tree = _parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        yield Fault(label, None, "not_python", str(error))
        return
    except OSError as error:
        if not is_file_fault(error, path):
            raise
        yield Fault(label, None, "unreadable_file", str(error.strerror))
        return
    if module.endswith("pydoc_data.topics"):
        for topic, text in _topics(tree):
            yield from _document(name, f"{label}:{topic}", text.strip(), min_characters)
    seen: Counter[str] = Counter()
    for qualified, node in _definitions(tree):
        docstring = ast.get_docstring(node)
        if docstring is None:
            continue
        # Property setters, overloads and branches define one name several times.
        seen[qualified] += 1
        repetition = f"#{seen[qualified]}" if seen[qualified] > 1 else ""
        doc_id = f"{label}:{qualified}{repetition}" if qualified else label
        yield from _document(name, doc_id, docstring, min_characters)


def _parse(source: bytes) -> ast.Module:
    """Parse a file without the garbage collector, which would walk the growing tree many times."""
    with _PARSER:
        collecting = gc.isenabled()
        gc.disable()
        try:
            return ast.parse(source)
        finally:
            if collecting:
                gc.enable()


def _definitions(tree: ast.Module) -> Iterator[tuple[str, ast.Module | _Definition]]:
    """Yield the module, then its classes, functions and methods in the order of the file.

    Definitions inside of functions are left out.
    """
    yield "", tree
    stack: list[tuple[str, ast.AST]] = [("", node) for node in reversed(tree.body)]
    while stack:
        prefix, node = stack.pop()
        if isinstance(node, _Definition):
            yield f"{prefix}{node.name}", node
            inner = node.body if isinstance(node, ast.ClassDef) else []
            stack += [(f"{prefix}{node.name}.", child) for child in reversed(inner)]
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.ExceptHandler):
            stack += [(prefix, child) for child in reversed(list(ast.iter_child_nodes(node)))]


def _topics(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for key, value in ast.literal_eval(node.value).items():
                yield str(key), str(value)


def _document(name: str, doc_id: str, text: str, min_characters: int) -> Iterator[Document | Fault]:
    if len(text) < min_characters:
        return
    yield text_fault(text, doc_id, 0, "text") or Document(doc_id=doc_id, text=text, source=name)
