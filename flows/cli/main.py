"""The console script `clustermix`. It handles signals before it imports the commands."""

import os
import sys

try:
    from flows.interrupt import end_on_signals, finish
except KeyboardInterrupt:
    sys.stderr.write("clustermix: interrupted\n")
    os._exit(130)

DEBUG_OPTION = "--debug"


def main() -> None:
    """Run the command line of this process.

    Exit codes: 0 success, 1 failure, 2 invalid request, 129 terminal closed (SIGHUP), 130
    interrupted (Ctrl-C), 141 nobody reads the output, 143 terminated (SIGTERM).
    """
    words = sys.argv[1:]
    debug = DEBUG_OPTION in words[: words.index("--") if "--" in words else None]
    if debug:
        words = [DEBUG_OPTION, *(word for word in words if word != DEBUG_OPTION)]
    with end_on_signals(debug):
        from flows.cli.app import run

        code = run(words, debug)
        finish()
        sys.exit(code)


if __name__ == "__main__":
    main()
