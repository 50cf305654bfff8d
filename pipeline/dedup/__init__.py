"""Documents and quality's verdicts in, final verdicts with one copy of each document kept out.

`stage` runs the tiers before clustering (`exact`, and `minhash` on the parts of `signatures`),
`semantic` the tier after it. `removed` counts the drops by source; `places` numbers documents.
"""
