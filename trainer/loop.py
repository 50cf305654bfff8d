"""The story of a run: draw sequences with the current weights, train on them, measure what helps the target, change the weights."""

import logging
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from types import FrameType

from data_catalog.format.lock import sole_holder
from trainer.begin import begin_run
from trainer.config import Train
from trainer.distributed import Team, join_team
from trainer.run import Run
from trainer.sampling.batches import interval_batches
from trainer.sampling.finetune import finetune_batches, finetune_draws
from trainer.state.numeric_checks import BatchOrigin

logger = logging.getLogger(__name__)


def train(config: Train, accept: frozenset[str] = frozenset()) -> bool:
    """Run `config` to its end, from its last checkpoint if `config.out` holds one.

    Args:
        accept: what may have changed since the run was begun: any of "config", "catalog", "tokenizer".

    Returns:
        Whether it came to its end: False if SIGTERM stopped it, after a checkpoint.

    Raises:
        UserError: the config, the catalog and the run folder do not fit each other, or the numbers are no longer finite.
    """
    with join_team() as us, _stop_requests() as signals, _hold_folder(config.out, us):
        run = begin_run(config, us, accept)
        if run is None:
            logger.warning("%s: this run is finished already", config.out)
            return True
        with closing(run.writer), closing(run.metrics):
            if run.state.step == 0 and config.evaluation.every_steps:
                run.evaluate(run.inputs.during)
            if not (pretrain(run, signals) and finetune(run, signals)):
                return False
            run.writer.close()
            run.evaluate(run.inputs.at_the_end)
            run.finish()
            return True


def pretrain(run: Run, signals: list[int]) -> bool:
    """Train on the corpus with weights that change; return whether that is done."""
    config, state, us = run.config, run.state, run.team
    steps, size, every = (
        config.training.steps,
        config.training.batch_sequences,
        config.mixture.update_every_steps,
    )
    while state.step < steps:
        # 1. A stage begins: new weights, from what is measured at this very point, are put into the log.
        stage, done = divmod(state.step, every)
        if done == 0:
            run.begin_stage(stage)

        # 2. The log decides every sequence of the stage. A resumed run draws the same plan and enters it where it stopped.
        plan = run.plan(stage)
        last = min(every, steps - stage * every)
        batches = interval_batches(
            run.inputs.corpus,
            plan,
            range(done, last),
            batch_sequences=size,
            rank=us.rank,
            world=us.world,
        )
        for batch in run.waited_for(batches):
            step = state.step - stage * every
            whole = plan.batch(step, size, 0, 1)
            drawn = BatchOrigin(state.step * size, plan.leaves[whole], plan.rows[whole])

            # 3. An ordinary optimizer step: no loss is reweighted. The last one of a stage may be listened to.
            stop = run.take_step(
                batch, drawn, bool(signals), plan if step + 1 == every and run.listens() else None
            )
            if step + 1 == every:
                state.used = state.used + plan.counts(every * size, len(state.used))

            # 4. What happens every so many steps.
            run.now_and_then(stop)
            if stop:
                return False
    return True


def finetune(run: Run, signals: list[int]) -> bool:
    """Train on the target's align split alone, if that is asked for; return whether that is done."""
    config, state, first = run.config, run.state, run.config.training.steps
    if config.finetune.steps and state.step == first:
        run.begin_finetuning()
    for batch in run.waited_for(
        finetune_batches(config, run.inputs.align, state.step - first, run.team)
    ):
        number = (state.step - first) * config.finetune.batch_sequences
        drawn = BatchOrigin(number, *finetune_draws(config, run.inputs.align, state.step - first))
        stop = run.take_step(batch, drawn, bool(signals))
        run.now_and_then(stop)
        if stop:
            return False
    return True


def _hold_folder(out: Path, us: Team) -> AbstractContextManager[None]:
    """Hold the run's folder, on the leading process."""
    if not us.leads:
        return nullcontext()
    return sole_holder(
        out, f"{out}: another process trains in this folder; wait for it, or choose another out"
    )


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """The SIGTERMs received since: the step under way is finished first."""
    received: list[int] = []

    def receive(number: int, _: FrameType | None) -> None:
        received.append(number)

    before = signal.signal(signal.SIGTERM, receive)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)
