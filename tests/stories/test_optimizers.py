"""Optimizers against their references, whether ZeRO partitions their state or not."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.pretrain.optim.lamb_reference import LambReference
from tests.stories.conftest import Command
from tests.stories.train_optimizers import (
    ADAMW,
    CLIP_NORM,
    CONVERTED,
    LAMB,
    MICRO_BATCHES,
    MUON,
    POISONED,
    RATE,
    RESUMED,
    STEPS,
    Sums,
    gradient_of,
)

pytestmark = pytest.mark.story
WORKER = Path(__file__).with_name("train_optimizers.py")
Weights = dict[str, torch.Tensor]
# Gradients and their sums have few bits and are exact in bf16 too, so what is left is the rounding
# of the optimizer itself: some ten operations in fp32 a step, each to 2^-24 of a number below 4.
ROUNDING = {"rtol": 1e-6, "atol": 5e-7}


def test_optimizers_match_reference_and_resume(
    deepspeed: Command, teacher_recipe: Path, tmp_path: Path
) -> None:
    """Every optimizer matches its reference under every partition, also after a resume."""
    out = tmp_path / "out"
    deepspeed(WORKER, teacher_recipe, out)
    for variant in LAMB:
        check(out / "straight", variant, lamb_steps())
    for variant in ADAMW:
        check(out / "straight", variant, adamw_steps())
    for variant in MUON:
        check_muon(load_file(out / "straight" / f"{variant}.safetensors"), variant)
    for variant in RESUMED:
        went_on, resumed = (
            load_file(out / folder / f"{variant}.safetensors") for folder in ("went on", "resumed")
        )
        assert all(torch.equal(went_on[name], resumed[name]) for name in went_on), variant
    for variant in CONVERTED:
        check(out / "converted for 2", variant, lamb_steps())
    for variant in POISONED:
        # Skipping it would hide it: it must reach the weights, so that the run stops.
        poisoned = load_file(out / "poisoned" / f"{variant}.safetensors")
        assert int(poisoned["skipped"]) == 0, variant
        assert not torch.isfinite(poisoned["bert.embeddings.weight"]).any(), variant

    # One rank continues what two have written.
    (variant, *_) = CONVERTED
    deepspeed(WORKER, teacher_recipe, out, out / "saved" / f"{variant}.universal", ranks=1)
    check(out / "converted for 1", variant, lamb_steps())


def check(folder: Path, variant: str, expected: Weights) -> None:
    found = load_file(folder / f"{variant}.safetensors")
    norm = torch.stack([g.norm() for g in gradients(STEPS - 1, clipped=False).values()]).norm()
    assert float(found["norm"]) == pytest.approx(float(norm), rel=1e-6), variant
    assert float(norm) > 2 * CLIP_NORM, "the gradient was meant to be clipped"
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name].double(),
            tensor,
            **ROUNDING,
            msg=lambda text, name=name: f"{folder.name} {variant} {name}: {text}",  # type: ignore[misc]
        )


def start() -> Weights:
    return {name: tensor.detach().double() for name, tensor in Sums().named_parameters()}


def gradients(step: int, clipped: bool = True) -> Weights:
    """Return the gradient of the whole batch of a step: the sum over its micro-batches."""
    found = {
        name: sum(
            gradient_of(tensor.shape, index, step * MICRO_BATCHES + micro).double()
            for micro in range(MICRO_BATCHES)
        )
        for index, (name, tensor) in enumerate(start().items())
    }
    norm = torch.stack([gradient.norm() for gradient in found.values()]).norm()  # type: ignore[union-attr]
    return {name: g * (CLIP_NORM / norm if clipped else 1.0) for name, g in found.items()}


def lamb_steps() -> Weights:
    tensors = {
        name: LambReference(
            weight=weight,
            decay=0.01 if weight.ndim == 2 else 0.0,
            adapted=weight.ndim == 2,
        )
        for name, weight in start().items()
    }
    for step in range(STEPS):
        for name, gradient in gradients(step).items():
            tensors[name].step(gradient, RATE / (step + 1))
    return {name: tensor.weight for name, tensor in tensors.items()}


def adamw_steps() -> Weights:
    """Return the weights after torch's AdamW in fp64, one parameter at a time."""
    weights = start()
    optimizer = torch.optim.AdamW(
        [{"params": [w], "weight_decay": 0.01 if w.ndim == 2 else 0.0} for w in weights.values()],
        eps=1e-6,
        foreach=False,
    )
    for step in range(STEPS):
        for name, gradient in gradients(step).items():
            weights[name].grad = gradient
        for group in optimizer.param_groups:
            group["lr"] = RATE / (step + 1)
        optimizer.step()
    return weights


def check_muon(found: Weights, variant: str) -> None:
    momentum = {name: torch.zeros_like(weight) for name, weight in start().items()}
    expected, adam = start(), adamw_steps()
    for step in range(STEPS):
        for name, gradient in gradients(step).items():
            momentum[name] = 0.95 * momentum[name] + 0.05 * gradient
            if ".encoder.layer." in name and gradient.ndim == 2:
                update = orthogonal(0.95 * momentum[name] + 0.05 * gradient)
                rate = 2 * RATE / (step + 1)
                expected[name] = expected[name] * (1 - rate * 0.01) - rate * update
            else:
                expected[name] = adam[name]
    for name, tensor in expected.items():
        moved, error = (tensor - start()[name]).norm(), (found[name].double() - tensor).norm()
        # DeepSpeed iterates in fp16 where the device has it, to 2^-11, and five steps of the
        # quintic multiply an error by up to 3.4 each: 0.007 was seen. A lost momentum changes half.
        allowed = 0.03 if ".encoder.layer." in name and tensor.ndim == 2 else 1e-5
        assert error <= allowed * moved, (variant, name, float(error / moved))


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Five quintic Newton-Schulz steps in fp64, with the scale of kellerjordan.github.io."""
    rows, columns = matrix.shape
    x = matrix.T if rows > columns else matrix
    x = x / x.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.T if rows > columns else x) * max(1.0, rows / columns) ** 0.5
