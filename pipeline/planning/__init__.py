"""In: a build's config. Out: an `Estimate` of its documents, time and disk space (`estimate`).
It is extrapolated from the heads of some shards (`heads`) and a short trial of this machine
(`rates`). Nothing is written."""
