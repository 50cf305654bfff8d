"""The loop of a run. Start reading here.

A run alternates between two phases:

1. It trains for an interval of `mixture.update_every_steps` steps. During an interval the mixture
   weights are fixed, so that the interval's sequences can be planned in advance.
2. Between two intervals it makes the measurements that the mixer needs, and the mixer chooses new
   weights.

The actions (`begin_interval`, `take_step`, `after_step`, ...) are methods of `trainer.run.Run`.
"""

import logging
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from types import FrameType

from trainer.begin import begin_run, check_run
from trainer.config import Train
from trainer.distributed import join_team, on_all
from trainer.inputs import verify_inputs
from trainer.machines import check_machines, hold_run
from trainer.run import Run
from trainer.sampling.batches import interval_batches
from trainer.sampling.finetune import finetune_batches, finetune_draws
from trainer.state.metrics import timed_batches
from trainer.state.numeric_checks import BatchOrigin

logger = logging.getLogger(__name__)


def train(config: Train, accept: frozenset[str] = frozenset(), verify: bool = True) -> bool:
    """Train a model, from the last checkpoint in `config.out` if there is one.

    Args:
        config: the config of the run.
        accept: the declared changes since the run was started: any of "config", "catalog" and
            "tokenizer".
        verify: compare the checksums of the catalog's files that were not compared on this machine
            before.

    Returns:
        True if the run is finished, and False if it wrote a checkpoint and stopped after SIGTERM.

    Raises:
        DamagedFileError: A file of the catalog is missing or damaged.
        UserError: The config, the catalog and the run folder do not fit each other, or the loss or
            gradient is no longer finite.
    """
    with ExitStack() as stack:
        team = stack.enter_context(join_team())
        check_machines(config, team)
        if verify:
            verify_inputs(config, team)
        # An invalid request leaves no folder. The leader creates it after every process has looked.
        inputs = on_all(team, lambda: check_run(config))
        stored = stack.enter_context(hold_run(config, team))
        run = begin_run(config, inputs, team, accept, verify, stored)
        if run is None:
            logger.warning("%s: This run is already finished.", config.out)
            return True
        with closing(run.writer), closing(run.metrics):
            if run.state.step == 0 and config.evaluation.every_steps:
                run.evaluate(run.inputs.validation_sets)
            # Until here, SIGTERM ends the process at once: there is nothing to save.
            stops = stack.enter_context(_stop_requests())
            if not (pretrain(run, stops) and finetune(run, stops)):
                return False
            run.writer.close()
            run.finish()
            return True


def pretrain(run: Run, stops: list[int]) -> bool:
    """Train on the corpus with an adaptive mixture, and return whether this phase is complete.

    Args:
        run: the open run.
        stops: signals received so far. If it is not empty, this process was asked to stop.
    """
    config, state, team = run.config, run.state, run.team
    batch_sequences = config.training.batch_sequences
    interval_steps = config.mixture.update_every_steps
    while state.step < config.training.steps:
        # 1. At the start of an interval the mixer chooses new weights, and they are logged.
        interval, steps_done = divmod(state.step, interval_steps)
        first_step = interval * interval_steps
        if steps_done == 0:
            run.begin_interval(interval)

        # 2. The log determines every sequence of the interval. A resumed run draws the same plan
        #    again and continues where it stopped.
        plan = run.interval_plan(interval)
        batches = interval_batches(
            run.inputs.corpus,
            plan,
            range(steps_done, min(interval_steps, config.training.steps - first_step)),
            batch_sequences=batch_sequences,
            rank=team.rank,
            world=team.world,
        )
        for batch in timed_batches(state, batches):
            step = state.step - first_step
            draws = plan.read(plan.batch(step, batch_sequences, 0, 1))
            origin = BatchOrigin(state.step * batch_sequences, draws.leaves, draws.rows)

            # 3. Take an ordinary optimizer step. No loss is reweighted. The basis members can be
            #    scored on the last batches of an interval.
            scored_plan = plan if run.scores_next_batch() else None
            stop = run.take_step(batch, origin, bool(stops), scored_plan)
            if step + 1 == interval_steps:
                state.used = state.used + plan.counts(plan.draws)

            # 4. Evaluate and checkpoint if due.
            run.after_step(stop)
            if stop:
                return False
    return True


def finetune(run: Run, stops: list[int]) -> bool:
    """Train on the target's align split, if configured, and return whether this is complete.

    Args:
        run: the open run, after pretraining.
        stops: signals received so far. If it is not empty, this process was asked to stop.
    """
    config, state, align = run.config, run.state, run.inputs.align
    first_step = config.training.steps
    if config.finetune.steps and state.step == first_step:
        run.begin_finetuning()
    batches = finetune_batches(config, align, state.step - first_step, run.team)
    for batch in timed_batches(state, batches):
        step = state.step - first_step
        leaves, rows = finetune_draws(config, align, step)
        origin = BatchOrigin(step * config.finetune.batch_sequences, leaves, rows)
        stop = run.take_step(run.engine.packed(batch), origin, bool(stops))
        run.after_step(stop)
        if stop:
            return False
    return True


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collect SIGTERM signals in a list instead of ending, so that the current step completes."""
    received: list[int] = []

    def receive(number: int, _: FrameType | None) -> None:
        received.append(number)

    before = signal.signal(signal.SIGTERM, receive)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)
