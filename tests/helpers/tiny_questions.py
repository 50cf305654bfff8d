"""A target of lettered questions and a byte-level tokenizer, added to a tiny catalog."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from data_catalog.format.layout import Layout
from data_catalog.format.manifest import write_json
from data_catalog.format.tables import TARGET
from data_catalog.format.tokens import write_tokens
from tests.helpers.manifests import ENCODER

END = "<|endoftext|>"
ODD = "An essay on no question at all.\nAnswer: none"


def question(i: int) -> str:
    """Return question i. It has two to four choices. Lengths differ, and some are not ASCII."""
    words = ["red", "a light green", "blå", "ultramarine with a drop of ink"][: 2 + i % 3]
    lines = [f"{'ABCD'[j]}. {words[(i + j) % len(words)]}" for j in range(len(words))]
    asked = f"What colour has thing {i}{' of the long, long row of things' * (i % 4 == 1)}?"
    return "\n".join([asked, *lines, f"Answer: {lines[i % len(words)]}"])


def add_quiz(root: Path, splits: tuple[int, int, int] = (10, 7, 9)) -> Path:
    """Add the target `quiz` with these numbers of questions per split and an odd document each."""
    texts = [question(i) for i in range(sum(splits))]
    tokenizer = byte_level([*texts, ODD])
    layout = Layout(root)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=END
    ).save_pretrained(layout.tokenizer)
    manifest = json.loads(layout.manifest.read_text())
    manifest["tokenizer"] = {
        **manifest["tokenizer"],
        "vocabulary": tokenizer.get_vocab_size(),
        "end_of_text": tokenizer.token_to_id(END),
    }
    manifest["targets"] = [*manifest["targets"], "quiz"]
    write_json(layout.manifest, manifest)
    names = [
        name
        for name, count in zip(("align", "validation", "test"), splits, strict=True)
        for _ in range(count)
    ]
    write_target(
        layout.target("quiz"),
        [*zip(texts, names, strict=True), *((ODD, name) for name in sorted(set(names)))],
        tokenizer,
    )
    return root


def write_target(folder: Path, texts: list[tuple[str, str]], tokenizer: Tokenizer) -> None:
    """Write a target of documents given as (text, split)."""
    folder.mkdir(parents=True)
    ids = [
        [*tokenizer.encode(text, add_special_tokens=False).ids, tokenizer.token_to_id(END)]
        for text, _ in texts
    ]
    rows = [
        {
            "doc_id": f"{i}",
            "id_int": i,
            "text": text,
            "split": split,
            "leaf": 2,
            "distance": 0.0,
            "tokens": len(ids[i]),
        }
        for i, (text, split) in enumerate(texts)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=TARGET), folder / "documents.parquet")
    write_tokens(folder / "tokens.arrow", pa.array(ids, pa.large_list(pa.uint16())))
    (folder / "target.json").write_text(json.dumps({"name": folder.name, "encoder": ENCODER}))


def byte_level(texts: list[str], vocabulary: int = 300) -> Tokenizer:
    """Return a byte-level BPE tokenizer like that of a catalog.

    If asked to add special tokens, it puts one before the text, as many tokenizers do.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    end = tokenizer.token_to_id(END)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", special_tokens=[(END, end)]
    )
    return tokenizer
