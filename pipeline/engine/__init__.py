"""Run the parts of a build in threads, in processes, or on a Ray cluster.

The functions are those that a plain loop calls. `local` uses this machine. `cluster` connects to
Ray and checks its workers, `stages` schedules the parts of a stage there, and `needs` says what a
part takes. `worker` and `gpus` run in the workers. Only this package imports Ray, and only
`cluster`, `stages` and `gpus` do. Nothing here imports Prefect.
"""
