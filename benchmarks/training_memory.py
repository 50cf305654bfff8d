"""Compare the memory that `clustermix train --dry-run` promises with that of a training.

Each architecture trains for two steps in its own process, on the CPU, in float32. The measured
memory is the growth of the resident memory from before the model is built to its peak. It is
measured as it is, and with glibc's malloc returning each freed tensor to the system at once, which
leaves out what malloc keeps in reserve.
"""

import argparse
import ctypes
import multiprocessing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoConfig
from transformers.utils import logging as transformers_logging

from benchmarks.hardware import headline, today
from benchmarks.sharded_state import MEBIBYTE, memory
from trainer.config import Model, Optimizer, Training
from trainer.distributed import Team
from trainer.model.engine import build_engine
from trainer.model.memory import empty_model, memory_need
from trainer.model.model import build_model
from trainer.model.optimizer import build_optimizer
from trainer.sampling.batches import Batch

VOCABULARY, TOKENS, SEQUENCES, WIDTH, LAYERS = 32_000, 64, 16, 256, 4
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": WIDTH // 4,
    "intermediate_size": 704,
    "max_position_embeddings": TOKENS,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": WIDTH,
    "n_layer": LAYERS,
    "n_head": 4,
    "n_positions": TOKENS,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": SIZES,
    "qwen3": SIZES,
    "mistral": SIZES,
    "olmo2": {key: value for key, value in SIZES.items() if key != "head_dim"},
    "gemma2": SIZES,
    "gpt2": GPT2,
    "olmoe": {
        **{key: value for key, value in SIZES.items() if key != "head_dim"},
        "intermediate_size": 352,
        "num_experts": 8,
        "num_experts_per_tok": 2,
    },
}
M_MMAP_THRESHOLD, PAGES = -3, 2**16  # of mallopt(3): tensors of 64 KiB are mapped by themselves


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    rows = []
    # Every measurement has a process of its own, forked after the imports.
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        for name in ARCHITECTURES:
            found = pool.starmap(measured, [(name, False), (name, True)], chunksize=1)
            promised = found[0][0]
            cells = [f"{b / MEBIBYTE:,.0f} ({promised / b - 1:+.1%})" for _, b in found]
            rows.append(f"| {name} | {promised / MEBIBYTE:,.0f} | {' | '.join(cells)} |")
            print(rows[-1], flush=True)
    about = (
        f"{LAYERS} layers of width {WIDTH}, vocabulary {VOCABULARY:,}, {SEQUENCES} x {TOKENS} "
        "tokens, AdamW, one process on the CPU. Promised: the total of `--dry-run`. Measured: "
        "growth of the resident memory from before the model is built to its peak in two steps, as "
        "it is, and with malloc returning freed tensors at once. In brackets: promised against "
        "measured."
    )
    head = "| model type | promised, MiB | measured, MiB | measured, freed at once, MiB |\n"
    table = head + "|---|---|---|---|\n" + "\n".join(rows)
    text = "\n\n".join(["# Memory of training", headline(), about, table]) + "\n"
    (arguments.out / f"{today()}-training-memory.md").write_text(text, encoding="utf-8")


def measured(name: str, returns: bool) -> tuple[int, int]:
    """Return the promised and the measured memory of a model in bytes.

    Args:
        name: type of the model.
        returns: malloc returns memory at once.
    """
    if returns:
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, PAGES)
    with TemporaryDirectory() as folder:
        AutoConfig.for_model(name, **ARCHITECTURES[name]).save_pretrained(folder)
        settings = Model(path=str(Path(folder) / "config.json"))
        training = Training.model_validate(
            {
                "batch_sequences": SEQUENCES,
                "micro_batch_sequences": SEQUENCES,
                "sequence_tokens": TOKENS,
            }
        )
        empty = empty_model(settings, VOCABULARY, TOKENS)
        promised = memory_need(empty, training, aligns=False) if empty else None
        if promised is None:
            raise SystemExit(f"{name}: no promise")
        # What libraries allocate once is no memory of a model.
        train(Model(layers=1, hidden_size=32, heads=2), training, vocabulary=64)
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = memory("VmRSS")
        train(settings, training, VOCABULARY)
        return promised.total, memory("VmHWM") - before


def train(settings: Model, training: Training, vocabulary: int) -> None:
    """Train a model for two steps on random tokens. The first, on few, makes AdamW's moments."""
    engine = build_engine(build_model(settings, vocabulary, 0, TOKENS, 0), training, Team())
    optimizer = build_optimizer(engine.model, Optimizer())
    for sequences in (1, SEQUENCES):
        draws = torch.Generator().manual_seed(sequences)
        whole = torch.randint(0, vocabulary, (sequences, TOKENS + 1), generator=draws)
        engine.clear()
        engine.backward(Batch(whole[:, :-1], whole[:, 1:], whole[:, 1:].numel()), balanced=True)
        engine.clip(1.0)
        optimizer.step()


if __name__ == "__main__":
    main()
