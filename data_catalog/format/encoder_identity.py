"""Which encoder made a catalog's embeddings: those of the corpus and of the targets must be comparable."""

from typing import Any, Literal

from data_catalog.settings import Settings

Precision = Literal["float32", "bfloat16", "int8"]
Backend = Literal["torch", "onnx", "openvino"]


class Identity(Settings):
    """Which encoder made some embeddings, and on what."""

    model: str
    """Name of the model."""
    sha256: str
    """SHA-256 of `model.safetensors`."""
    dimension: int
    """Length of an embedding."""
    max_tokens: int
    """Maximum number of encoder tokens per document, or per window."""
    windows: int = 1
    """Maximum number of windows per document. 1 means that only its beginning is embedded."""
    precision: Precision
    """Precision of the encoder."""
    backend: Backend = "torch"
    """Library that ran the encoder."""

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
