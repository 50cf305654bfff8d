"""The kinds of sources. This is the only list of them beside `pipeline.source.config.AnySource`."""

from typing import Any

from pipeline.config import Build
from pipeline.source.config import AnySource
from pipeline.source.dataset import DatasetSource
from pipeline.source.interface import NO_RESERVATIONS, Reservations, Source
from pipeline.source.jsonl import JsonlSource
from pipeline.source.parquet import ParquetSource
from pipeline.source.python_docs import PythonDocsSource
from pipeline.source.rpv2 import Rpv2Source
from pipeline.source.text import TextSource

SOURCES: dict[str, type[Source[Any]]] = {
    "rpv2": Rpv2Source,
    "jsonl": JsonlSource,
    "parquet": ParquetSource,
    "text": TextSource,
    "dataset": DatasetSource,
    "python-docs": PythonDocsSource,
}


def open_source(section: AnySource, reservations: Reservations = NO_RESERVATIONS) -> Source[Any]:
    """Return the source that a config section describes, without touching any file."""
    return SOURCES[section.kind](section, reservations)


def corpus_source(config: Build) -> Source[Any]:
    """Return the source of a build's corpus, with the places of the build's targets left out."""
    paths = (config.targets_below, *(target.path for target in config.targets))
    modules = {prefix for target in config.targets for prefix in target.modules}
    return open_source(
        config.source,
        Reservations(tuple(path for path in paths if path is not None), tuple(sorted(modules))),
    )
