"""DeepSpeed, behind a thin adapter. This is the only file that imports it."""

import copy
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# DeepSpeed greets at INFO on every rank; its warnings still come through.
os.environ.setdefault("DS_LOG_LEVEL", "warning")
# It calls collectives by names that newer versions of torch are about to drop.
warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")

import deepspeed  # noqa: E402
import torch  # noqa: E402
from deepspeed.checkpoint import ds_to_universal  # noqa: E402
from deepspeed.runtime import bf16_optimizer  # noqa: E402
from deepspeed.runtime import utils as runtime_utils  # noqa: E402
from deepspeed.runtime.zero import stage_1_and_2  # noqa: E402
from deepspeed.runtime.zero.utils import ZERO_SUPPORTED_OPTIMIZERS  # noqa: E402
from deepspeed.utils import safe_get_full_fp32_param  # noqa: E402

from pretrain.config.run import RunRecipe  # noqa: E402
from pretrain.data.batch import Batch  # noqa: E402
from pretrain.losses.term import Objective, Term  # noqa: E402
from pretrain.model import Bert  # noqa: E402
from pretrain.model.captured_states import NO_CAPTURE, Capture  # noqa: E402
from pretrain.optim.factory import make_optimizer  # noqa: E402
from pretrain.optim.lamb import Lamb  # noqa: E402
from pretrain.optim.param_groups import (  # noqa: E402
    Groups,
    decay_groups,
    muon_groups,
    split_by_stage,
)

logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
# On a CPU, DeepSpeed would compile and start a shared-memory collective that only its inference
# calls, and leave its buffers in /dev/shm after each run (seen: 16 GB after a day of runs).
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
# LAMB of ours is tested under ZeRO, see tests/stories/test_optimizers.py.
ZERO_SUPPORTED_OPTIMIZERS.append(Lamb)

# Without this entry in the saved state, DeepSpeed cannot convert a checkpoint for another number
# of ranks (deepspeed/checkpoint/ds_to_universal.py).
_UNIVERSAL_INFO = {"universal_checkpoint_info": {"universal_checkpoint_version": 0.2}}


