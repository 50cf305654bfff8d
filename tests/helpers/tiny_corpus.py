"""A corpus of short documents on four subjects as JSON Lines, with one target and its config."""

import json
from pathlib import Path
from typing import Any

SUBJECTS = {
    "cooking": (
        "bread",
        "butter",
        "oven",
        "flour",
        "soup",
        "recipe",
        "simmer",
        "onion",
        "pastry",
        "salt",
    ),
    "sailing": (
        "boat",
        "wind",
        "harbour",
        "mast",
        "anchor",
        "wave",
        "crew",
        "rope",
        "storm",
        "tide",
    ),
    "astronomy": (
        "star",
        "planet",
        "telescope",
        "orbit",
        "galaxy",
        "comet",
        "moon",
        "light",
        "gravity",
        "nebula",
    ),
    "music": (
        "violin",
        "chord",
        "melody",
        "rhythm",
        "piano",
        "concert",
        "singer",
        "tempo",
        "flute",
        "opera",
    ),
}


def sentences(words: tuple[str, ...], i: int) -> str:
    a, b, c, d = (words[(i * step + step) % len(words)] for step in (1, 3, 7, 9))
    return (
        f"The {a} and the {b} number {i}. Every {c} needs a {d}, "
        f"and the {a} {i % 7} comes before the {c}. "
    ) * (1 + i % 3)


def write_corpus(folder: Path, documents: int = 160) -> dict[str, Any]:
    """Write two files of documents and a target on astronomy. Return the config of a build."""
    names = list(SUBJECTS)
    rows = [
        {"id": f"doc-{i}", "text": sentences(SUBJECTS[names[i % 4]], i), "source": names[i % 4]}
        for i in range(documents)
    ]
    (folder / "corpus").mkdir(parents=True)
    for part in (0, 1):
        lines = [json.dumps(row) for row in rows[part::2]]
        (folder / "corpus" / f"part-{part}.jsonl").write_text("\n".join(lines) + "\n")
    with (folder / "corpus" / "part-1.jsonl").open("a") as file:
        file.write(
            '{"id": "copy", "text": '
            + json.dumps(rows[0]["text"])
            + '}\n{"no": "text"}\nnot json\n'
        )
    (folder / "target").mkdir()
    # The test split has another subject, so that its use in the distributions would be visible.
    for name, subject, count in (("train", "astronomy", 40), ("test", "music", 10)):
        lines = [
            json.dumps({"id": f"{name}-{i}", "text": sentences(SUBJECTS[subject], 1000 + i)})
            for i in range(count)
        ]
        (folder / "target" / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return {
        "out": str(folder / "catalog"),
        "source": {"kind": "jsonl", "path": str(folder / "corpus")},
        "embed": {"max_tokens": 32},
        "cluster": {"granularities": [2, 4], "min_points": 20},
        "tokenizer": {"vocabulary": 400},
        "held_out_share": 0.1,
        "targets": [{"name": "space", "path": str(folder / "target")}],
    }
