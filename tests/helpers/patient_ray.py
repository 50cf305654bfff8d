"""Ray's command line, for machines that are busy: `python -m tests.helpers.patient_ray start ...`.

Ray gives up if a node has not started after 30 seconds, and its agents after 15. Without the
modules of the dashboard they start sooner.
"""

import sys
import time
from typing import Any

from ray._private import services, utils
from ray.scripts.scripts import main

START_SECONDS = 240.0

_get_node = services.get_node


def _wait_for_node(*arguments: Any, **options: Any) -> Any:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return _get_node(*arguments, **options)
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


if __name__ == "__main__":
    services.get_node = _wait_for_node
    utils.get_dashboard_dependency_error = lambda: ImportError("not needed")
    sys.exit(main())
