"""Compiled layers, and a count of compilations: after the first steps there must be none.

Each layer is compiled in place, so that parameters keep their names. All layers of a model share
one program; rows of another length, or evaluation, make another one.
"""

import torch
from torch._dynamo import config as dynamo_config
from torch._dynamo.utils import counters
from torch.distributed.fsdp import FSDPModule

from pretrain.model.backend import Backend
from pretrain.model.bert import Bert

# Torch gives up after 8 programs of one function. A run needs one for training and one for
# evaluation, times the shapes of its phases; the teacher of a distillation has its own.
_PROGRAMS = 64


def prepare_model(model: Bert, backend: Backend) -> None:
    """Let a model be computed as chosen."""
    model.backend = backend
    if backend.compiled:
        compile_layers(model)


def compile_layers(model: Bert, backend: str = "inductor") -> None:
    """Compile every layer of a model in place; each is one graph, or it is an error."""
    dynamo_config.recompile_limit = max(dynamo_config.recompile_limit, _PROGRAMS)
    for layer in model.bert.encoder.layer:
        if isinstance(layer, FSDPModule):
            # What gathers its weights stands around it and is no part of any graph.
            layer.forward = torch.compile(
                layer.forward, fullgraph=True, dynamic=False, backend=backend
            )
        else:
            layer.compile(fullgraph=True, dynamic=False, backend=backend)


class Compilations:
    """Counts what this process compiles."""

    def __init__(self) -> None:
        self._seen = self._total()

    def since_last(self) -> int:
        """Return the compilations since the last call, or since this counter was made."""
        total = self._total()
        new, self._seen = total - self._seen, total
        return new

    @staticmethod
    def _total() -> int:
        return int(counters["stats"]["unique_graphs"])
