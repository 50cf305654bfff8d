"""Builds, additions, trainings and experiments in this process, without Prefect.

The commands call these functions if no Prefect server is named. `flows/build.py`, `flows/train.py`
and `flows/experiment.py` do the same as flows.
"""
