"""Position embeddings of a start, for a model with more or fewer positions."""

import torch
import torch.nn.functional as F


def resize_positions(old_PD: torch.Tensor, positions: int, trained: int) -> torch.Tensor:
    """Return a table of another length: cut, or interpolated linearly between the trained rows.

    Interpolation stretches the table, so that its first and last rows stay the first and last, as
    for images of a higher resolution (arXiv 2010.11929, section 3.2). Rows that were never trained
    are not spread over the others.

    Args:
        old_PD: [P, D].
        positions: of the new table.
        trained: the first rows of the old one, which training has reached.
    """
    if positions <= len(old_PD):
        return old_PD[:positions].clone()
    rows_1DP = old_PD[:trained].T[None]
    wide_1DP = F.interpolate(rows_1DP, size=positions, mode="linear", align_corners=True)
    return wide_1DP[0].T.contiguous()


def describe_resizing(old: int, positions: int, trained: int) -> str | None:
    """Return the line for the log, None where nothing changes."""
    if positions == old:
        return None
    if positions < old:
        return f"the first {positions} of {old} positions"
    return f"{positions} positions, interpolated from {min(trained, old)}"
