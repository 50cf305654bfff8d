"""The story of a run: draw sequences with the current weights, train on them, measure what helps the target, change the weights."""

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from trainer.config import Train
from trainer.data import stage_batches
from trainer.distributed import team
from trainer.run import begin

logger = logging.getLogger(__name__)


def train(config: Train) -> bool:
    """Run `config` to its end, from its last checkpoint if `config.out` holds one.

    Returns:
        Whether it came to its end: False if SIGTERM stopped it, after a checkpoint.

    Raises:
        UserError: the config, the catalog and the run folder do not fit each other, or the numbers are no longer finite.
    """
    training, mixture, evaluation, checkpoint = config.training, config.mixture, config.evaluation, config.checkpoint
    every = mixture.update_every_steps
    with team() as us, asked_to_stop() as signals:
        run = begin(config, us)
        if run is None:
            logger.warning("%s: this run is finished already", config.out)
            return True
        state, stop = run.state, False
        if state.step == 0 and evaluation.every_steps:
            run.evaluate(run.inputs.during)

        while state.step < training.steps and not stop:
            # 1. A stage begins: new weights, from alignments measured at this very point, are put into the log.
            stage, done = divmod(state.step, every)
            if done == 0:
                scores = None
                if stage > 0 and run.mixer.needs and state.step >= mixture.warmup_steps:
                    scores = run.update(stage)
                run.append_weights(stage, scores)

            # 2. The log decides every sequence of the stage. A resumed run draws the same plan and enters it where it stopped.
            plan = run.plan(stage)
            steps = range(done, min(every, training.steps - stage * every))
            waiting = time.perf_counter()
            for batch in stage_batches(
                run.inputs.corpus, plan, steps, batch_sequences=training.batch_sequences, rank=us.rank, world=us.world
            ):
                state.data_seconds += time.perf_counter() - waiting

                # 3. An ordinary optimizer step: no loss is reweighted.
                stop = run.take_step(batch, bool(signals))
                if state.step % every == 0:
                    state.used = state.used + plan.counts(every * training.batch_sequences, len(state.used))

                # 4. What happens every so many steps.
                last = state.step == training.steps
                if evaluation.every_steps and state.step % evaluation.every_steps == 0 and not last:
                    run.evaluate(run.inputs.during)
                if checkpoint.every_steps and (state.step % checkpoint.every_steps == 0 or last or stop):
                    run.save()
                if stop:
                    break
                waiting = time.perf_counter()

        if state.step < training.steps:
            return False
        run.evaluate(run.inputs.at_the_end)
        run.finish()
        run.metrics.close()
        return True


@contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """The SIGTERMs received since: the step under way is finished first."""
    received: list[int] = []

    def receive(number: int, _: FrameType | None) -> None:
        received.append(number)

    before = signal.signal(signal.SIGTERM, receive)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)
