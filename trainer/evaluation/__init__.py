"""Evaluation: held-out losses, objectives of the target, and accuracy.

The inputs are a model's engine and held-out sequences or questions. The outputs are losses with
standard errors.
`accuracy.py` measures an exported model on multiple-choice tasks with lm-evaluation-harness.
"""
