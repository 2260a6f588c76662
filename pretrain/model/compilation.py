"""Compiled layers, and a counter of compilations: after the first steps there must be none.

Each layer is compiled in place, so that parameters keep their names. All layers of a model share
one program; another row length, and evaluation, each compile another one.
"""

import torch
from torch._dynamo import config as dynamo_config
from torch._dynamo.utils import counters
from torch.distributed.fsdp import FSDPModule

from pretrain.model.backend import Backend
from pretrain.model.bert import Bert
from pretrain.model.foreign.hf_encoder import HfEncoder

# Torch stops compiling after 8 programs of one function. A run needs one for training and one for
# evaluation, for each row length of its phases; a teacher adds its own.
_MOST_PROGRAMS = 64


def apply_backend(model: Bert | HfEncoder, backend: Backend) -> None:
    """Set the backend of a model, and compile its layers if the backend does.

    The layers of a model that only transformers computes are not compiled.
    """
    model.backend = backend
    if backend.compiled and isinstance(model, Bert):
        compile_layers(model)


def compile_layers(model: Bert, backend: str = "inductor") -> None:
    """Compile every layer of a model in place; a graph break is an error."""
    dynamo_config.recompile_limit = max(dynamo_config.recompile_limit, _MOST_PROGRAMS)
    for layer in model.bert.encoder.layer:
        if isinstance(layer, FSDPModule):
            # The hooks that gather its weights run outside `forward` and stay uncompiled.
            layer.forward = torch.compile(
                layer.forward, fullgraph=True, dynamic=False, backend=backend
            )
        else:
            layer.compile(fullgraph=True, dynamic=False, backend=backend)


class CompilationCounter:
    """Counts the compilations of this process."""

    def __init__(self) -> None:
        self._seen = self._total()

    def since_last(self) -> int:
        """Return the compilations since the last call, or since construction."""
        total = self._total()
        new, self._seen = total - self._seen, total
        return new

    @staticmethod
    def _total() -> int:
        return int(counters["stats"]["unique_graphs"])
