"""Measure Stillhouse beside what it replaces: same machine, same text, taking turns.

    python launch/bench.py prep --input data/simplewiki --vocabulary vocab.txt --json prep.json
    python launch/bench.py loader

Each prints a table of medians and ratios; a ratio above 1 means that ours is the faster one.
Absolute speeds depend on what else the machine does, ratios of the same run hardly do.
"""

import argparse
import sys
import tempfile
from pathlib import Path

try:
    from launch.benchmarks import loader, prep
    from launch.benchmarks.report import print_table, write_report
    from launch.cli import run_command
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("data_prep", "launch"):
        raise
    print("error: Stillhouse is not installed here: run `pip install -e .` first.", file=sys.stderr)
    sys.exit(2)

# Each has `add_arguments(parser)` and `run(arguments, scratch) -> rows`; its first line is help.
_BENCHMARKS = {"prep": prep, "loader": loader}


def main() -> None:
    """Run one benchmark, print its table, and write it as JSON where that is asked for."""
    arguments = _parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="stillhouse-bench-", dir=arguments.scratch) as scratch:
        rows = _BENCHMARKS[arguments.benchmark].run(arguments, Path(scratch))
    print_table(rows)
    if arguments.json:
        write_report(arguments.json, rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").strip().splitlines()[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    benchmarks = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    for name, module in _BENCHMARKS.items():
        summary = (module.__doc__ or "").strip().splitlines()[0]
        own = benchmarks.add_parser(
            name,
            help=summary,
            description=summary,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        module.add_arguments(own)
        own.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
        own.add_argument("--scratch", type=Path, metavar="DIR", help="where temporary files go")
        own.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    return parser


if __name__ == "__main__":
    run_command(main)
