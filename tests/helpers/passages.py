"""Texts that share passages, made of words that occur nowhere else."""


def passage(name: str, words: int) -> str:
    """Return words that only passages of this name have."""
    return " ".join(f"{name}{i}" for i in range(words))


def grams_of(text: str) -> set[tuple[str, ...]]:
    """Return the 13-grams of a text of lower-case words without punctuation, spelled out."""
    words = text.split()
    return {tuple(words[i : i + 13]) for i in range(len(words) - 12)} or {tuple(words)}
