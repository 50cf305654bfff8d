"""Documents in, verdicts by quality rules and the signals they rest on out.

`stage` judges a part, `rules` holds the presets as data, `signals/` computes signals from text.
`retune` and `sweep` answer what other thresholds would keep of a finished catalog.
"""
