"""Prefect flows: `build`, `add`, `train` and `experiment`. No arithmetic happens here.

The command line is in `flows.cli`, the HTML pages are in `flows.pages`.
"""
