"""Vectors in, a tree of nested centroids and each document's leaf out.

`stage` trains the tree and assigns parts. `sample`, `grow` and `polish` are the steps of training,
`kmeans` and its helpers one split; `tree` and `search` find leaves; `measure` judges. `backends`
are the libraries that do the work.
"""
