"""The encoder of a catalog. Embeddings of corpus and targets must be comparable."""

from typing import Any, Literal

from data_catalog.settings import Settings

Precision = Literal["float32", "bfloat16", "int8"]
Backend = Literal["torch", "onnx", "openvino"]


class Identity(Settings):
    """Encoder and backend that computed embeddings."""

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
        """Properties that must be equal for two sets of embeddings to be comparable.

        float32 and bfloat16 are comparable on all backends: vectors of the same text have a cosine
        above 0.9998 (benchmarks/embed_backends.py). With 8-bit weights, the minimum is 0.987.
        """
        kept = self.model_dump(
            mode="json", include={"sha256", "dimension", "max_tokens", "windows"}
        )
        return {**kept, "weights": "int8" if self.precision == "int8" else "float"}
