"""Prefect and the command line: order, retries, concurrency, pages. No arithmetic."""
