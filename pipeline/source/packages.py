"""Files of installed Python packages, which are found without importing any."""

import importlib.util
import os
import sysconfig
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.source.documents import unit_hash
from pipeline.source.files import escaped_name

STDLIB = "stdlib"  # name of the whole standard library in a list of packages
_SKIPPED_FOLDERS = {
    *("__pycache__", "_vendor", "dist-packages", "lib2to3", "node_modules", "site-packages"),
    *("test", "tests"),
}
PROSE_ENDINGS = (".rst", ".md", ".txt")
_NOT_PROSE = (
    *("license", "licence", "copying", "notice", "cmakelists", "requirements"),
    *("entry_points", "top_level"),
)


@dataclass(frozen=True)
class PackageFiles:
    """The files of a package: all below `folder`, or one module."""

    root: Path
    """Folder that the names of modules are relative to."""
    folder: Path | None
    module: Path | None = None

    def label(self, path: str | Path) -> str:
        """Return the path of a file below `root`, as ids and messages show it."""
        return escaped_name(Path(path).relative_to(self.root).as_posix())


def locate_package(name: str) -> PackageFiles | None:
    """Return the place of an installed package or of the standard library, None without source."""
    if name == STDLIB:
        folder = Path(sysconfig.get_paths()["stdlib"])
        return PackageFiles(folder, folder)
    # Finding a top-level name does not import it.
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        folder = Path(next(iter(spec.submodule_search_locations)))
        return PackageFiles(folder.parent, folder)
    module = Path(spec.origin or "")
    return PackageFiles(module.parent, None, module) if module.suffix == ".py" else None


def module_name(place: PackageFiles, path: Path) -> str:
    """Return the name of the module in a Python file."""
    return ".".join(Path(place.label(path)).with_suffix("").parts).removesuffix(".__init__")


def package_files(place: PackageFiles, wanted: Callable[[str], bool]) -> list[Path]:
    """Return the Python files whose module is wanted and the bundled texts, by hashes of paths."""
    files, _ = survey_package(place)
    chosen = [path for path in files if path.suffix != ".py" or wanted(module_name(place, path))]
    return sorted(chosen, key=lambda path: (unit_hash("file", place.label(path)), path))


def survey_package(place: PackageFiles) -> tuple[list[Path], dict[str, list[str]]]:
    """Return the files of a package, and the labels of what is left out, by a key of `WHY`."""
    if place.folder is None:
        return [place.module] if place.module else [], {}
    files: list[Path] = []
    left_out: dict[str, list[str]] = defaultdict(list)

    def note(reason: str, path: str | Path) -> None:
        left_out[reason].append(place.label(path))

    def unreadable(error: OSError) -> None:
        note("unreadable_folder", error.filename)

    for folder, folders, names in os.walk(place.folder, onerror=unreadable):
        inside = {
            name
            for name in folders
            if name not in _SKIPPED_FOLDERS and not os.path.islink(os.path.join(folder, name))
        }
        for name in sorted(set(folders) - inside):
            note("skipped_folder", Path(folder, name))
        folders[:] = sorted(inside)
        for name in sorted(names):
            path = Path(folder, name)
            if not name.endswith((".py", *PROSE_ENDINGS)):
                note("other_ending", path)
            elif not name.endswith(".py") and name.lower().startswith(_NOT_PROSE):
                note("no_documentation", path)
            else:
                files.append(path)
    return files, left_out
