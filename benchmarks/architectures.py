"""Try the trainer on small models of many architectures, with random weights.

Every model is trained for some steps on a made-up language. The table shows whether its experts are
balanced, whether its output layer is fused with the loss, the largest errors of `ghost` and of
`finite_difference` relative to the largest score, and whether the exported folder gives the same
losses again. The reference of the errors is one backward pass per sequence. A refusal is the
sentence that a user reads before the first step.
"""

import argparse
import json
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from benchmarks.hardware import headline, today
from data_catalog.errors import UserError
from trainer.alignment import Direction
from trainer.alignment.direction import target_direction
from trainer.alignment.finite_difference import finite_differences
from trainer.alignment.ghost import Ghost
from trainer.alignment.trial import try_model
from trainer.config import Model, Optimizer, Training
from trainer.distributed import Team
from trainer.model.engine import Engine, build_engine
from trainer.model.experts import expert_parameters, has_balance_loss
from trainer.model.loss import LanguageLoss
from trainer.model.model import build_model
from trainer.model.optimizer import build_optimizer
from trainer.sampling.batches import Batch
from trainer.state.model_config import with_earlier_keys

VOCABULARY, TOKENS, SEQUENCES, WIDTH = 256, 32, 16, 32
SUCCESSORS = 4  # number of tokens that can follow a token of the language
COLUMNS = ("train", "head", "ghost", "finite difference", "export, reload")

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
EXPERTS = {**SIZES, "moe_intermediate_size": 32, "num_experts_per_tok": 2}
LATENT = {  # attention and routing of DeepSeek
    **EXPERTS,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 2,
    "topk_group": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
OWN = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0}
GPT = {**OWN, "n_embd": WIDTH, "n_layer": 2, "n_head": 4, "n_positions": 64}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": SIZES,
    "mistral": SIZES,
    "qwen2": SIZES,
    "qwen3": {**SIZES, "head_dim": 8},
    "gemma": {**SIZES, "head_dim": 8},
    "gemma2": {**SIZES, "head_dim": 8},
    "gemma3_text": {**SIZES, "head_dim": 8},
    "olmo": SIZES,
    "olmo2": SIZES,
    "olmo3": SIZES,
    "phi": SIZES,
    "phi3": SIZES,
    "stablelm": SIZES,
    "cohere": SIZES,
    "cohere2": SIZES,
    "granite": {**SIZES, "logits_scaling": 8.0},
    "falcon": SIZES,
    "bloom": {**OWN, "hidden_size": WIDTH, "n_layer": 2, "n_head": 4},
    "mpt": {**OWN, "d_model": WIDTH, "n_layers": 2, "n_heads": 4, "max_seq_len": 64},
    "gptj": {**GPT, "rotary_dim": 4},
    "gpt_neo": {
        **OWN,
        "hidden_size": WIDTH,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "max_position_embeddings": 64,
    },
    "gpt_neox": SIZES,
    "gpt2": GPT,
    "opt": {**SIZES, "ffn_dim": 64, "word_embed_proj_dim": WIDTH},
    "smollm3": SIZES,
    "starcoder2": SIZES,
    "nemotron": SIZES,
    "glm4": {**SIZES, "head_dim": 8},
    "exaone4": SIZES,
    "apertus": SIZES,
    "arcee": SIZES,
    "ernie4_5": {**SIZES, "head_dim": 8},
    "lfm2": {**SIZES, "layer_types": ["conv", "full_attention"]},
    "mamba": {**OWN, "hidden_size": WIDTH, "num_hidden_layers": 2, "state_size": 8},
    "mamba2": {
        **OWN,
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "state_size": 8,
        "num_heads": 8,
        "head_dim": 8,
        "n_groups": 1,
        "chunk_size": 16,
    },
    "rwkv": {
        **OWN,
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "attention_hidden_size": WIDTH,
        "context_length": 64,
    },
    "mixtral": {**EXPERTS, "num_local_experts": 8},
    "olmoe": {**EXPERTS, "num_experts": 8},
    "qwen2_moe": {**EXPERTS, "num_experts": 8, "shared_expert_intermediate_size": 32},
    "qwen3_moe": {**EXPERTS, "num_experts": 8, "head_dim": 8},
    "granitemoe": {**EXPERTS, "num_local_experts": 8},
    "phimoe": {**EXPERTS, "num_local_experts": 8},
    "gpt_oss": {**EXPERTS, "num_local_experts": 8, "head_dim": 8},
    "jamba": {
        **EXPERTS,
        "num_experts": 4,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "mamba_d_state": 8,
        "mamba_dt_rank": 4,
    },
    "deepseek_v3": LATENT,
    "glm4_moe": LATENT,
    "deepseek_v2": LATENT,
    "llama4_text": {
        **EXPERTS,
        "num_local_experts": 4,
        "num_experts_per_tok": 1,
        "intermediate_size_mlp": 64,
        "head_dim": 8,
        "interleave_moe_layer_step": 1,
    },
    "bert": {**SIZES, "num_key_value_heads": None},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="TYPE", help="model types. Default: all")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    torch.set_num_threads(1)
    rows = []
    for name in arguments.names or ARCHITECTURES:
        with TemporaryDirectory() as folder:
            rows.append(table_row(name, Path(folder), arguments.steps))
        print(rows[-1], flush=True)
    if not arguments.names:
        text = report(rows, arguments.steps)
        (arguments.out / f"{today()}-architectures.md").write_text(text, encoding="utf-8")


