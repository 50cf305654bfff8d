"""Run the parts of a build on a Ray cluster. The functions are those that a plain loop calls.

`cluster` connects and checks the workers, `stages` schedules the parts of a stage, and `needs` says
what a part takes. `worker` and `gpus` run in the workers. Only this package imports Ray, and only
`cluster`, `stages` and `gpus` do. Nothing here imports Prefect.
"""
