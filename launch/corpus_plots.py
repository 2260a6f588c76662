"""Statistics of a corpus as a table and as plots: lengths, token frequencies, packing."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_prep.errors import UserError
from data_prep.samples.statistics import CorpusStatistics, Lengths, Packing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_COLORS = ("#1b6ca8", "#d1603d", "#3b8f5a")
_GREY = "#6b6b6b"
_BINS_PER_DOUBLING = 4
_RARE = 10  # occurrences


def describe(statistics: CorpusStatistics) -> str:
    """Return the statistics as a small table."""
    rows = {"documents": statistics.documents, "sentences": statistics.sentences}
    rows |= {f"samples at {each.row_tokens}": each.samples for each in statistics.packings}
    lines = [f"{'tokens':16}{'number':>13}{'mean':>9}{'median':>9}{'95 %':>9}{'longest':>9}"]
    for name, lengths in rows.items():
        lines.append(
            f"{name:16}{lengths.number:13,}{lengths.mean:9.1f}{lengths.quantile(0.5):9,}"
            f"{lengths.quantile(0.95):9,}{lengths.longest:9,}"
        )
    lines += [""] + [
        f"rows of {each.row_tokens}: {each.fills.number:,}, with "
        f"{each.samples.number / max(1, each.fills.number):.1f} samples each and "
        f"{each.padding_share:.2%} padding"
        for each in statistics.packings
    ]
    return "\n".join([*lines, "", *_describe_tokens(statistics.token_counts)])


def draw(statistics: CorpusStatistics, folder: Path) -> list[Path]:
    """Write lengths.png, frequencies.png and packing.png and return their paths.

    Raises:
        UserError: when matplotlib is not installed or a plot cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise UserError("Plots need matplotlib: pip install -e '.[plots]'.") from error
    drawings: dict[str, tuple[float, Callable[[Figure, CorpusStatistics], None]]] = {
        "lengths.png": (12.0, _draw_lengths),
        "frequencies.png": (6.4, _draw_frequencies),
        "packing.png": (6.4, _draw_packing),
    }
    paths = []
    for name, (width, drawing) in drawings.items():
        figure = Figure(figsize=(width, 3.6), layout="constrained")
        drawing(figure, statistics)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(folder / name, dpi=150)
        except OSError as error:
            raise UserError(
                f"The plot {folder / name} cannot be written ({error}): choose another folder."
            ) from error
        paths.append(folder / name)
    return paths


def _describe_tokens(counts: np.ndarray) -> Iterable[str]:
    used, total = int((counts > 0).sum()), int(counts.sum())
    shares = np.cumsum(np.sort(counts)[::-1]) / max(1, total)
    rare = int(((counts > 0) & (counts < _RARE)).sum())
    yield f"{total:,} tokens of {used:,} different ids ({len(counts):,} in the vocabulary)"
    yield f"half of all tokens are of the {int(np.searchsorted(shares, 0.5)) + 1:,} commonest ids"
    yield f"{rare:,} ids occur fewer than {_RARE} times, {len(counts) - used:,} never"


def _draw_lengths(figure: "Figure", statistics: CorpusStatistics) -> None:
    documents, sentences, samples = figure.subplots(1, 3)
    for panel, lengths, name in (
        (documents, statistics.documents, "documents"),
        (sentences, statistics.sentences, "sentences"),
    ):
        _log_histogram(panel, lengths)
        title = f"{lengths.number:,} {name}, median {lengths.quantile(0.5):,} tokens"
        _style(panel, title, f"tokens in a {name[:-1]}", f"share of {name} per doubling")
    _draw_samples(samples, statistics.packings)
    _style(samples, "training samples", "tokens in a sample", "share up to this length")
    _percent(documents.yaxis, sentences.yaxis, samples.yaxis)


