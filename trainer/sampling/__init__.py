"""Sampling: from mixture weights to sequences and batches.

In: the weights of an interval and the seed. Out: a plan of its draws, and batches as tensors.
`basis.py` builds the matrix that the weights belong to; `bounds.py` limits the draws.
"""