class Engine:
    """A model being trained: forward, backward, step, and its checkpoints.

    All ranks call every method in the same order.

    Args:
        model: on its device.
        recipe: of the run.
        config: of DeepSpeed, complete; see `deepspeed_config.py`.
        universal: whether a checkpoint of another number of ranks will be loaded.
        trained: names of the parameters that each stage of the run trains; empty for one stage
            that trains all.
    """

    def __init__(
        self,
        model: Bert,
        recipe: RunRecipe,
        config: dict[str, Any],
        universal: bool = False,
        trained: Sequence[frozenset[str]] = (),
    ) -> None:
        config = copy.deepcopy(config)
        if universal:
            config["checkpoint"] = {"load_universal": True}
        self._world_size = torch.distributed.get_world_size()
        self._grad_norm: torch.Tensor | float = 0.0
        self._skips_overflow = recipe.train.precision == "fp16"
        self._muon_share = recipe.optim.muon_lr / recipe.optim.lr
        if recipe.train.tf32:
            torch.set_float32_matmul_precision("high")
        if not self._skips_overflow:
            _step_without_waiting()
        # Groups keep their order in DeepSpeed, and what it saves of them stays as it is.
        groups, self._stages = split_by_stage(_groups(model, recipe), model, trained)
        self._ours = _make_optimizer(groups, recipe)
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=model, optimizer=self._ours, config=config
        )
        # Under ZeRO-0 in 16 bits DeepSpeed takes a step with zero gradients to allocate state.
        for state in self._ours.state.values():
            if "step" in state:
                state["step"].zero_()
        if isinstance(self._ours, Lamb):
            _tell_partitions(self._ours, self._optimizer)

    def __call__(
        self,
        batch: Batch,
        objective: Objective,
        dropout_keys: torch.Tensor | None = None,
        capture: Capture = NO_CAPTURE,
    ) -> list[Term]:
        """Compute the terms of one micro-batch; without keys nothing is dropped."""
        terms: list[Term] = self._engine(batch, objective, dropout_keys, capture)
        return terms

    def set_micro_batches(self, micro_batches: int) -> None:
        """Say at the edge of a step how many micro-batches the coming one has."""
        if micro_batches == self._engine.gradient_accumulation_steps():
            return
        rows = self._engine.train_micro_batch_size_per_gpu() * self._engine.dp_world_size
        self._engine.set_train_batch_size(rows * micro_batches)
        # DeepSpeed finds the end of a step by dividing all micro-batches since its start.
        self._engine.micro_steps = 0
        if hasattr(self._optimizer, "gradient_accumulation_steps"):
            # Its own copy decides whether offloaded gradients are added up or replaced.
            self._optimizer.gradient_accumulation_steps = micro_batches

    def _begin_anew(self, stage: int) -> None:
        """Forget the steps of parameters that no stage has trained yet.

        Their gradients were 0, and their moments are; but Adam would take these for estimates over
        all those steps and correct nothing, and its first steps would be 3 to 7 times too long.
        """
        for stages, weights in self._masters():
            state = self._ours.state.get(weights, {})
            if "step" in state and stages and stage < min(stages):
                state["step"] *= 0

    def _masters(self) -> Iterator[tuple[tuple[int, ...], torch.Tensor]]:
        """Yield what the optimizer moves, with the stages that train it."""
        if self.zero_stage == 3:
            # Its groups hold their weights during a step alone.
            places = self._optimizer.sub_group_to_group_id
            for number, weights in enumerate(self._optimizer.fp32_partitioned_groups_flat):
                yield self._stages[places[number]], weights
            return
        for group, stages in zip(self._ours.param_groups, self._stages, strict=True):
            for weights in group["params"]:
                yield stages, weights

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of this rank's share of the global loss.

        DeepSpeed averages gradients over ranks. The loss is already divided by global counts,
        so it is multiplied by the number of ranks to turn that average into the sum we mean.
        """
        self._engine.backward(loss * self._world_size, scale_wrt_gas=False)

    def step(self, learning_rate: float, stage: int = 0) -> None:
        """Update the weights if this micro-batch was the last of its optimizer step.

        Parameters that the stage does not train have a rate of 0: neither decay nor the momentum
        of an earlier stage moves them.
        """
        for group, stages in zip(self._optimizer.param_groups, self._stages, strict=True):
            rate = learning_rate if stage in stages else 0.0
            group["lr"] = rate * (self._muon_share if group.get("use_muon") else 1.0)
        last = self._engine.is_gradient_accumulation_boundary()
        if last and self._optimizer is self._ours:
            # Without ZeRO in fp32, DeepSpeed clips but does not tell the norm.
            gradients = [p.grad for p in self._engine.module.parameters() if p.grad is not None]
            self._grad_norm = torch.nn.utils.get_total_norm(gradients)
        self._engine.step()
        if last:
            self._begin_anew(stage)
        if last and self._optimizer is not self._ours:
            norm = self._engine.get_global_grad_norm()
            self._grad_norm = float("nan") if norm is None else norm

    def train(self, mode: bool = True) -> None:
        """Switch dropout on, or off for evaluation."""
        self._engine.train(mode)

    @property
    def zero_stage(self) -> int:
        """How much ZeRO partitions: 0 nothing, 1 optimizer state, 2 gradients, 3 weights."""
        return int(self._engine.zero_optimization_stage())

    @property
    def grad_norm(self) -> float:
        """Global gradient norm of the last optimizer step, before clipping."""
        return float(self._grad_norm)

    @property
    def device_grad_norm(self) -> torch.Tensor | None:
        """The same, still on the device, where it must be finite.

        In fp16 a norm that is not finite means a loss scale too high, and that step is skipped.
        """
        if self._skips_overflow or not isinstance(self._grad_norm, torch.Tensor):
            return None
        return self._grad_norm

    @property
    def loss_scale(self) -> float:
        """Current loss scale; 1 unless the run computes in fp16."""
        return float(getattr(self._optimizer, "loss_scale", 1.0) or 1.0)

    @property
    def skipped_steps(self) -> int:
        """Optimizer steps that fp16 overflow has skipped."""
        return int(self._engine.skipped_steps)

    def gather_fp32_weights(self) -> dict[str, torch.Tensor]:
        """Return all parameters in fp32 on the CPU, gathered from the ranks that hold parts.

        Collective under ZeRO. Rank 0 gets the weights, the others an empty dictionary.
        """
        weights = {}
        masters = self._unpartitioned_masters()
        for name, parameter in self._engine.module.named_parameters():
            full = safe_get_full_fp32_param(parameter)
            if full is None:  # ZeRO-0: whole on every rank
                full = masters.get(id(parameter), parameter).detach()
            if torch.distributed.get_rank() == 0:
                weights[name] = full.reshape(parameter_shape(parameter)).float().cpu().clone()
        return weights

    def _unpartitioned_masters(self) -> dict[int, torch.Tensor]:
        """Return the fp32 weights behind the parameters of ZeRO-0 in bf16 or fp16, by id."""
        if self.zero_stage > 0 or not hasattr(self._optimizer, "fp32_groups"):
            return {}
        groups = zip(self._optimizer.fp16_groups, self._optimizer.fp32_groups, strict=True)
        return {id(p): master for ps, ms in groups for p, master in zip(ps, ms, strict=True)}

    def save(self, folder: Path, tag: str, state: dict[str, Any]) -> None:
        """Write the state of model and optimizer to `folder/tag`, without naming it latest."""
        self._engine.save_checkpoint(
            str(folder), tag=tag, client_state={**state, **_UNIVERSAL_INFO}, save_latest=False
        )

    def load(self, folder: Path, tag: str) -> dict[str, Any]:
        """Load what `save` wrote and return its state. It is unpickled: verify it first."""
        _, state = self._engine.load_checkpoint(
            str(folder), tag=tag, load_lr_scheduler_states=False
        )
        for parameter, values in self._ours.state.items():
            # A converted checkpoint gives every rank the device of the rank that wrote it.
            if "step" in values and isinstance(self._ours, torch.optim.AdamW):
                values["step"] = values["step"].to(parameter.device)
        return dict(state)


def parameter_shape(parameter: torch.Tensor) -> torch.Size:
    """Return the whole shape of a parameter, also where ZeRO-3 has emptied it."""
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape


def convert_to_universal(source: Path, target: Path) -> None:
    """Convert a checkpoint to DeepSpeed's universal form, which any number of ranks can load."""
    ds_to_universal.main(
        SimpleNamespace(
            input_folder=str(source),
            output_folder=str(target),
            num_extract_workers=1,
            num_merge_workers=1,
            keep_temp_folder=False,
            strict=True,
            inject_missing_state=False,
        )
    )


