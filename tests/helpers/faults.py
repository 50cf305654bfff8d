"""Outcomes of a trial in `tests/faults`. A trial that returns has survived."""


class Lost(AssertionError):
    """Something that existed before the fault is gone, or a document is missing without a count."""


class Wrong(AssertionError):
    """A command reported success, and what it shows or wrote is not right."""
