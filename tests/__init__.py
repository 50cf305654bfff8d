"""Tests. The caller's terminal, proxies and Prefect profile must not decide what a test sees.

Libraries read these variables when they are imported, so they are removed before any of them is.
"""

import os

TERMINAL_VARIABLES = {
    "CLICOLOR_FORCE",
    "COLUMNS",
    "FORCE_COLOR",
    "GITHUB_ACTIONS",  # typer takes its log for a terminal
    "LINES",
    "NO_COLOR",
    "TTY_COMPATIBLE",
    "TTY_INTERACTIVE",
}

for name in list(os.environ):
    if name in TERMINAL_VARIABLES or name.startswith("PREFECT_") or name.lower().endswith("_proxy"):
        del os.environ[name]
