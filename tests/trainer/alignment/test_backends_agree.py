"""All backends agree with the exact one, with autograd and with forward-mode differentiation."""

import numpy as np
import pytest
import torch
from torch.func import functional_call, jvp
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.helpers.alignment_inputs import (
    BACKENDS,
    BASIS,
    Texts,
    assert_near,
    settings,
    texts,
    toward_target,
)
from tests.helpers.rounding import TRUNCATION, rounding_error
from tests.helpers.tiny_models import TOKENS, tiny_engine, tiny_model
from trainer.alignment import Direction
from trainer.alignment.direction import dots, gradients, target_direction
from trainer.alignment.exact import exact_alignment
from trainer.alignment.measure import (
    ScoredSequences,
    backward_and_score,
    batch_alignment,
    measure_alignment,
    member_losses,
)
from trainer.alignment.probes import member_probes, members_probe
from trainer.model.engine import Engine
from trainer.sampling.batches import Batch

pytestmark = pytest.mark.system  # whole trainings, or models exported to other runtimes


def forward_mode(engine: Engine, direction: Direction, batch: Batch) -> torch.Tensor:
    """Return each sequence's slope along v by `torch.func.jvp`.

    It does not support fused attention.
    """

    def nats(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = functional_call(
            engine.model, parameters, (), {"input_ids": batch.inputs, "use_cache": False}
        ).logits
        return functional.cross_entropy(logits.transpose(1, 2), batch.labels, reduction="none").sum(
            1
        )

    with sdpa_kernel(SDPBackend.MATH):
        return jvp(
            nats,
            ({n: p.detach() for n, p in engine.parameters().items()},),
            (dict(direction.tensors),),
        )[1].double()


@pytest.mark.parametrize(
    ("architecture", "tied"), [("llama", True), ("llama", False), ("gpt2", True), ("qwen2", True)]
)
def test_backends_agree_with_exact_and_with_forward_mode(architecture: str, tied: bool) -> None:
    engine = tiny_engine(tiny_model(architecture, tied=tied), micro=4)
    direction, probes = toward_target(engine), member_probes(settings(), texts(), 1)
    exact = exact_alignment(engine, direction, probes, "raw")
    for member, probe in enumerate(probes):
        batch = probe()
        assert_near(
            forward_mode(engine, direction, batch).sum() / batch.total, exact.scores[member], 1e-5
        )
        rounding = rounding_error(engine, direction, engine.losses(batch))
        for backend in BACKENDS:
            differs = backend == "finite_difference"
            tolerance, error = (TRUNCATION, rounding) if differs else (1e-5, 0 * rounding)
            engine.clear()
            share, scored = backward_and_score(
                engine, direction, batch, np.zeros(6, np.int64), backend
            )
            assert_near(scored.scores, forward_mode(engine, direction, batch), tolerance, error)
            total, error_of_total = scored.scores.sum(), error.sum()
            assert_near(
                total / batch.total, exact.scores[member], tolerance, error_of_total / batch.total
            )
            assert float(share) == pytest.approx(exact.losses[member], rel=1e-6)
            assert_near(
                dots(gradients(engine), direction.tensors).sum(), exact.scores[member], 1e-6
            )  # the step's gradient is there


def test_exact_and_ghost_agree_by_tensor() -> None:
    engine = tiny_engine(tiny_model("gpt2"))
    direction, probe = toward_target(engine), member_probes(settings(), texts(), 1)[2]
    exact = exact_alignment(engine, direction, [probe], "raw")
    batch = probe()
    scored = backward_and_score(engine, direction, batch, np.zeros(6, np.int64), "ghost")[1]
    autograd = dict(
        zip(direction.tensors, dots(gradients(engine), direction.tensors).tolist(), strict=True)
    )
    assert exact.shares.keys() == scored.shares.keys() == autograd.keys()
    for name, value in autograd.items():
        assert exact.shares[name] == pytest.approx(value, rel=1e-5)
        assert scored.shares[name] / batch.total == pytest.approx(
            value, rel=1e-4, abs=1e-6 * exact.scores[0]
        ), name
    assert sum(exact.shares.values()) == pytest.approx(exact.scores[0], rel=1e-12)


def test_ghost_agrees_with_exact_in_bfloat16() -> None:
    engine = tiny_engine(tiny_model(), precision="bfloat16")
    direction, probe = toward_target(engine), member_probes(settings(), texts(), 1)[2]
    exact, batch = exact_alignment(engine, direction, [probe], "raw"), probe()
    engine.clear()
    scored = backward_and_score(engine, direction, batch, np.zeros(6, np.int64), "ghost")[1]
    assert_near(scored.scores.sum() / batch.total, exact.scores[0], 2e-2)


def test_the_pooled_sample_estimates_the_same_scores() -> None:
    """Differences from the scores of the population are about as large as the standard errors."""
    engine = tiny_engine(tiny_model())
    direction, errors = toward_target(engine), []
    truth = exact_alignment(engine, direction, [lambda i=i: population(i) for i in range(3)], "raw")
    for stage in range(30):
        found = measure_alignment(
            engine,
            direction,
            settings("ghost", "normalised", 24, batch_sequences=72),
            texts(),
            stage,
        )
        errors.append((found.scores - truth.scores) / found.errors)
        # A member has at least its own draws, and some draws of the others.
        assert (found.effective > 23.9).all()
    assert np.sqrt(np.square(errors).mean()) == pytest.approx(1.0, abs=0.4)
    assert abs(np.mean(errors)) < 0.4
    assert all(p.grad is None for p in engine.model.parameters())


def population(member: int) -> Batch:
    """Return sequences of all leaves in proportion to the member's distribution.

    All sequences of a leaf are repeated.
    """
    sizes = Texts(0).sequences(TOKENS)
    # 630 is divisible by 5, 7, 9 and 6.
    times = np.rint(BASIS.matrix[member] / sizes * 630).astype(int)
    leaves = np.concatenate([np.tile(np.full(sizes[leaf], leaf), times[leaf]) for leaf in range(4)])
    rows = np.concatenate([np.tile(np.arange(sizes[leaf]), times[leaf]) for leaf in range(4)])
    return texts().corpus.read(leaves, rows)


def test_a_training_batch_is_scored_in_its_backward_pass() -> None:
    engine, inputs, density = tiny_engine(tiny_model()), texts(), np.array([0.4, 0.2, 0.2, 0.2])
    direction, rows = toward_target(engine), np.array([0, 1, 2, 3, 4, 0, 1])
    leaves = np.array([0, 0, 1, 1, 2, 3, 3])
    batch = inputs.corpus.read(leaves, rows)
    engine.clear()
    scored = backward_and_score(engine, direction, batch, leaves, "ghost")[1]
    found = batch_alignment(engine.team, BASIS.matrix, density, [scored])
    only = {
        leaf: batch_alignment(engine.team, np.eye(4), density, [scored]).scores[leaf]
        for leaf in range(4)
    }
    assert found.scores[0] == pytest.approx(only[0])  # the first member is leaf 0
    halves = [slice(0, 3), slice(3, 7)]  # Two batches with the same direction give the same result.
    parts = [
        ScoredSequences(leaves[h], scored.tokens[h], scored.losses[h], scored.scores[h])
        for h in halves
    ]
    assert_near(
        batch_alignment(engine.team, BASIS.matrix, density, parts).scores, found.scores, 1e-12
    )


def test_member_losses_equal_the_losses_of_the_scored_sequences() -> None:
    engine, reference = tiny_engine(tiny_model()), tiny_engine(tiny_model(seed=5))
    found = measure_alignment(engine, toward_target(engine), settings("ghost", "raw"), texts(), 4)
    np.testing.assert_allclose(
        member_losses(engine, settings(), texts(), 4), found.losses, rtol=1e-6
    )
    assert not np.allclose(
        member_losses(reference, settings(), texts(), 4), found.losses, rtol=1e-3
    )


def test_the_members_direction_is_the_sum_of_their_gradients() -> None:
    engine = tiny_engine(tiny_model())
    toward = target_direction(engine, members_probe(engine, settings(), texts(), 2))
    found = exact_alignment(engine, toward, member_probes(settings(), texts(), 2), "raw")
    assert found.scores.sum() == pytest.approx(toward.norm**2, rel=1e-6)
    assert toward.loss == pytest.approx(found.losses.mean(), rel=1e-6)
