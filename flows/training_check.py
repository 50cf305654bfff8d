"""The check of a training before Prefect or the trainer is started."""

from data_catalog.errors import UserError, suggestion
from data_catalog.folders import check_utf8_path
from data_catalog.format.manifest import read_manifest
from data_catalog.transfer.mirror import local_folder
from trainer.config import Train
from trainer.mixture_config import GENERAL


def check_training(settings: Train) -> None:
    """Check a config against its catalog before a process is started.

    Args:
        settings: The config.

    Raises:
        UserError: The catalog is missing, or it lacks a target or the level, or the path of
            the run is not UTF-8.
    """
    check_utf8_path(settings.folder, "out")
    version = settings.data.version
    manifest = read_manifest(local_folder(settings.catalog, version), version)
    named = [("target", settings.target)]
    named += [("mixture.targets", name) for name in settings.mixture.targets if name != GENERAL]
    for key, name in named:
        if name not in manifest.targets:
            hint = suggestion(name, manifest.targets, "Its targets")
            raise UserError(
                f"{key}: found {name!r}, which is not a target of {settings.catalog}. {hint}"
            )
    level = settings.mixture.level
    if level is not None and level not in manifest.granularities:
        raise UserError(
            f"mixture.level: found {level}, which is not a level of {settings.catalog}. "
            f"Its levels are {', '.join(map(str, manifest.granularities))}."
        )
