"""Vectors in, a tree of nested centroids and each document's leaf out.

`stage` trains the tree and assigns parts. `sample`, `grow` and `polish` are the steps of training,
`kmeans` and its helpers one split; `tree`, `search` and `descend` find leaves; `measure` judges.
"""
