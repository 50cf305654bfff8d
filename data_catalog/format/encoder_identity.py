"""Which encoder made a catalog's embeddings: those of the corpus and of the targets must be comparable."""

from typing import Any, Literal

from data_catalog.settings import Settings

Precision = Literal["float32", "bfloat16", "int8"]
Backend = Literal["torch", "onnx", "openvino"]


class Identity(Settings):
    """Which encoder made some embeddings, and on what."""

    model: str
    sha256: str  # of model.safetensors
    dimension: int
    max_tokens: int
    windows: int = 1  # of a document, at most: their mean; 1: its head
    precision: Precision
    backend: Backend = "torch"

    @property
    def comparable(self) -> dict[str, Any]:
        """What decides whether two sets of embeddings may be compared.

        float32 and bfloat16 may, on any backend: the same text's vectors have a cosine above 0.9998 (benchmarks/embed_backends.py),
        so that one machine can go on where another stopped. With 8-bit weights it is 0.987 at the least.
        """
        kept = self.model_dump(
            mode="json", include={"sha256", "dimension", "max_tokens", "windows"}
        )
        return {**kept, "weights": "int8" if self.precision == "int8" else "float"}
