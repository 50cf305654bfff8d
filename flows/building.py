"""Building and adding with a given way to run the stages. The catalog's page is written last."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from data_catalog.format.layout import WORK
from data_catalog.place import Folder
from flows.pages.catalog import write_catalog_page
from flows.progress import working
from flows.stage_display import ReportingEach
from pipeline import run
from pipeline.absolute_paths import with_absolute_paths
from pipeline.add import add, check_addition
from pipeline.config import Addition, Build, Embed
from pipeline.engine.config import Cluster
from pipeline.run import Each

PAGE = "report.html"


def build_catalog(
    config: Build, each: Each, cluster: Cluster | None, shown: Callable[[ReportingEach], Each]
) -> Folder:
    """Build a catalog and its page. Return the catalog's folder.

    Args:
        config: The build.
        each: Runs the stages on this machine.
        cluster: Ray cluster that runs them instead, or None.
        shown: Makes an `Each` of the cluster's engine.

    Raises:
        UserError: The config, the data or the cluster cannot be used.
    """
    if cluster is None:
        root = run.build(config, each)
    else:
        config = with_absolute_paths(config)
        run.check_request(config)  # before anything is written
        with _on_ray(cluster, config.out, config, config.embed) as engine:
            root = run.build(config, shown(engine))
    write_catalog_page(root, root / PAGE)
    return root


def add_to_catalog(
    catalog: Folder,
    addition: Addition,
    each: Each,
    cluster: Cluster | None,
    shown: Callable[[ReportingEach], Each],
) -> Folder:
    """Add to a catalog and write its page. Return the catalog's folder.

    Args:
        catalog: A finished catalog.
        addition: A source, targets or both.
        each: Runs the stages on this machine.
        cluster: Ray cluster that runs them instead, or None.
        shown: Makes an `Each` of the cluster's engine.

    Raises:
        UserError: The addition, the catalog or the cluster cannot be used.
    """
    if cluster is None:
        root = add(catalog, addition, each)
    else:
        catalog = catalog.absolute() if isinstance(catalog, Path) else catalog
        addition = with_absolute_paths(addition)
        _, config, _ = check_addition(catalog, addition)
        with _on_ray(cluster, catalog, addition, config.embed) as engine:
            root = add(catalog, addition, shown(engine))
    write_catalog_page(root, root / PAGE)
    return root


@contextmanager
def _on_ray(
    cluster: Cluster, root: Folder, config: Build | Addition, embed: Embed
) -> Iterator[ReportingEach]:
    """Yield the engine of a Ray cluster whose machines have been checked."""
    from pipeline.engine.cluster import connected  # noqa: PLC0415 - Ray is optional

    with ExitStack() as stack:
        with working("Connecting to Ray, and checking its machines."):
            engine = stack.enter_context(connected(cluster, root / WORK, config, embed))
        yield engine