def _log_histogram(panel: "Axes", lengths: Lengths) -> None:
    """Draw the density over a logarithmic axis, so that an area is a share of the items."""
    present = np.flatnonzero(lengths.counts)
    first, last = np.log2([present[0], present[-1] + 1]) * _BINS_PER_DOUBLING
    edges = 2.0 ** (np.arange(np.floor(first), np.ceil(last) + 1) / _BINS_PER_DOUBLING)
    # Lengths are integers: at the short end several bins would contain the same one.
    edges = np.unique(np.ceil(edges))
    bars, _ = np.histogram(present, edges, weights=lengths.counts[present])
    density = bars / lengths.number / np.diff(np.log2(edges))
    panel.stairs(density, edges, fill=True, color=_COLORS[0], alpha=0.85)
    panel.set_xscale("log")
    _plain_numbers(panel.xaxis)


def _draw_samples(panel: "Axes", packings: Iterable[Packing]) -> None:
    for packing, color in zip(packings, _COLORS, strict=False):
        shares = np.cumsum(packing.samples.counts) / packing.samples.number
        label = f"rows of {packing.row_tokens}"
        panel.plot(np.arange(len(shares)), shares, color=color, lw=1.8, label=label)
    panel.legend(frameon=False, fontsize=9)


def _draw_frequencies(figure: "Figure", statistics: CorpusStatistics) -> None:
    panel = figure.subplots()
    counts = np.sort(statistics.token_counts)[::-1]
    counts = counts[counts > 0]
    ranks = np.arange(1, len(counts) + 1)
    panel.loglog(ranks, counts, color=_COLORS[0], lw=1.8)
    # Zipf's law, through the middle of the curve on the logarithmic axis.
    middle = int(len(counts) ** 0.5)
    zipf = counts[middle - 1] * middle / ranks
    shown = (zipf >= counts[-1]) & (zipf <= counts[0] * 2)
    panel.loglog(ranks[shown], zipf[shown], color=_GREY, lw=1.0, ls="--")
    panel.annotate(
        "Zipf: 1 / rank",
        (ranks[shown][0], zipf[shown][0]),
        xytext=(6, 2),
        textcoords="offset points",
        fontsize=9,
        color=_GREY,
    )
    _plain_numbers(panel.xaxis, panel.yaxis)
    title = f"token frequencies: {len(counts):,} of {len(statistics.token_counts):,} ids occur"
    _style(panel, title, "rank of the token", "occurrences")


def _draw_packing(figure: "Figure", statistics: CorpusStatistics) -> None:
    """Draw the share of each row that is filled, from the fullest row to the emptiest."""
    panel = figure.subplots()
    lowest = 1.0
    for packing, color in zip(statistics.packings, _COLORS, strict=False):
        fills = np.flatnonzero(packing.fills.counts)[::-1]
        ends = np.cumsum(packing.fills.counts[fills]) / packing.fills.number
        label = f"rows of {packing.row_tokens}: {packing.padding_share:.2%} padding"
        heights = fills / packing.row_tokens
        panel.stairs(heights, [0, *ends], baseline=None, color=color, lw=1.8, label=label)
        # The last few rows are incomplete; including them would compress the rest of the plot.
        lowest = min(lowest, packing.fills.quantile(0.001) / packing.row_tokens)
    panel.set_ylim(max(0.0, np.floor(lowest * 10) / 10 - 0.1), 1.01)
    panel.legend(frameon=False, fontsize=9, loc="lower left")
    _percent(panel.xaxis, panel.yaxis)
    _style(panel, "fill of rows", "rows, from the fullest to the emptiest", "tokens filled")


def _style(panel: "Axes", title: str, across: str, up: str) -> None:
    panel.set_title(title, fontsize=10.5, loc="left")
    panel.set_xlabel(across, fontsize=9, color=_GREY)
    panel.set_ylabel(up, fontsize=9, color=_GREY)
    panel.tick_params(labelsize=9, color=_GREY, labelcolor=_GREY)
    panel.grid(color="#e6e6e6", lw=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color("#c8c8c8")


def _plain_numbers(*axes: "Axis") -> None:
    from matplotlib.ticker import FuncFormatter

    for axis in axes:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _percent(*axes: "Axis") -> None:
    from matplotlib.ticker import PercentFormatter

    for axis in axes:
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
