"""Documents in, catalog out. `run.py` is the story."""
