"""In: the name of a remote corpus. Out: a local folder that a source can read (`rpv2`, `dataset`).
Interrupted fetches resume. Each file's outcome is recorded (`record`), transfers retry and verify
(`transfer`, `partial`), and listings from outside are never trusted (`listing`)."""