def _groups(model: Bert, recipe: RunRecipe) -> Groups:
    divide = muon_groups if recipe.optim.name == "muon" else decay_groups
    return divide(model, recipe.optim)


def _make_optimizer(groups: Groups, recipe: RunRecipe) -> torch.optim.Optimizer:
    if recipe.optim.name != "muon":
        return make_optimizer(groups, recipe.optim)
    # Imported late, as DeepSpeed does: it prepares to compile.
    from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam

    return MuonWithAuxAdam(groups, torch.optim.AdamW, {"fused": True})


def _tell_partitions(lamb: Lamb, zero: Any) -> None:
    """Tell LAMB which slices of ZeRO's flat partitions are which tensors of the model.

    ZeRO-0 has no partitions; LAMB then has whole tensors.
    """
    groups = getattr(zero, "bit16_groups", None) or getattr(zero, "bf16_groups", [])
    for group, tensors in zip(lamb.param_groups, groups, strict=False):
        found = [tensor._hp_mapping for tensor in tensors]
        addresses = [None if f is None else f.get_hp_fragment_address() for f in found]
        (part,) = group["params"]
        lamb.partition(part, [None if a is None else (a.start, a.numel) for a in addresses])


def _step_without_waiting() -> None:
    """Keep DeepSpeed's step from asking the device whether the gradient is finite.

    In ZeRO-1 and 2 it skips a step whose gradient is not, and reads the norm on the host for that
    and for clipping. Only fp16 needs skipping, to find its loss scale. In bf16 and fp32 such a
    gradient is an error that skipping would hide: here it reaches the weights, the next loss is
    not finite, and the run stops with what to do (see `loop.py`); checkpoints refuse such weights.
    ZeRO-0 in bf16, ZeRO-3 and offload still wait.

    It also puts -1, which it copies to the device and waits for, where a norm is not finite: that
    is left out, so that such a norm is seen for what it is (see `device_grad_norm`).
    """
    for module in (bf16_optimizer, stage_1_and_2):
        module.is_invalid_grad_norm  # noqa: B018  it must be there to be replaced
        module.is_invalid_grad_norm = lambda norm: False
    for module in (runtime_utils, stage_1_and_2):
        module.mask_nan_or_inf_with_val_inplace  # noqa: B018
        module.mask_nan_or_inf_with_val_inplace = lambda *_, **__: None
    bf16_optimizer.clip_tensors_by_global_norm  # noqa: B018
    bf16_optimizer.clip_tensors_by_global_norm = _clip_without_waiting


def _clip_without_waiting(
    input_tensors: list[torch.Tensor], max_norm: float, global_norm: torch.Tensor, mpu: None
) -> None:
    """Scale gradients so that their norm is at most `max_norm`, with no look at it on the host."""
    torch._foreach_mul_(input_tensors, (max_norm / (global_norm + 1e-6)).clamp(max=1.0))
