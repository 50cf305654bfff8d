"""The model: forward pass, backward pass and update.

The inputs are the config and batches. The outputs are losses, gradients and updated weights.
`engine.py` runs the passes on any number of processes. `flops.py` and `memory.py` compute the work
and the memory of a model.
"""
