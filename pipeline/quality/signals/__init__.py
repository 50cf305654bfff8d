"""Texts in, the quality signals of RedPajama-V2 that text alone decides out.

`measure` computes all of them for a batch, and `fill` adds them to documents that have none.
`characters`, `words`, `raw_words`, `ngrams` and `by_line` compute one kind each.
"""
