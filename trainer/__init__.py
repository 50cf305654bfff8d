"""Training on a mixture of domains with learned weights. Start reading at `loop.py`."""
