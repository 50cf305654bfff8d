"""Files of Prefect's settings, as far as a command needs them before it imports Prefect."""

import os
import tomllib
from pathlib import Path
from typing import Any

from data_catalog.errors import UserError

_URL = "PREFECT_API_URL"


def profiles_path() -> Path:
    """Return the path of the file of profiles."""
    if path := os.environ.get("PREFECT_PROFILES_PATH"):
        return Path(path)
    home = os.environ.get("PREFECT_HOME") or Path.home() / ".prefect"
    return Path(home).expanduser() / "profiles.toml"


def check_settings_files() -> None:
    """Check that the files of settings can be read. Prefect would not name a damaged one.

    Raises:
        UserError: A file is damaged.
    """
    profiles = profiles_path()
    for path in (profiles, Path("prefect.toml"), Path("pyproject.toml"), Path(".env")):
        try:
            text = path.read_bytes().decode()
            tree = tomllib.loads(text) if path.suffix == ".toml" else {}
            if path == profiles and not _holds_profiles(tree):
                raise ValueError("expected `active` and tables [profiles.NAME]")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UserError(
                f"{path}: Prefect cannot read its settings from this file ({reason}). "
                "Correct or remove it."
            ) from error


def named_url() -> str | None:
    """Return the URL of the server that the settings name, without importing Prefect.

    That import takes seconds. The settings are, as in Prefect, environment variables, `.env`,
    `prefect.toml`, `pyproject.toml` and the active profile, the first that names a server. Files
    that cannot be read name none.
    """
    if url := os.environ.get(_URL):
        return url
    try:
        profiles = _read(profiles_path())
    except RuntimeError:  # the user of `~USER` is unknown
        profiles = {}
    active = os.environ.get("PREFECT_PROFILE") or profiles.get("active")
    try:
        from dotenv import dotenv_values  # noqa: PLC0415 - a dependency of Prefect

        in_folder = dotenv_values(".env").get(_URL)
    except (OSError, ValueError, ImportError):
        in_folder = None
    found = (
        in_folder,
        _entry(_read(Path("prefect.toml")), "api", "url"),
        _entry(_read(Path("pyproject.toml")), "tool", "prefect", "api", "url"),
        _entry(profiles, "profiles", active, _URL),
    )
    return next((url for url in found if isinstance(url, str) and url), None)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except (OSError, ValueError):
        return {}


def _entry(tree: Any, *keys: Any) -> Any:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _holds_profiles(tree: dict[str, Any]) -> bool:
    profiles = tree.get("profiles", {})
    return (
        isinstance(tree.get("active", ""), str)
        and isinstance(profiles, dict)
        and all(isinstance(profile, dict) for profile in profiles.values())
    )
