"""Packed attention: both implementations agree, and each is used where it is supported."""

import dataclasses
import math
from importlib.util import find_spec
from itertools import pairwise

import pytest
import torch

from data_prep.errors import UserError
from pretrain.data.batch import Batch
from pretrain.losses.mlm_nsp import pretraining_terms
from pretrain.model import Bert, attention
from pretrain.model.attention import (
    activate_flash,
    choose_attention,
    make_packing,
    packed_attention,
)
from pretrain.model.backend import Backend

CPU, GPU = torch.device("cpu"), torch.device("cuda")
N, H, D = 32, 2, 8
# Two rows of 16: three samples and padding; one sample. Then sequences of no tokens.
CU_SEQLENS = torch.tensor([0, 5, 9, 14, 16, 32, 32, 32], dtype=torch.int32)
SAMPLE_IDS = torch.tensor([1] * 5 + [2] * 4 + [3] * 5 + [0] * 2 + [1] * 16, dtype=torch.int32)


def attention_by_sequence(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens: torch.Tensor,
    *_: object,
) -> torch.Tensor:
    """Return attention within each sequence, by the formula."""
    parts = []
    for start, stop in pairwise(cu_seqlens.tolist()):
        q, k, v = (x[start:stop].transpose(0, 1) for x in (query, key, value))
        weights = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]), dim=-1)
        parts.append((weights @ v).transpose(0, 1))
    return torch.cat(parts)


def draw(dtype: torch.dtype = torch.float64, device: str = "cpu") -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(N, H, D, generator=generator) for _ in range(3)]
    return [x.to(device, dtype).requires_grad_() for x in drawn]


def test_sdpa_mask_matches_per_sequence_attention() -> None:
    """The block-diagonal mask gives the values and gradients of attention within each sequence."""
    found, expected = draw(), draw()
    attended = packed_attention(*found, make_packing("sdpa", CU_SEQLENS, SAMPLE_IDS, 16))
    reference = attention_by_sequence(*expected, CU_SEQLENS)
    torch.testing.assert_close(attended, reference)
    weights = torch.randn(N, H, D, generator=torch.Generator().manual_seed(1)).double()
    for output in (attended, reference):
        (output * weights).sum().backward()
    torch.testing.assert_close([x.grad for x in found], [x.grad for x in expected])


def test_varlen_model_matches_sdpa_model(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Bert, packed: Batch
) -> None:
    """A model with `varlen` attention computes the same hidden states as with `sdpa`."""
    monkeypatch.setattr(attention, "varlen_attn", attention_by_sequence)
    model = tiny_model.double()
    masked = model(packed)
    model.backend = dataclasses.replace(Backend(), attention="varlen")
    varlen = model(packed)
    # Padding included: it attends to itself.
    torch.testing.assert_close(varlen.hidden_ND, masked.hidden_ND)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlashAttention needs a GPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_varlen_on_gpu_matches_sdpa(tiny_model: Bert, packed: Batch, dtype: torch.dtype) -> None:
    """FlashAttention on a GPU gives the losses and gradients of `sdpa`, up to rounding."""
    model, batch = tiny_model.to(GPU, dtype), packed.to(GPU)
    found = []
    for kind in ("sdpa", "varlen"):
        model.backend = dataclasses.replace(Backend(), attention=kind)
        model.zero_grad()
        terms = model(batch, pretraining_terms)
        torch.stack([term.total for term in terms if term.weight]).sum().backward()
        found.append([terms[0].total, *(p.grad for p in model.parameters())])
    for ours, theirs in zip(*found, strict=True):
        # Two kernels round differently, to the 8 or 11 bits of the type, in each of two layers.
        assert (ours - theirs).norm() <= 0.03 * theirs.norm() + 1e-3


@pytest.fixture
def capability(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Fake a GPU's compute capability; a test may change it."""
    numbers = [9, 0]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: tuple(numbers))
    return numbers


@pytest.mark.usefixtures("capability")
def test_auto_attention_by_device_and_precision() -> None:
    """`auto` is `varlen` on a GPU in 16 bits and `sdpa` elsewhere."""
    assert choose_attention("auto", CPU, "bf16", 64) == "sdpa"
    assert choose_attention("auto", GPU, "fp32", 64) == "sdpa"
    assert choose_attention("auto", GPU, "bf16", 64) == "varlen"
    assert choose_attention("varlen", GPU, "fp16", 64) == "varlen"
    assert choose_attention("sdpa", GPU, "bf16", 64) == "sdpa"


@pytest.mark.parametrize(("device", "precision"), [(CPU, "bf16"), (CPU, "fp32"), (GPU, "fp32")])
def test_varlen_refused_without_gpu_and_16_bits(device: torch.device, precision: str) -> None:
    """`varlen` by name is refused on a CPU and in fp32."""
    message = f"computes in {precision} on {device.type}: choose auto"
    with pytest.raises(UserError, match=message):
        choose_attention("varlen", device, precision, 64)


@pytest.mark.usefixtures("capability")
@pytest.mark.parametrize("width", [26, 264])  # 26 is that of TinyBERT's 12 heads in 312
def test_unsupported_head_width_uses_sdpa(width: int) -> None:
    """Head widths that FlashAttention does not support use `sdpa`."""
    assert choose_attention("auto", GPU, "bf16", width) == "sdpa"
    with pytest.raises(UserError, match=f"these are {width} wide: choose auto or sdpa"):
        choose_attention("varlen", GPU, "bf16", width)


def test_old_gpu_uses_sdpa(capability: list[int]) -> None:
    """A GPU below compute capability 8.0 uses `sdpa`."""
    capability[:] = 7, 5
    assert choose_attention("auto", GPU, "fp16", 64) == "sdpa"
    with pytest.raises(UserError, match=r"capability 8\.0, but this one has 7\.5: choose auto"):
        choose_attention("varlen", GPU, "fp16", 64)


@pytest.mark.skipif(bool(find_spec("flash_attn_interface")), reason="it is installed here")
def test_uninstalled_flash_attention_refused() -> None:
    """A FlashAttention that is not installed is refused."""
    activate_flash("builtin")
    with pytest.raises(UserError, match=r"kernels\.flash FA3 cannot be used .* choose builtin"):
        activate_flash("FA3")
