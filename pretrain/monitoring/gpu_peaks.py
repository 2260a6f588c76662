"""The peak arithmetic rate of a GPU, of which model FLOPs utilisation (MFU) is a share.

Figures are those of the vendor's data sheets for dense matrices, with fp32 accumulation, in TFLOPS.
A figure that a sheet gives only "with sparsity" is halved. A card that is not listed has no peak
here, and no MFU is shown for it: a guess would look like a measurement.
"""

import re
from typing import Literal, NamedTuple

import torch

Arithmetic = Literal["bf16", "fp16", "tf32", "fp32"]


class Peaks(NamedTuple):
    """TFLOPS of one kind of card; None where it has no such units."""

    half: float  # fp16 on tensor cores, and bf16 where there is bf16
    tf32: float | None
    fp32: float  # without tensor cores
    bf16: bool = True


# By the name of torch.cuda.get_device_name(), matched as a whole: a variant for one market or a
# MIG slice has a longer name and another peak.
_CARDS = {
    # NVIDIA V100 data sheet, January 2020.
    r"Tesla V100-SXM[23].*": Peaks(125.0, None, 15.7, bf16=False),
    r"Tesla V100-PCIE.*": Peaks(112.0, None, 14.0, bf16=False),
    # NVIDIA T4 data sheet, March 2019.
    r"Tesla T4": Peaks(65.0, None, 8.1, bf16=False),
    # NVIDIA A100 data sheet, June 2021: both forms, both memory sizes.
    r"(NVIDIA )?A100-(SXM4|PCIE)-(40|80)GB|NVIDIA A100 80GB PCIe": Peaks(312.0, 156.0, 19.5),
    # NVIDIA A30, A10 and A40 data sheets, 2021.
    r"NVIDIA A30": Peaks(165.0, 82.0, 10.3),
    r"NVIDIA A10": Peaks(125.0, 62.5, 31.2),
    r"NVIDIA A40": Peaks(149.7, 74.8, 37.4),
    # NVIDIA Ampere GA102 whitepaper, appendix A: GeForce halves the rate of sums in fp32.
    r"NVIDIA GeForce RTX 3090": Peaks(71.0, 35.6, 35.6),
    # NVIDIA L4, L40 and L40S data sheets, 2023.
    r"NVIDIA L4": Peaks(121.0, 60.0, 30.3),
    r"NVIDIA L40": Peaks(181.05, 90.5, 90.5),
    r"NVIDIA L40S": Peaks(362.05, 183.0, 91.6),
    # NVIDIA Ada whitepaper, appendix A.
    r"NVIDIA GeForce RTX 4090": Peaks(165.2, 82.6, 82.6),
    # NVIDIA H100 data sheet, 2024: 1,979 and 1,671 with sparsity; of the PCIe card, 2022: 1,513.
    r"NVIDIA H100 80GB HBM3": Peaks(989.5, 494.5, 67.0),
    r"NVIDIA H100 PCIe": Peaks(756.5, 378.0, 51.0),
    r"NVIDIA H100 NVL": Peaks(835.5, 417.5, 60.0),
    # NVIDIA H200 data sheet, 2024: the arithmetic of the H100, more memory.
    r"NVIDIA H200": Peaks(989.5, 494.5, 67.0),
    r"NVIDIA H200 NVL": Peaks(835.5, 417.5, 60.0),
}


def peak_flops(card: str, arithmetic: Arithmetic) -> float | None:
    """Return the peak operations a second of a card, or None where it is not listed.

    Args:
        card: its name by `torch.cuda.get_device_name`.
        arithmetic: of the matrix products.
    """
    found = next((peaks for name, peaks in _CARDS.items() if re.fullmatch(name, card)), None)
    if found is None or (arithmetic == "bf16" and not found.bf16):
        return None
    # A card without units for TF32 computes in fp32.
    tera = {"tf32": found.tf32 or found.fp32, "fp32": found.fp32}.get(arithmetic, found.half)
    return tera * 1e12


def device_peak(device: torch.device, precision: Literal["fp32", "bf16", "fp16"]) -> float | None:
    """Return the peak of the device of a run, or None for a CPU."""
    if device.type != "cuda":
        return None
    arithmetic: Arithmetic = precision
    if precision == "fp32" and torch.get_float32_matmul_precision() != "highest":
        arithmetic = "tf32"
    return peak_flops(torch.cuda.get_device_name(device), arithmetic)
