"""Write what was measured into the documentation, from the reports in launch/results/.

    python launch/results_table.py [--into FILE]

A report is what `launch/bench.py NAME --json launch/results/NAME_MACHINE.json` leaves, or
`launch/study.py --json launch/results/study_NAME.json`, or
`launch/compare.py ... --json launch/results/continued_NAME.json`. What has none is listed as not
measured yet: no figure gets into the documentation by hand.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# A script finds its own folder, not the one above it, from which the tables' code is read.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from launch.studies.summary import render_study

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "launch" / "results"
README = ROOT / "README.md"
# Each table lies between two comment lines that carry its marker's name.
SPEEDS, STUDY, CONTINUED, FIGURES = "results", "study", "continued", "figures"
# What each benchmark measures, in the order of the table.
_BENCHMARKS = {
    "prep": "preparing a corpus",
    "loader": "making batches",
    "train": "a training step",
    "kernels": "fused operations",
    "distill": "a distillation step",
}
# What is made for a GPU, and says nothing final where it was measured on a processor alone.
_ON_GPU = ("train", "kernels", "distill")
_HEAD = """\
| what | measured | how many times as fast as | on |
|---|---|---|---|"""


def main() -> None:
    """Renew the tables of the file that the command line names."""
    arguments = _parser().parse_args()
    path: Path = arguments.into
    if not path.is_file():
        sys.exit(f"error: There is no file {path}: correct --into.")
    text = path.read_text(encoding="utf-8")
    tables = {arguments.speeds_marker: render(RESULTS), arguments.study_marker: render_studied()}
    if path == default_target():
        tables[CONTINUED] = render_continued()
    for name, table in tables.items():
        text = replace_table(text, table, name, path)
    path.write_text(text, encoding="utf-8")
    readme = README.read_text(encoding="utf-8")
    README.write_text(replace_table(readme, render_figures(), FIGURES, README), encoding="utf-8")


def default_target(root: Path = ROOT) -> Path:
    """Return `docs/benchmarks.md` where there is one, else `README.md`."""
    page = root / "docs" / "benchmarks.md"
    return page if page.is_file() else root / "README.md"


def markers(name: str) -> tuple[str, str]:
    """Return the lines that stand before and after the table of a name."""
    return f"<!-- {name}: launch/results_table.py writes this -->", f"<!-- /{name} -->"


def replace_table(text: str, table: str, name: str = SPEEDS, path: Path | None = None) -> str:
    """Return a text with the table between the markers of a name; `path` is for the error."""
    begin, end = markers(name)
    if begin not in text or end not in text:
        where = path or "The text"
        sys.exit(f"error: {where} has no lines {begin} and {end}: add them where the table goes.")
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{table}\n{end}{after}"


def render_studied(folder: Path = RESULTS) -> str:
    """Return the tables of all studies of students, with the machine of each."""
    reports = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("study_*.json"))]
    tables = [f"{render_study(report)} On {report['device']}." for report in reports]
    return "\n\n".join(tables) or "`launch/study.py`: not measured yet"


def render_continued(folder: Path = RESULTS) -> str:
    """Return the table of models before and after continued pretraining, by corpus."""
    lines = ["| held-out text | model | MLM loss | MLM accuracy | on |", "|---|---|---|---|---|"]
    for path in sorted(folder.glob("continued_*.json")):
        report = json.loads(path.read_text("utf-8"))
        lines += [
            f"| {report['corpus']} | {model['name']} | {model['loss']:.3f} | "
            f"{model['accuracy']:.1%} | {report['device']} (`{path.name}`) |"
            for model in report["models"]
        ]
    return "\n".join(lines) if len(lines) > 2 else "not measured yet"


def render_figures(folder: Path = RESULTS) -> str:
    """Return the three figures of the README: preparation, batches, a student beside its teacher.

    The newest report by name counts; where there is none, the figure is not measured yet.
    """
    lines = ["| what | figure | measured on |", "|---|---|---|"]
    for name, row, what in (
        ("prep", "ours/prepare_data", "text to token shards"),
        ("loader", "ours/uniform", "shards to masked, packed batches, one process"),
    ):
        report = _newest(folder, name)
        found = next((r for r in report.get("rows", []) if r["name"] == row), None)
        figure = "not measured yet"
        if found:
            peer, ratio = next(iter(found["ratio"].items()))
            peer = peer.partition("/")[2].replace("_", " ")
            figure = f"{_shown(found['median'])} {found['unit']}, {ratio:.1f} × the {peer}"
        lines.append(f"| {what} | {figure} | {report.get('device', '')} |")
    return "\n".join([*lines, _student_figure(_newest(folder, "study_simplewiki"))])


def _student_figure(report: Mapping[str, Any]) -> str:
    """Return the line of a student of half the layers, from the study of its methods."""
    what = "MLM accuracy of a distilled student of half its teacher's layers"
    rows = {row["name"]: row for row in report.get("rows", [])}
    if not {"teacher", "distilbert", "none"} <= rows.keys():
        return f"| {what} | not measured yet | |"
    student, teacher, alone = (
        f"{statistics.mean(seed['accuracy'] for seed in rows[name]['seeds']):.1%}"
        for name in ("distilbert", "teacher", "none")
    )
    figure = f"{student} (teacher {teacher}, from scratch {alone})"
    return f"| {what} | {figure} | {report['device']} |"


def _newest(folder: Path, name: str) -> dict[str, Any]:
    """Return the last report of a name that has no error, empty where there is none."""
    paths = [*sorted(folder.glob(f"{name}_*.json")), *sorted(folder.glob(f"{name}.json"))]
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return next((r for r in reversed(reports) if "error" not in r), {})


def render(folder: Path) -> str:
    """Return the table of all reports in a folder, by the beginning of their names."""
    lines = [_HEAD]
    for name, what in _BENCHMARKS.items():
        paths = sorted(folder.glob(f"{name}_*.json")) + sorted(folder.glob(f"{name}.json"))
        reports = [
            {"report": path.stem, **json.loads(path.read_text(encoding="utf-8"))} for path in paths
        ]
        # What `bench.py gpu` leaves of a part that failed has no figures.
        reports = [report for report in reports if "error" not in report]
        lines += [line for report in reports for line in _lines(report, what)]
        if not any(report.get("gpu") or name not in _ON_GPU for report in reports):
            where = " on a GPU" if name in _ON_GPU else ""
            lines.append(f"| {what}, `bench.py {name}` | not measured yet{where} | | |")
    return "\n".join(lines)


def _lines(report: Mapping[str, Any], what: str) -> Iterator[str]:
    """Yield a line for each of our rows that was compared with something."""
    for row in report["rows"]:
        if row["name"].startswith("ours/") and row["ratio"]:
            against = ", ".join(f"{value:.2f} `{name}`" for name, value in row["ratio"].items())
            name = row["name"].removeprefix("ours/")
            figure = f"{_shown(row['median'])} {row['unit']}{_peak(row)}"
            where = f"{report['device']} (`{report['report']}.json`)"
            yield f"| {what}: `{name}` | {figure} | {against} | {where} |"


def _peak(row: Mapping[str, Any]) -> str:
    if row["peak_bytes"] is None:
        return ""
    return f", {row['peak_bytes'] / 1e9:.2f} GB"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Write what was measured into the documentation.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--into", type=Path, default=default_target(), metavar="FILE", help="with the markers"
    )
    parser.add_argument("--speeds-marker", default=SPEEDS, metavar="NAME", help="of the speeds")
    parser.add_argument("--study-marker", default=STUDY, metavar="NAME", help="of the study")
    return parser


if __name__ == "__main__":
    main()
