"""DeepSpeed's engine behind a thin adapter. Importing it takes the ten seconds of DeepSpeed."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pretrain.config.run import RunRecipe
from pretrain.data.batch import Batch
from pretrain.losses.term import Objective, Term
from pretrain.model import Bert
from pretrain.model.captured_states import NO_CAPTURE, Capture
from pretrain.optim.lamb import Lamb
from pretrain.optim.norms import global_norm
from pretrain.train import deepspeed_state
from pretrain.train.deepspeed_library import (
    allow_under_zero,
    disable_shm_collective,
    exact_norms,
    initialize,
    step_without_synchronisation,
)

disable_shm_collective()
exact_norms()
allow_under_zero(Lamb)


class Engine:
    """A model in training: forward, backward, step, and its checkpoints.

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
        self._world_size = torch.distributed.get_world_size()
        self._grad_norm: torch.Tensor | float = 0.0
        self._skips_overflow = recipe.train.precision == "fp16"
        self._muon_share = recipe.optim.muon_lr / recipe.optim.lr
        if recipe.train.tf32:
            torch.set_float32_matmul_precision("high")
        if not self._skips_overflow:
            step_without_synchronisation()
        # Groups keep their order in DeepSpeed, and what it saves of them stays as it is.
        self._ours, self._stages = deepspeed_state.make_staged_optimizer(model, recipe, trained)
        config = copy.deepcopy(config)
        if universal:
            config["checkpoint"] = {"load_universal": True}
        self._engine, self._optimizer, _, _ = initialize(
            model=model, optimizer=self._ours, config=config
        )
        deepspeed_state.reset_step_counts(self._ours)
        if isinstance(self._ours, Lamb):
            deepspeed_state.set_lamb_partitions(self._ours, self._optimizer)

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

    def set_micro_batches(self, count: int) -> None:
        """Set, between two steps, the number of micro-batches of the next one."""
        if count == self._engine.gradient_accumulation_steps():
            return
        rows = self._engine.train_micro_batch_size_per_gpu() * self._engine.dp_world_size
        self._engine.set_train_batch_size(rows * count)
        # DeepSpeed finds the end of a step by dividing all micro-batches since its start.
        self._engine.micro_steps = 0
        if hasattr(self._optimizer, "gradient_accumulation_steps"):
            # Its own copy decides whether offloaded gradients are added up or replaced.
            self._optimizer.gradient_accumulation_steps = count

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of this rank's share of the global loss.

        DeepSpeed averages gradients over ranks. The loss is already divided by global counts,
        so it is multiplied by the number of ranks to turn that average into a sum.
        """
        self._engine.backward(loss * self._world_size, scale_wrt_gas=False)

    def step(self, learning_rate: float, stage: int = 0) -> None:
        """Update the weights if this micro-batch was the last of its optimizer step.

        Parameters that the stage does not train have a rate of 0: neither decay nor the momentum
        of an earlier stage moves them.
        """
        self._set_learning_rates(learning_rate, stage)
        last = self._engine.is_gradient_accumulation_boundary()
        if last and self._optimizer is self._ours:
            # Without ZeRO in fp32, DeepSpeed clips but does not return the norm.
            gradients = [p.grad for p in self._engine.module.parameters() if p.grad is not None]
            self._grad_norm = global_norm(gradients)
        self._engine.step()
        if last:
            deepspeed_state.reset_untrained_steps(
                self._ours, self._optimizer, self._stages, self.zero_stage, stage
            )
        if last and self._optimizer is not self._ours:
            norm = self._engine.get_global_grad_norm()
            self._grad_norm = float("nan") if norm is None else norm

    def _set_learning_rates(self, learning_rate: float, stage: int) -> None:
        for group, stages in zip(self._optimizer.param_groups, self._stages, strict=True):
            rate = learning_rate if stage in stages else 0.0
            group["lr"] = rate * (self._muon_share if group.get("use_muon") else 1.0)

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
        """The same, still on the device; None where the run does not check that it is finite.

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
        """Return all parameters in fp32 on the CPU of rank 0; collective under ZeRO."""
        return deepspeed_state.gather_fp32_weights(
            self._engine.module, self._optimizer, self.zero_stage
        )

    def save(self, folder: Path, tag: str, state: dict[str, Any]) -> None:
        """Write the state of model and optimizer to `folder/tag`, without naming it latest."""
        state = {**state, **deepspeed_state.UNIVERSAL_INFO}
        self._engine.save_checkpoint(str(folder), tag=tag, client_state=state, save_latest=False)

    def load(self, folder: Path, tag: str) -> dict[str, Any]:
        """Load what `save` wrote and return its state. It is unpickled: verify it first."""
        _, state = self._engine.load_checkpoint(
            str(folder), tag=tag, load_lr_scheduler_states=False
        )
        deepspeed_state.move_step_counts(self._ours)
        return dict(state)
