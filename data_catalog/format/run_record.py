"""`config.json`, the record of a run in its folder."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from data_catalog.errors import UserError
from data_catalog.folders import check_utf8_path
from data_catalog.format.records import Record, parse_record, read_record
from data_catalog.format.run_files import require_run_files
from data_catalog.place import Folder, Place

RUN_RECORD = "config.json"
_REMEDY = "Name the folder of a run that `clustermix train` wrote, or start the run again."


class _Section(BaseModel):
    """The keys of a config's table that other programs read. `trainer.config` has all of them."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)


class MixtureSettings(_Section):
    """The table `mixture` of a training's config."""

    mixer: str
    basis: str
    kind: str
    level: Annotated[int, Field(gt=0)] | None
    temperature: Annotated[float, Field(gt=0)]
    file: str | None
    answer_after: str
    update_every_steps: Annotated[int, Field(ge=0)]


class TrainingSettings(_Section):
    """The table `training` of a training's config."""

    steps: Annotated[int, Field(gt=0)]
    batch_sequences: Annotated[int, Field(gt=0)]
    sequence_tokens: Annotated[int, Field(gt=0)]


class RunSettings(_Section):
    """A training's config, as the run was asked for."""

    catalog: str
    out: str
    target: str
    mixture: MixtureSettings
    training: TrainingSettings


class RunCadence(Record):
    """The measurements of a run, after its overhead budget was applied."""

    update_every_steps: Annotated[int, Field(gt=0)]
    basis_sequences: Annotated[int, Field(gt=0)]
    target_sequences: Annotated[int, Field(gt=0)]


class AcceptedChange(Record):
    """A change of config, catalog or tokenizer that was accepted when a run was resumed."""

    when: str
    """Time in UTC, ISO 8601."""
    step: Annotated[int, Field(ge=0)] | None
    """Step of the checkpoint that the run was resumed from."""
    what: str
    """`config`, `catalog` or `tokenizer`."""
    old: Any
    new: Any


class RunRecord(Record):
    """The contents of a run's `config.json`."""

    config: RunSettings
    basis: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the basis members, in the order of the weights."""
    level: Annotated[int, Field(gt=0)]
    """Number of domains that weights, limits and budgets are about."""
    cadence: RunCadence
    sequences: Annotated[int, Field(ge=0)]
    """Training sequences of the catalog."""
    world: Annotated[int, Field(gt=0)]
    """Number of processes."""
    history: tuple[AcceptedChange, ...]
    verified: bool = False
    """The catalog's files were compared with their checksums when the run was started last."""
    fingerprint: str
    """Digest of the config."""
    catalog: str
    """Fingerprint of the catalog."""
    tokenizer: str
    """SHA-256 of the catalog's tokenizer."""


def read_run_record(run: Folder) -> RunRecord:
    """Read the `config.json` of a run's folder. In a store, its checksum is not compared.

    Raises:
        DamagedFileError: The file differs from its checksum.
        UserError: The folder holds no run, or a key of the file is missing, of another type or
            out of range, or the folder's path is not UTF-8. The message names the file and the
            key.
    """
    if isinstance(run, Place):
        if (text := (run / RUN_RECORD).read()) is None:
            raise UserError(f"{run}: no run here ({RUN_RECORD} is missing). {_REMEDY}")
        return parse_record(RunRecord, text, str(run / RUN_RECORD), _REMEDY)
    check_utf8_path(run, "run")
    if not (run / RUN_RECORD).is_file():
        raise UserError(f"{run}: no run here ({RUN_RECORD} is missing). {_REMEDY}")
    require_run_files(run, [RUN_RECORD])
    return read_record(RunRecord, run / RUN_RECORD, _REMEDY)