def table_row(name: str, folder: Path, steps: int) -> str:
    """Return the row of one architecture."""
    config = {key: value for key, value in ARCHITECTURES[name].items() if value is not None}
    AutoConfig.for_model(name, **config).save_pretrained(folder)
    settings = Model(path=str(folder / "config.json"))
    engine = build_engine(
        build_model(settings, VOCABULARY, 0, TOKENS, 0), Training(sequence_tokens=TOKENS), Team()
    )
    try:
        try_model(engine, name, None)
    except UserError as error:
        return f"| {name} | refused: {error} |" + " |" * (len(COLUMNS) - 1)
    before, after = train(engine, steps)
    direction = target_direction(engine, lambda: engine.backward(text(1))[0])
    reference = by_sequence(engine, direction, text(2))
    cells = [
        f"{before:.2f} → {after:.2f}{balance(engine)}",
        "fused" if isinstance(engine.loss, LanguageLoss) and engine.loss.fuses_head else "logits",
        error_of(engine, name, "ghost", direction, reference),
        error_of(engine, name, "finite_difference", direction, reference),
        reloaded(engine, folder / "model"),
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


def text(seed: int) -> Batch:
    """Return a batch of the language."""
    language, draws = (torch.Generator().manual_seed(number) for number in (0, 1 + seed))
    following = torch.randint(0, VOCABULARY, (VOCABULARY, SUCCESSORS), generator=language)
    tokens = [torch.randint(0, VOCABULARY, (SEQUENCES,), generator=draws)]
    for _ in range(TOKENS):
        choice = torch.randint(0, SUCCESSORS, (SEQUENCES,), generator=draws)
        tokens.append(following[tokens[-1], choice])
    whole = torch.stack(tokens, 1)
    return Batch(whole[:, :-1], whole[:, 1:], SEQUENCES * TOKENS)


def train(engine: Engine, steps: int) -> tuple[float, float]:
    """Train, and return the loss on another batch before and after."""
    optimizer = build_optimizer(engine.model, Optimizer())
    for group in optimizer.param_groups:
        group["lr"] = 3e-3
    losses = [float(engine.losses(text(0)).sum()) / text(0).total]
    for step in range(steps):
        engine.clear()
        engine.backward(text(10 + step), balanced=True)
        engine.clip(1.0)
        optimizer.step()
        engine.balance()
    losses.append(float(engine.losses(text(0)).sum()) / text(0).total)
    engine.clear()
    return losses[0], losses[1]


def balance(engine: Engine) -> str:
    """Return how the experts of a model are balanced, for the table."""
    if not any(expert_parameters(engine.model)):
        return ""
    return ", auxiliary loss" if has_balance_loss(engine.model) else ", biases"


def by_sequence(engine: Engine, direction: Direction, batch: Batch) -> Tensor:
    """Return the scores by one backward pass per sequence."""
    scores = []
    for j in range(len(batch.inputs)):
        engine.clear()
        engine.backward(Batch(batch.inputs[j : j + 1], batch.labels[j : j + 1], 1))
        scores.append(
            sum(
                float((p.grad.double() * direction.tensors[name].double()).sum())
                for name, p in engine.parameters().items()
                if p.grad is not None and name in direction.tensors
            )
        )
    engine.clear()
    return torch.tensor(scores, dtype=torch.float64)


def error_of(
    engine: Engine, name: str, backend: Any, direction: Direction, reference: Tensor
) -> str:
    """Return the largest error of the scores of a backend, or the reason of its refusal."""
    try:
        try_model(engine, name, backend)
    except UserError as error:
        return f"refused: {str(error).partition(': ')[2].partition('. Use')[0]}"
    if backend == "ghost":
        with Ghost(engine, direction) as ghost:
            engine.backward(text(2))
        engine.clear()
        scores = ghost.scores
    else:
        scores = finite_differences(engine, direction, text(2))[0]
    return f"{float((scores - reference).abs().max() / reference.abs().max()):.0e}"


def reloaded(engine: Engine, folder: Path) -> str:
    """Return whether a model that is saved and loaded has the same losses."""
    engine.model.save_pretrained(folder)
    file = folder / "config.json"
    file.write_text(json.dumps(with_earlier_keys(json.loads(file.read_text()))))
    other = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    batch = text(2)
    with torch.no_grad():
        own, again = (
            LanguageLoss(model, "float32")(batch.inputs, batch.labels).tokens
            for model in (engine.model, other)
        )
    difference = float((own - again).abs().max())
    return "same losses" if difference < 1e-5 else f"losses differ by {difference:.0e}"


def report(rows: list[str], steps: int) -> str:
    """Return the result as Markdown."""
    refused = sum(row.split("|")[2].startswith(" refused:") for row in rows)
    about = (
        f"{len(rows)} model types, {refused} of them refused before the first step. Two layers of "
        f"width {WIDTH}, {steps} steps of {SEQUENCES} x {TOKENS} tokens, float32. `train`: loss on "
        "another batch before and after, and how experts are balanced. `head`: the output layer is "
        "fused with its loss, or all logits are kept. `ghost` and `finite difference`: largest "
        "error of a sequence's score, relative to the largest score, against one backward pass per "
        "sequence."
    )
    head = f"| model type | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}\n"
    return "\n\n".join(["# Architectures", headline(), about, head + "\n".join(rows)]) + "\n"


if __name__ == "__main__":
    main()
