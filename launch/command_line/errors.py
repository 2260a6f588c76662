"""What every entry point shares: errors as one sentence with a code."""

import os
import sys
import time
from collections.abc import Callable

from data_prep.errors import UserError
from launch.command_line.packages import REFUSED, is_main_rank, is_package_missing, missing_package

_RANK_0_FIRST_S = 10


def run_command(main: Callable[[], None]) -> None:
    """Run an entry point; a `UserError` prints its sentence alone and exits with code 2."""
    try:
        main()
    except UserError as error:
        _refuse(str(error))
    except ModuleNotFoundError as error:
        if not is_package_missing(error):
            raise
        _refuse(missing_package(error))


def run_rank(main: Callable[[], None]) -> None:
    """Run an entry point that is one of several ranks, and end the process at once after it.

    Everything is written and closed by then. An ordinary exit would still take down the threads
    of the communication library, which was seen to abort a rank that had finished (SIGABRT,
    "terminate called without an active exception", once in some dozens of starts on a CPU), and
    the launcher then reports a failed run.
    """
    code = 0
    try:
        run_command(main)
    except SystemExit as ended:
        code = int(ended.code or 0)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _refuse(sentence: str) -> None:
    # Every rank finds the same mistake; the launcher ends the others once rank 0 has exited.
    if not is_main_rank():
        time.sleep(_RANK_0_FIRST_S)
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    raise SystemExit(REFUSED) from None
