"""Finished parts in, a catalog with its manifest out.

`stage` publishes a build, `next_version` an addition to an `existing_catalog`.
`accounts` checks that no document was lost; `link_files` puts files in their places.
"""
