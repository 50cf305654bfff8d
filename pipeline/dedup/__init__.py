"""Documents and quality's verdicts in, final verdicts with one copy of each document kept out.

`shuffle` has the story of the tiers before clustering, and `stage` writes their verdicts. The tiers
`shipped` and `digest` are in `exact`. `minhash` is in `signatures`, `bands`, `pairs` and `resolve`.
The tier after clustering is in `semantic`. `buckets` brings equal records of all parts together,
`removed` counts the drops by source, and `places` numbers documents for `semantic`.
"""
