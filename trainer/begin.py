"""Opening of a run: its inputs, its model and its last checkpoint."""

from collections.abc import Mapping, Sequence

import numpy as np

from data_catalog.format.run_files import write_run_record
from data_catalog.format.run_record import (
    AcceptedChange,
    RunCadence,
    RunRecord,
    RunSettings,
    read_run_record,
)
from trainer.alignment.overhead import MeasurementCadence, cadence_of, updates_of
from trainer.alignment.trial import try_model
from trainer.config import UNIDENTIFYING, Model, Train
from trainer.distributed import Team, on_all
from trainer.inputs import Inputs, open_inputs
from trainer.mixers.choose import require_movement
from trainer.model.engine import open_engine
from trainer.model.memory import empty_model
from trainer.model.optimizer import build_optimizer
from trainer.model.precision import automatic_precision
from trainer.run import Run
from trainer.state.checkpoint import State, load_checkpoint, read_checkpoint, write_log
from trainer.state.checkpoint_writer import CheckpointWriter
from trainer.state.checksums import Choice, choose_checkpoint, set_aside
from trainer.state.metrics import Metrics, Speed
from trainer.state.resume import check_identity, with_precision
from trainer.state.stored_run import StoredRun
from trainer.state.trackers import Trackers, check_trackers
from trainer.target_shares import open_target_shares


def check_run(config: Train) -> Inputs:
    """Open the inputs of a run and check all that needs no model. Nothing is written.

    Raises:
        UserError: The config does not fit the catalog, its own bounds or the models that it names.
    """
    check_trackers(config)
    inputs = open_inputs(config)
    empty_model(config.model, inputs.vocabulary, config.training.sequence_tokens)
    check_mixture(config, inputs, cadence_of(config, len(inputs.basis.names)))
    return inputs


def check_mixture(config: Train, inputs: Inputs, cadence: MeasurementCadence) -> None:
    """Check that the mixture can be drawn and learned.

    Raises:
        UserError: The bounds or the mixer do not fit the catalog, or the weights would not change.
    """
    inputs.bounds(config)
    mixer, state = inputs.mixer(config)
    require_movement(config, mixer, state, updates_of(config, cadence))
    open_target_shares(config, inputs, updates_of(config, cadence))


def identity_of(config: Train, inputs: Inputs) -> dict[str, str]:
    """Return the fingerprints of the config, the catalog and the tokenizer."""
    manifest = inputs.files.manifest
    return {
        "fingerprint": config.fingerprint(),
        "catalog": manifest.fingerprint,
        "tokenizer": manifest.tokenizer.sha256,
    }


def with_cadence(config: Train, cadence: MeasurementCadence) -> Train:
    """Return the config with the cadence of its measurements."""
    mixture = config.mixture.model_copy(update=cadence._asdict())
    return config.model_copy(update={"mixture": mixture})


def write_record(
    config: Train,
    inputs: Inputs,
    cadence: MeasurementCadence,
    identity: Mapping[str, str],
    world: int,
    history: Sequence[AcceptedChange] = (),
    verified: bool = True,
) -> None:
    """Write the record of a run, `config.json`.

    Args:
        config: the config as requested.
        inputs: the inputs of the run.
        cadence: the cadence of its measurements.
        identity: result of `identity_of`.
        world: number of processes.
        history: accepted changes since the run was started.
        verified: the checksums of the catalog's files were compared.
    """
    record = RunRecord(
        config=RunSettings.model_validate(config.model_dump(mode="json")),
        basis=inputs.basis.names,
        level=inputs.level,
        cadence=RunCadence(**cadence._asdict()),
        sequences=inputs.corpus.total,
        world=world,
        history=tuple(history),
        verified=verified,
        **identity,
    )
    write_run_record(config.folder, record)


def begin_run(
    config: Train,
    inputs: Inputs,
    team: Team,
    accept: frozenset[str] = frozenset(),
    verified: bool = True,
    stored: StoredRun | None = None,
) -> Run | None:
    """Build the model and load the last checkpoint in `config.out` if any.

    Args:
        config: the config.
        inputs: the inputs of the run.
        team: the processes of the run.
        accept: the declared changes since the run was started: any of "config", "catalog" and
            "tokenizer".
        verified: the checksums of the catalog's files were compared.
        stored: the run, if `config.out` is in a store.

    Returns:
        The open run, or None if the run is already finished.

    Raises:
        UserError: The config, the catalog and the run folder do not fit each other.
    """
    if stored is not None:
        on_all(team, lambda: stored.fetch_record() if team.leads_machine else None)
    automatic, *_ = team.gather(automatic_precision(team.device.type))
    config = with_precision(config, automatic)
    identity = identity_of(config, inputs)
    settings = config.model_dump(mode="json", exclude=UNIDENTIFYING)
    is_finished = (config.folder / "model").is_dir()
    chosen = Choice(None) if is_finished else _choose(config, team, stored)
    history = check_identity(config.folder, identity, settings, accept, checkpoint=chosen.folder)
    if is_finished:
        return None
    requested, training, basis = config, config.training, inputs.basis
    cadence = cadence_of(config, len(basis.names))
    if chosen.folder:  # The position in the data depends on it, also if steps were added.
        every = read_run_record(config.folder).cadence.update_every_steps
        cadence = cadence._replace(update_every_steps=every)
    config = with_cadence(config, cadence)
    mixture = config.mixture
    bounds = inputs.bounds(config)
    engine = open_engine(config.model, config, inputs.files, team)
    optimizer = build_optimizer(engine.model, config.optimizer)
    mixer, weights = inputs.mixer(config)
    name = config.model.path or config.model.preset
    try_model(engine, name, mixture.backend if "scores" in mixer.needs else None)
    reference = None
    if "excess_losses" in mixer.needs:
        model = Model(path=str(mixture.reference))
        reference = open_engine(model, config, inputs.files, team)
    state = State(weights, np.zeros_like(inputs.corpus.sequences))
    if folder := chosen.folder:
        fetch = stored.fetch_shards if stored else None
        fresh = state
        state = on_all(team, lambda: load_checkpoint(folder, fresh, engine.model, optimizer, fetch))
    team.wait()  # The leader writes only after every process has read the folder.
    if team.is_leader:
        if stored is None:
            set_aside(config.folder, chosen.damaged)
        if state.log:  # drops the rows of steps that are taken again
            write_log(config.folder / "weights.parquet", state.log)
        write_record(requested, inputs, cadence, identity, team.world, history, verified)
    if stored is not None:
        on_all(team, lambda: stored.begin(chosen.damaged) if team.is_leader else None)
    speed = Speed(engine.model, training.sequence_tokens, team.device, team.world)
    speed.begin(state)
    # Every machine shows the progress of a run in a store from its own folder.
    writes = team.leads_machine if stored is not None else team.is_leader
    return Run(
        config=config,
        identity=identity,
        team=team,
        inputs=inputs,
        bounds=bounds,
        engine=engine,
        reference=reference,
        optimizer=optimizer,
        mixer=mixer,
        targets=open_target_shares(config, inputs, updates_of(config, cadence)),
        state=state,
        metrics=Metrics(
            config.folder / "metrics.jsonl",
            state.metrics_bytes,
            writes,
            Trackers(config, basis.names) if team.is_leader and config.log.to else None,
        ),
        writer=CheckpointWriter(config.folder, config.checkpoint, team, stored),
        speed=speed,
        stored=stored,
    )


def _choose(config: Train, team: Team, stored: StoredRun | None) -> Choice:
    if stored is not None:
        return stored.choose_checkpoint(team)
    return choose_checkpoint(config.folder, team, read_checkpoint)
