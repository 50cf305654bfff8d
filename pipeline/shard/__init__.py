"""Documents with leaves in, files of documents and tokens in the order of the leaves out.

An external sort: `sorted_runs` is its first half, `merge` its second, and `stage` calls both.
`tokenize` trains or copies the tokenizer and encodes texts.
"""
