"""The command line.

Each command parses its arguments, calls one library function, and prints the result. Heavy imports
are inside the commands, so that `clustermix --help` and shell completion stay fast.
"""
