"""Vectors in, centroids and nearest cells out: one module per library.

`backend` is the protocol and picks the library.
"""
