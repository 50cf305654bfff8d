"""Catalog in, model out: training on a mixture of domains whose weights are learned on the way. Start reading at `loop.py`."""
