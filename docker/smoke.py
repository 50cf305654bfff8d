"""Write a corpus of 60 short documents, a target, and configs to build and train in seconds.

The last check of an image runs them.
"""

import json
import sys
from pathlib import Path

SUBJECTS = {
    "kitchen": "bread butter oven flour soup recipe simmer onion pastry salt",
    "harbour": "boat wind mast anchor wave crew rope storm tide sail",
    "sky": "star planet telescope orbit galaxy comet moon light gravity nebula",
}

BUILD = """\
out = "{folder}/catalog"
held_out_share = 0.1
[source]
kind = "jsonl"
path = "{folder}/corpus"
[embed]
max_tokens = 32
[cluster]
granularities = [2, 4]
min_points = 10
[tokenizer]
vocabulary = 300
[[targets]]
name = "sky"
path = "{folder}/target"
"""

TRAIN = """\
catalog = "{folder}/catalog"
out = "{runs}/smoke"
target = "sky"
[model]
hidden_size = 32
layers = 2
heads = 2
[mixture]
update_every_steps = 2
basis_sequences = 2
target_sequences = 2
[training]
steps = 4
batch_sequences = 4
micro_batch_sequences = 4
sequence_tokens = 16
[evaluation]
every_steps = 4
sequences = 4
"""


def document(subject: str, number: int) -> dict[str, str]:
    """Return a document about a subject."""
    words = SUBJECTS[subject].split()
    text = " ".join(
        f"The {words[(number * step) % 10]} and the {words[(number + step) % 10]} "
        f"are near {number}."
        for step in range(1, 8)
    )
    return {"id": f"{subject}-{number}", "text": text, "source": subject}


def write(folder: Path, runs: Path) -> None:
    """Write the corpus, the target and the two configs into `folder`."""
    for name, subjects, first in (("corpus", list(SUBJECTS), 0), ("target", ["sky"], 1000)):
        (folder / name).mkdir(parents=True)
        lines = [
            json.dumps(document(subject, number))
            for subject in subjects
            for number in range(first, first + 20)
        ]
        (folder / name / "all.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "build.toml").write_text(BUILD.format(folder=folder), encoding="utf-8")
    (folder / "train.toml").write_text(TRAIN.format(folder=folder, runs=runs), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
