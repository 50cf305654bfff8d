"""All measurements that need a GPU, in one command and one table: `benchmarks/gpu/run.sh`.

`__main__` runs each part in a process with a share of the time. A part is a module with a function
`run(part)`, which records its rows as it finishes them. The same command with `--scale cpu` runs
everything at tiny sizes.
"""
