"""How a run begins: what it reads, what it trains, and where it stopped."""

import time

import numpy as np

from data_catalog.format.manifest import write_json
from trainer.alignment.overhead import within_budget
from trainer.config import Model, Train
from trainer.distributed import Team
from trainer.inputs import Inputs, open_inputs
from trainer.mixers.choose import first_state, make_mixer
from trainer.model.engine import Engine, build_engine
from trainer.model.model import build_model
from trainer.model.optimizer import build_optimizer
from trainer.run import Run
from trainer.state.checkpoint import CheckpointWriter, State, checkpoints, load_checkpoint
from trainer.state.metrics import Metrics, Speed
from trainer.state.resume import check_identity


def begin_run(config: Train, team: Team, accept: frozenset[str] = frozenset()) -> Run | None:
    """Open the catalog, build the model, and take up the last checkpoint in `config.out` if there is one.

    Args:
        accept: what may have changed since the run was begun: any of "config", "catalog", "tokenizer".

    Returns:
        None if the run is finished already.

    Raises:
        UserError: the config, the catalog and the run folder do not fit each other.
    """
    inputs = open_inputs(config)
    identity = {
        "fingerprint": config.fingerprint(),
        "catalog": inputs.files.manifest.fingerprint,
        "tokenizer": inputs.files.manifest.tokenizer.sha256,
    }
    history = check_identity(
        config.out,
        identity,
        config.model_dump(mode="json", exclude={"catalog", "out", "checkpoint"}),
        accept,
    )
    if (config.out / "model").is_dir():
        return None
    asked, training, basis = config, config.training, inputs.basis
    cadence = within_budget(config.mixture, len(basis.names), training.batch_sequences)
    config = config.model_copy(
        update={"mixture": config.mixture.model_copy(update=cadence._asdict())}
    )
    bounds = inputs.bounds(config)
    engine = _engine(config.model, config, inputs, team)
    optimizer = build_optimizer(engine.model, config.optimizer)
    mixer = make_mixer(config, basis.names, inputs.member_sizes())
    reference = None
    if "reference_losses" in mixer.needs:
        reference = _engine(Model(path=str(config.mixture.reference)), config, inputs, team)
    found = checkpoints(config.out)
    fresh = State(
        first_state(mixer, basis.names, config.mixture.start),
        np.zeros_like(inputs.corpus.sequences),
    )
    state = load_checkpoint(found[-1], fresh, engine.model, optimizer) if found else fresh
    team.wait()  # every process has read the folder before the first one writes to it
    if team.leads:
        settings = {
            "config": asked,
            "basis": basis.names,
            "level": inputs.level,
            "cadence": cadence._asdict(),
        }
        others = {"sequences": inputs.corpus.total, "world": team.world, "history": history}
        write_json(config.out / "config.json", {**settings, **others, **identity})
    metrics = Metrics(config.out / "metrics.jsonl", state.metrics_bytes, team.leads)
    writer = CheckpointWriter(config.out, config.checkpoint, team.leads)
    speed = Speed(engine.model, training.sequence_tokens, team.device, team.world)
    speed.begin(state)
    started = time.perf_counter() - state.seconds
    return Run(
        config,
        identity,
        team,
        inputs,
        bounds,
        engine,
        reference,
        optimizer,
        mixer,
        state,
        metrics,
        writer,
        speed,
        started,
    )


def _engine(model: Model, config: Train, inputs: Inputs, team: Team) -> Engine:
    built = build_model(
        model,
        inputs.vocabulary,
        inputs.files.end_of_text,
        config.training.sequence_tokens,
        config.seed,
    )
    return build_engine(built, config.training, team)
