"""What every entry point shares: one place where an exception becomes a sentence and a code."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from data_prep.errors import UserError

REFUSED = 2
_RANK_0_SPEAKS_S = 10


def run_command(main: Callable[[], None]) -> None:
    """Run an entry point; a `UserError` prints its sentence alone and exits with code 2."""
    try:
        main()
    except UserError as error:
        # Every rank finds the same mistake; the launcher ends the others once rank 0 has spoken.
        if os.environ.get("RANK", "0") != "0":
            time.sleep(_RANK_0_SPEAKS_S)
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(REFUSED) from None


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


def recipe_parser(description: str | None, epilog: str) -> argparse.ArgumentParser:
    """Return a parser that knows `--config RECIPE` and `key.path=value` overrides."""
    parser = argparse.ArgumentParser(
        description=(description or "").strip().splitlines()[0],
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", type=Path, required=True, metavar="RECIPE", help="a YAML recipe"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key.path=value", help="replaces one key of the recipe"
    )
    # The DeepSpeed launcher appends this to every script it starts; ranks come from RANK instead.
    parser.add_argument("--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser
