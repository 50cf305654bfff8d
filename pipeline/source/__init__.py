"""In: a section `source` of a build's config. Out: one part per shard, with its readable documents
and a quarantine of what could not be read (`stage`). Each kind of source is one module with one
class (`interface`), listed in `registry`. Also here: targets (`targets`), retries (`backoff`)."""
