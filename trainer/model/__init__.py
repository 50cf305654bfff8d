"""The model: forward pass, backward pass and update.

In: the config and batches. Out: losses, gradients and updated weights. `engine.py` runs the passes
on any number of processes; `flops.py` and `memory.py` say what a model costs.
"""
