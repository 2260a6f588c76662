"""Measure Stillhouse beside what it replaces: same machine, same text, in turns.

    python launch/bench.py prep --input data/simplewiki --vocabulary vocab.txt --json prep.json
    python launch/bench.py loader
    python launch/bench.py train --shape large --row-tokens 512 --json train.json
    python launch/bench.py kernels
    python launch/bench.py distill --teacher-shape base --student-layers 6 --json distill.json
    python launch/bench.py gpu --minutes 10 --out gpu_results

Each prints a table of medians and ratios; a ratio above 1 means that ours is the faster one.
Absolute speeds depend on what else the machine does, ratios of the same run hardly do.
"""

import argparse
import importlib
import sys
import tempfile
from functools import partial
from pathlib import Path
from types import ModuleType

# A benchmark measures this very source, not one that is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from launch.command_line.packages import packages_required

with packages_required():
    from launch.benchmarks.report import print_table, write_findings
    from launch.command_line.errors import run_command
    from launch.command_line.parser import CommandParser

# Modules of launch/benchmarks. Each has `add_arguments(parser)` and `run(arguments, scratch)`,
# which returns rows (gpu: `run_command_line(arguments)`); its first line is help.
_BENCHMARKS = ("prep", "loader", "train", "kernels", "distill", "gpu")


def main() -> None:
    """Run the benchmark that the command line names."""
    arguments = _parser(sys.argv[1] if len(sys.argv) > 1 else None).parse_args()
    arguments.command(arguments)


def _measure(module: ModuleType, arguments: argparse.Namespace) -> None:
    """Run one benchmark, print its rows and what they are, and write them as JSON with `--json`."""
    with tempfile.TemporaryDirectory(prefix="stillhouse-bench-", dir=arguments.scratch) as scratch:
        rows = [row.to_json() for row in module.run(arguments, Path(scratch))]
    print(module.__doc__)
    print_table(rows)
    if arguments.json:
        write_findings(arguments.json, {"rows": rows})


def _parser(wanted: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of all benchmarks, or of one: the others may take seconds to import."""
    parser = CommandParser(description=__doc__)
    benchmarks = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    for name in [wanted] if wanted in _BENCHMARKS else _BENCHMARKS:
        module = importlib.import_module(f"launch.benchmarks.{name}")
        summary = (module.__doc__ or "").partition("\n")[0]
        own = benchmarks.add_parser(name, help=summary, description=module.__doc__)
        module.add_arguments(own)
        own.set_defaults(command=getattr(module, "run_command_line", partial(_measure, module)))
        own.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
        own.add_argument("--scratch", type=Path, metavar="DIR", help="where temporary files go")
        own.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    return parser


if __name__ == "__main__":
    run_command(main)
