"""The model card: a README.md that says what an exported model was trained on."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedModel

from data_catalog import __version__
from data_catalog.untrusted import escape
from trainer.config import UNIDENTIFYING, Train
from trainer.evaluation.evaluate import HeldOutLoss
from trainer.evaluation.tokenizer import open_tokenizer
from trainer.inputs import Inputs
from trainer.sampling.plan import leaf_weights
from trainer.state.checkpoint import State

LISTED_DOMAINS = 5
_TERMS = 3  # of a domain
# Characters that have a meaning in Markdown, in text that comes from documents.
_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\`*_[]|#~"})

# Settings that are paths of one machine.
_PATHS = (
    "model.path",
    "data.budgets",
    "mixture.file",
    "mixture.reference",
    "mixture.general_loss_at_most",
)

_CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
tags:
- clustermix
---
# {name}

A causal language model ({kind}, {parameters:,} parameters) trained by clustermix {version}.
It was trained for {steps:,} steps, on {tokens:,} tokens, from {origin}.

## Data

- Catalog: {catalog}, version {catalog_version}, fingerprint `{fingerprint}`
- Size of the catalog: {documents:,} documents, {catalog_tokens:,} tokens
- Target: {target}

## Mixture

The weights of the domains were set by the method `{mixer}`. The run's files `weights.parquet` and
`weights.json` have all of them. The largest of the {level:,} domains at the end of pretraining:

| domain | terms | share |
|---|---|---:|
{domains}

## Held-out losses

In nats per token, or per question where the target's objective is about questions.

| set | loss | standard error | bits per byte |
|---|---:|---:|---:|
{losses}

## Tokenizer and context

- `tokenizer.json`: sha256 `{tokenizer}`, {vocabulary:,} token ids
- End of text: `{end_of_text}`, id {end_of_text_id}. It closes each document, and generation stops
  at it.
- The model was trained on sequences of {sequence_tokens:,} tokens. It reads at most {context:,}.
- Documents were encoded without other special tokens. Use `add_special_tokens=False`.

## Limits

- The losses are of one run with one seed. Their standard errors are over documents.
- The model is not tuned to follow instructions, and nothing but the losses above was evaluated.
- It can repeat text of its documents, with their errors and biases.

## Reproduce

`clustermix train` with the same catalog and these settings. Paths are left out.

{settings}

## Licence

Not stated. It depends on the licences of the documents{origin_licence}, which the catalog does not
record. Its source was of the kind {source}. Add a licence before you publish the model.
"""


def model_card(
    config: Train,
    inputs: Inputs,
    model: PreTrainedModel,
    state: State,
    results: Sequence[HeldOutLoss],
    context: int,
) -> str:
    """Return the text of the model card, in Markdown.

    Args:
        config: the config of the run.
        inputs: the inputs of the run.
        model: the model.
        state: the state of the run when the model is exported.
        results: the held-out losses of the model.
        context: number of tokens that the model reads at once.
    """
    manifest, path, out = inputs.files.manifest, config.model.path, config.out
    # A path of this machine says nothing elsewhere, and may be private.
    named = path and _text(Path(path).resolve().name if Path(path).exists() else path)
    return _CARD.format(
        name=_text((out.resolve() if isinstance(out, Path) else out).name),
        kind=_text(model.config.model_type),
        parameters=sum(p.numel() for p in model.parameters()),
        version=__version__,
        steps=state.step,
        tokens=state.tokens,
        origin=f"random weights (preset {config.model.preset})" if named is None else named,
        origin_licence="" if named is None else f" and on that of {named}",
        catalog=_text(inputs.files.root.resolve().name),
        catalog_version=manifest.version,
        fingerprint=_text(manifest.fingerprint),
        documents=manifest.documents,
        catalog_tokens=manifest.tokens,
        target=_text(config.target),
        mixer=config.mixture.mixer,
        level=inputs.level,
        domains="\n".join(_domain_rows(inputs, state)),
        losses="\n".join(map(_loss_row, results)),
        tokenizer=manifest.tokenizer.sha256,
        vocabulary=manifest.tokenizer.vocabulary,
        end_of_text=_text(str(open_tokenizer(inputs.files).id_to_token(inputs.files.end_of_text))),
        end_of_text_id=inputs.files.end_of_text,
        sequence_tokens=config.training.sequence_tokens,
        context=context,
        settings="\n".join(_settings(config)),
        source=_text(str(manifest.config.get("source", {}).get("kind", "unknown"))),
    )


def _settings(config: Train) -> Iterator[str]:
    """Return the settings that were given, as lines of TOML in an indented block of code.

    JSON without line breaks ends neither the block nor a line, whatever a text contains.
    """

    def lines(tree: Mapping[str, Any], prefix: str) -> Iterator[str]:
        for name, value in tree.items():
            key = prefix + (name if name.isidentifier() else json.dumps(name))
            if isinstance(value, dict):
                yield from lines(value, f"{key}.")
            elif value is not None and key not in _PATHS:
                yield f"    {key} = {json.dumps(value)}"

    return lines(
        config.model_dump(mode="json", exclude=UNIDENTIFYING, exclude_unset=True), prefix=""
    )


def _domain_rows(inputs: Inputs, state: State) -> list[str]:
    """Return a table row per domain with the largest weights at the end of pretraining."""
    weights = leaf_weights(state.mixer.sampling, inputs.basis.matrix)
    shares = weights.reshape(inputs.level, -1).sum(1)
    largest = np.argsort(-shares, kind="stable")[:LISTED_DOMAINS].tolist()
    terms = _domain_terms(inputs)
    return [
        f"| {domain} | {', '.join(map(_text, terms.get(domain, ())))} | {shares[domain]:.1%} |"
        for domain in largest
        if shares[domain] > 0
    ]


def _domain_terms(inputs: Inputs) -> dict[int, list[str]]:
    """Return the first terms of each domain, or nothing if the table cannot be read.

    A finished training is not lost for a table that it does not need.
    """
    try:
        rows = pq.read_table(
            inputs.files.layout.domains,
            columns=["domain", "terms"],
            filters=[("level", "==", inputs.level)],
        ).to_pylist()
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return {}
    return {row["domain"]: list(row["terms"] or ())[:_TERMS] for row in rows}


def _loss_row(result: HeldOutLoss) -> str:
    bits = "" if result.bits_per_byte is None else f"{result.bits_per_byte:.4f}"
    error = "" if np.isnan(result.error) else f"{result.error:.4f}"
    return f"| {_text(result.set)} | {result.loss:.4f} | {error} | {bits} |"


def _text(text: str) -> str:
    """Return text of a user or a document so that Markdown shows it as it is."""
    return escape(text).translate(_MARKDOWN)
