"""Sampling: from mixture weights to sequences and batches.

The inputs are the weights of an interval and the seed. The outputs are a plan of its draws, and
batches as tensors. `basis.py` builds the matrix whose rows are weighted. `fill.py` turns
weights into draws. `bounds.py` limits the draws.
"""
