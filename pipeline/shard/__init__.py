"""Documents with leaves in, files of documents and tokens in the order of the leaves out.

An external sort: `ranges` divides the leaves, `sorted_runs` is the first half, `merge` the second,
and `stage` calls both. `tokenize` trains a tokenizer on a `text_sample` or copies one, and encodes
texts.
"""
