"""The checks of a training before Prefect or the trainer is started. They take no seconds."""

from pathlib import Path

from data_catalog.errors import UserError, suggestion
from data_catalog.folders import check_utf8_path
from data_catalog.format.manifest import read_manifest
from data_catalog.transfer.mirror import local_folder
from trainer.config import UNIDENTIFYING, Train
from trainer.mixture_config import GENERAL
from trainer.state.resume import check_identity, with_precision
from trainer.state.trackers import check_trackers


def check_training(settings: Train) -> None:
    """Check a config against its catalog before a process is started.

    Args:
        settings: The config.

    Raises:
        UserError: The catalog or a tracker's package is missing, the catalog lacks a target or the
            level, or the path of the run is not UTF-8.
    """
    check_utf8_path(settings.folder, "out")
    check_trackers(settings)
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


def require_same_run(config: Train) -> None:
    """Check that the run in the folder of a config, if there is one, has this config and catalog.

    Raises:
        UserError: It has others.
    """
    newest = max((config.folder / "checkpoints").glob("[0-9]*"), default=None)
    if newest is not None or is_finished(config.folder):
        version = config.data.version
        manifest = read_manifest(local_folder(config.catalog, version), version)
        config = with_precision(config, "float32")
        identity = {"fingerprint": config.fingerprint(), "catalog": manifest.fingerprint}
        settings = config.model_dump(mode="json", exclude=UNIDENTIFYING)
        check_identity(config.folder, identity, settings, checkpoint=newest)


def is_finished(run: Path) -> bool:
    """Return whether the run in a folder is finished."""
    return (run / "model").is_dir()
