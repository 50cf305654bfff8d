"""State: everything that remains after the end of a process.

The inputs are the state of a run, its model and its optimizer. The outputs are checkpoints,
metrics.jsonl and the exported model. `resume.py` and `numeric_checks.py` stop runs that would
produce wrong results.
"""
