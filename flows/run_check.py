"""The check of a run's files, for `clustermix verify RUN`."""

from pathlib import Path

from data_catalog.errors import UserError
from data_catalog.format.run_files import MODELS, run_faults
from flows.pages.run.data import read_run
from trainer.state.checkpoint import read_checkpoint
from trainer.state.checksums import checkpoints, find_fault


def find_run_faults(run: Path) -> list[str]:
    """Return a sentence per damaged file of a run.

    Every byte of the checkpoints and, in a finished run, of all other files is compared with its
    checksum. If `config.json` is damaged, it is the only fault.
    """
    try:
        faults = list(read_run(run, run.name).damage)
    except UserError as error:
        return [str(error)]
    for checkpoint in checkpoints(run):
        if fault := find_fault(checkpoint, read_checkpoint):
            faults.append(f"checkpoints/{checkpoint.name}/{fault}")
    models = run_faults(run, [f"{name}/" for name in MODELS])
    faults += [f"{name} is damaged ({fault})" for name, fault in models.items()]
    return list(dict.fromkeys(faults))
