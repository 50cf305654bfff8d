"""Gradients of the objectives, compared with autograd on all logits."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from data_catalog import UserError
from data_catalog.format.files import open_files
from data_catalog.format.tokens import open_target
from tests.helpers.processes import run_in_processes
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_models import tiny_engine
from tests.helpers.tiny_questions import END, add_quiz
from tests.helpers.tiny_training import tiny_config
from trainer.config import Model, Train, Training
from trainer.distributed import Team
from trainer.evaluation.evaluate import evaluation_set, held_out_losses
from trainer.evaluation.objectives import ChoiceLoss, Objective, open_objective, walk
from trainer.evaluation.questions import Question, read_questions
from trainer.evaluation.tokenizer import byte_lengths, open_tokenizer, token_ids
from trainer.model.engine import Engine, build_engine
from trainer.model.model import build_model
from trainer.sampling.batches import Pool

LENGTH = 160


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_quiz(write_tiny_catalog(tmp_path_factory.mktemp("catalog")))


def objective_of(catalog: Path, objective: str, **mixture: object) -> tuple[Objective, Train]:
    config = tiny_config(
        catalog,
        catalog / "run",
        mixture={"objective": objective, "target_sequences": 4, **mixture},
        training={"sequence_tokens": LENGTH},
        evaluation={"sequences": 5},
        target="quiz",
    )
    files = open_files(catalog, sequence_tokens=LENGTH)
    align = Pool(open_target(files, "quiz", "align"), LENGTH, "align")
    assert files.end_of_text == open_tokenizer(files).token_to_id(END)
    return open_objective(files, config, align), config


@pytest.fixture(scope="module")
def engine(catalog: Path) -> Engine:
    return engine_of_team(catalog, Team())


def engine_of_team(catalog: Path, team: Team, parallel: str = "ddp") -> Engine:
    """Return an engine of a model whose likelihoods are far from uniform."""
    vocabulary = open_tokenizer(open_files(catalog)).get_vocab_size()
    model = build_model(Model(hidden_size=32, layers=2, heads=2), vocabulary, 0, LENGTH, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    return build_engine(
        model, Training(micro_batch_sequences=3, sequence_tokens=LENGTH, parallel=parallel), team
    )


def log_likelihood(engine: Engine, catalog: Path, prompt: str, completion: str) -> Tensor:
    """Return the log-likelihood of the completion given the prompt."""
    before, ids = token_ids(open_tokenizer(open_files(catalog)), [prompt, prompt + completion])
    logs = engine.model(torch.tensor([ids[:-1]])).logits.double().log_softmax(-1)[0]
    return logs[torch.arange(len(ids) - 1), torch.tensor(ids[1:])][len(before) - 1 :].sum()


def gradient(engine: Engine) -> dict[str, Tensor]:
    gradients = {name: p.grad for name, p in engine.parameters().items() if p.grad is not None}
    found = {
        name: g.full_tensor() if isinstance(g, DTensor) else g.clone()
        for name, g in gradients.items()
    }
    engine.clear()
    return found


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(
            tensor, expected[name], rtol=1e-4, atol=1e-5 * float(expected[name].abs().max())
        )


def question_loss(engine: Engine, catalog: Path, question: Question) -> Tensor:
    prompt, *whole = token_ids(
        open_tokenizer(open_files(catalog)),
        [question.prompt, *(question.prompt + text for text in question.completions)],
    )
    lengths = [len(ids) - len(prompt) for ids in whole]
    mean = sum(lengths) / len(lengths)
    scores = [
        log_likelihood(engine, catalog, question.prompt, c) * mean / n
        for c, n in zip(question.completions, lengths, strict=True)
    ]
    return -torch.stack(scores).log_softmax(0)[question.right]


def test_gradient_of_the_choice_loss(catalog: Path, engine: Engine) -> None:
    objective, config = objective_of(catalog, "choices")
    assert isinstance(objective, ChoiceLoss)
    questions = read_questions(open_files(catalog), "quiz", "align", "\nAnswer:")
    chosen = walk(config.seed, "target", 4, 4, len(questions))
    engine.clear()
    share = objective.backward(engine, interval=1)
    found = gradient(engine)
    loss = torch.stack([question_loss(engine, catalog, questions[i]) for i in chosen]).mean()
    loss.backward()
    assert float(share) == pytest.approx(loss.item(), rel=1e-5)
    assert loss.item() > 0.1
    assert_same(found, gradient(engine))


def test_an_untrained_model_gives_all_choices_the_same_score(catalog: Path) -> None:
    objective, _ = objective_of(catalog, "choices")
    model = build_model(
        Model(hidden_size=32, layers=2, heads=2),
        open_tokenizer(open_files(catalog)).get_vocab_size(),
        0,
        LENGTH,
        seed=3,
    )
    questions = read_questions(open_files(catalog), "quiz", "validation", "\nAnswer:")
    found = replace(objective, maximum_evaluated=100).evaluate(tiny_engine(model))[0]  # type: ignore[type-var]
    assert found.loss == pytest.approx(
        np.mean([math.log(len(q.completions)) for q in questions]), abs=0.4
    )


def test_a_step_against_the_gradient_makes_the_right_choice_more_likely(
    catalog: Path, engine: Engine
) -> None:
    objective, _ = objective_of(catalog, "choices")
    before = {name: p.detach().clone() for name, p in engine.parameters().items()}
    engine.clear()
    first = float(objective.backward(engine, 0))
    with torch.no_grad():
        for parameter in engine.parameters().values():
            assert parameter.grad is not None
            parameter.sub_(1e-4 * parameter.grad)
    second = float(objective.backward(engine, 0))
    with torch.no_grad():
        for name, parameter in engine.parameters().items():
            parameter.copy_(before[name])
    assert second < first - 1e-3


def test_gradient_of_the_answer_loss(catalog: Path, engine: Engine) -> None:
    objective, config = objective_of(catalog, "answer")
    texts = [
        *read_questions(open_files(catalog), "quiz", "align", "\nAnswer:"),
        Question("An essay on no question at all.\nAnswer:", (" none",), 0),
    ]
    tokenizer = open_tokenizer(open_files(catalog))
    chosen = [texts[i] for i in walk(config.seed, "target", 8, 4, len(texts))]
    engine.clear()
    share = objective.backward(engine, interval=2)
    found = gradient(engine)
    nats, tokens = torch.zeros((), dtype=torch.float64), 0
    for question in chosen:
        before, ids = token_ids(
            tokenizer, [question.prompt, question.prompt + question.completions[question.right]]
        )
        ids = [*ids, tokenizer.token_to_id(END)]
        logs = engine.model(torch.tensor([ids[:-1]])).logits.double().log_softmax(-1)[0]
        nats = (
            nats - logs[torch.arange(len(ids) - 1), torch.tensor(ids[1:])][len(before) - 1 :].sum()
        )
        tokens += len(ids) - len(before)
    (nats / tokens).backward()
    assert float(share) == pytest.approx((nats / tokens).item(), rel=1e-5)
    assert_same(found, gradient(engine))


def test_gradient_of_the_text_loss_is_that_of_the_align_split(
    catalog: Path, engine: Engine
) -> None:
    objective, config = objective_of(catalog, "text")
    pool = Pool(open_target(open_files(catalog), "quiz", "align"), LENGTH, "align")
    engine.clear()
    share = objective.backward(engine, interval=2)
    found = gradient(engine)
    expected, _ = engine.backward(pool.read(*pool.in_order(config.seed, "target", 8, 4)))
    assert float(share) == pytest.approx(float(expected), rel=1e-6)
    assert_same(found, gradient(engine))
    assert objective.evaluate(engine) == []


@pytest.mark.parametrize("kind", ["text", "answer", "choices"])
def test_the_loss_on_fixed_documents_is_that_of_the_first_gradient(
    catalog: Path, engine: Engine, kind: str
) -> None:
    objective, _ = objective_of(catalog, kind)
    engine.clear()
    assert objective.loss(engine) == objective.loss(engine) > 0
    assert gradient(engine) == {}
    assert objective.loss(engine) == pytest.approx(float(objective.backward(engine, 0)), rel=1e-5)
    engine.clear()


def test_held_out_questions(catalog: Path, engine: Engine) -> None:
    objective, config = objective_of(catalog, "choices")
    questions = read_questions(open_files(catalog), "quiz", "validation", "\nAnswer:")
    chosen = [questions[i] for i in walk(config.seed, "evaluate", 0, 5, len(questions))]
    found = objective.evaluate(engine)[0]
    with torch.no_grad():
        losses = [question_loss(engine, catalog, q).item() for q in chosen]
        scores = [
            np.array([log_likelihood(engine, catalog, q.prompt, c).item() for c in q.completions])
            for q in chosen
        ]
    lengths = [np.array([len(c.encode()) for c in q.completions]) for q in chosen]
    hits = [int(s.argmax()) == q.right for s, q in zip(scores, chosen, strict=True)]
    assert (found.set, found.sequences) == ("target/validation/choices", 5)
    assert found.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert found.error == pytest.approx(np.std(losses, ddof=1) / math.sqrt(5), rel=1e-4)
    assert found.accuracy == pytest.approx(np.mean(hits))
    assert found.accuracy_error == pytest.approx(np.std(hits, ddof=1) / math.sqrt(5))
    normalised = [
        int((s / n).argmax()) == q.right for s, n, q in zip(scores, lengths, chosen, strict=True)
    ]
    assert found.accuracy_normalised == pytest.approx(np.mean(normalised))
    assert hits != normalised  # so that the test distinguishes the two


def test_held_out_answers(catalog: Path, engine: Engine) -> None:
    objective, _ = objective_of(catalog, "answer")
    found = objective.evaluate(engine)[0]
    assert (found.set, found.sequences, found.accuracy) == ("target/validation/answer", 5, None)
    everything = replace(objective, maximum_evaluated=100).evaluate(engine)[0]  # type: ignore[type-var]
    assert everything.sequences == 8
    assert 0 < everything.error < everything.loss


def test_each_question_is_read_once_per_epoch() -> None:
    draws = np.concatenate([walk(1, "target", stage * 4, 4, 6) for stage in range(6)])
    epochs = draws.reshape(4, 6)
    assert [sorted(epoch) for epoch in epochs.tolist()] == [list(range(6))] * 4
    assert len({tuple(epoch) for epoch in epochs.tolist()}) > 1


def measurements(catalog: Path, team: Team, parallel: str = "ddp") -> dict[str, Any]:
    """Return the losses and errors, and the summed gradient of each objective."""
    engine = engine_of_team(catalog, team, parallel)
    pools = [
        Pool(open_target(open_files(catalog), "quiz", split), LENGTH, split)
        for split in ("test", "align")
    ]
    found: dict[str, Any] = {}
    for name in ("choices", "answer"):
        objective, _ = objective_of(catalog, name, target_sequences=3)
        engine.clear()
        share = float(team.sum(objective.backward(engine, interval=1).clone()))
        sets = held_out_losses(
            engine,
            [evaluation_set("", pool, 5, 0) for pool in pools],
            byte_lengths(open_tokenizer(open_files(catalog))),
        )
        losses = [
            number
            for one in (*objective.evaluate(engine), *sets)
            for number in (one.loss, one.error)
        ]
        losses += [objective.loss(engine), objective_of(catalog, "text")[0].loss(engine)]
        found[name] = {"numbers": torch.tensor([share, *losses]), "gradient": gradient(engine)}
    return found


def measure_in_process(rank: int, world: int, folder: Path, catalog: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world
    )
    found = {
        parallel: measurements(catalog, Team(rank, world), parallel)
        for parallel in ("ddp", "fsdp2")
    }
    if rank == 0:
        torch.save(found, folder / "found.pt")
    dist.destroy_process_group()


@pytest.mark.system
def test_two_processes_agree_with_one(catalog: Path, tmp_path: Path) -> None:
    run_in_processes(measure_in_process, 2, 2, tmp_path, catalog)
    alone, together = measurements(catalog, Team()), torch.load(tmp_path / "found.pt")
    for parallel, name in itertools.product(("ddp", "fsdp2"), ("choices", "answer")):
        torch.testing.assert_close(
            together[parallel][name]["numbers"], alone[name]["numbers"], rtol=1e-5, atol=0
        )
        assert_same(together[parallel][name]["gradient"], alone[name]["gradient"])


def test_documents_of_another_form_are_refused(catalog: Path) -> None:
    with pytest.raises(UserError, match=r"Question\?\\nSolution: the answer"):
        objective_of(catalog, "answer", answer_after="\nSolution:")
