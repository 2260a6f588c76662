"""Feature maps: MobileBERT's transfer of hidden states (arXiv 2004.02984, section 3.4).

    L_FMT = Σ_t 1/D Σ_i (h_T(t, i) - h_S(t, i))²

The paper found training more stable when it is decomposed into the normalised states and their mean
and variance over the width. The parts, as the released code computes them, over real tokens t:

    maps       Σ_t 1/D Σ_i (n_T(t, i) - n_S(t, i))²,   n = (h - mean) / √(variance + 1e-12)
    means      Σ_t (mean_T(t) - mean_S(t))²
    variances  Σ_t |variance_T(t) - variance_S(t)|

Its weights for them are 100, 5000 and 5, each divided by the number of layers. The undecomposed
L_FMT is `mse_sum` of hidden.py. All are means over the width and sums over tokens.
Shapes: N positions, D width (equal in both).
"""

from typing import NamedTuple

import torch

_EPSILON = 1e-12  # of the released code


class FeatureMaps(NamedTuple):
    """Sums over real tokens; scalars in fp32."""

    maps: torch.Tensor
    means: torch.Tensor
    variances: torch.Tensor


def feature_map_sums(
    student_ND: torch.Tensor, teacher_ND: torch.Tensor, is_token_N: torch.Tensor
) -> FeatureMaps:
    """Return the three parts over the positions where `is_token_N` is true."""
    is_token_N1 = is_token_N[:, None]
    student, teacher = (_Parts.of(x, is_token_N1) for x in (student_ND, teacher_ND))
    return FeatureMaps(
        (student.normal_ND - teacher.normal_ND).square().mean(-1).sum(),
        (student.mean_N1 - teacher.mean_N1).square().sum(),
        (student.variance_N1 - teacher.variance_N1).abs().sum(),
    )


class _Parts(NamedTuple):
    """Normalised map, mean and variance of hidden states; all are 0 at padding."""

    normal_ND: torch.Tensor
    mean_N1: torch.Tensor
    variance_N1: torch.Tensor

    @classmethod
    def of(cls, hidden_ND: torch.Tensor, is_token_N1: torch.Tensor) -> "_Parts":
        hidden_ND = torch.where(is_token_N1, hidden_ND, 0.0).float()
        mean_N1 = hidden_ND.mean(-1, keepdim=True)
        centred_ND = hidden_ND - mean_N1
        variance_N1 = centred_ND.square().mean(-1, keepdim=True)
        return cls(centred_ND * (variance_N1 + _EPSILON).rsqrt(), mean_N1, variance_N1)
