"""State: everything that survives the end of a process.

In: the state of a run, its model and its optimizer. Out: checkpoints, metrics.jsonl and the exported
model. `resume.py` and `numeric_checks.py` stop runs that would produce wrong results.
"""
