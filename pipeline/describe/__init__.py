"""Stored documents in, the description of every domain out.

`stage` describes one top-level domain, `domains` puts all of them together. `examples` picks
documents, `terms` picks words, `health` flags domains that look wrong and compares labels.
`leakage` finds passages of the targets in the stored documents.
"""
