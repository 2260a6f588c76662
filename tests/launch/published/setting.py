"""A setting of a published recipe, as its source has it, and how a recipe of ours has it.

A `Setting` is compared with a recipe's value: it is equal, or `named` is found in the recipe's
header. A `Practice` has no key: `named` is always found there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pretrain.config.run import RunRecipe, TeacherRecipe
from pretrain.distil.config import StudentRecipe


@dataclass(frozen=True)
class Setting:
    """A setting that a recipe has a key for, see `OURS`."""

    name: str
    published: Any
    source: str
    named: str | None = None  # in the header, where the recipe has another value


@dataclass(frozen=True)
class Practice:
    """What a source does, and no key changes here."""

    name: str
    published: str
    here: str
    source: str
    named: str


def _rows(recipe: RunRecipe) -> list[tuple[int, int, int]]:
    train = recipe.train
    return [
        (phase.row_tokens or train.row_tokens, phase.batch_rows or train.batch_rows, phase.steps)
        for phase in train.all_phases
    ]


def _rates(recipe: RunRecipe) -> list[float]:
    later = [phase.lr for phase in recipe.train.all_phases[1:] if phase.lr is not None]
    return [recipe.optim.lr, *later]


def _warmups(recipe: RunRecipe) -> list[int]:
    later = [p.warmup_steps for p in recipe.train.all_phases[1:] if p.lr is not None]
    return [recipe.optim.warmup_steps, *later]


def _decay(recipe: RunRecipe) -> str:
    optim = recipe.optim
    power = f" to the power of {optim.power}" if optim.schedule == "polynomial" else ""
    end = f" to {optim.end_share} of the peak" if optim.end_share else ""
    return f"{optim.schedule}{power} from {optim.decay_from}{end}"


def _size(recipe: RunRecipe) -> tuple[int | None, ...]:
    keys: Any = recipe.model if isinstance(recipe, TeacherRecipe) else getattr(recipe, "student")  # noqa: B009
    return keys.layers, keys.width, keys.heads, keys.feed_forward


def _mask(recipe: RunRecipe) -> str:
    mask = recipe.mask
    power = f" {mask.frequency_power}" if mask.policy == "adaptive" else ""
    return f"{mask.policy}{power}, {mask.rate} ({mask.as_mask}, {mask.as_random} random)"


def _objectives(recipe: RunRecipe) -> list[list[tuple[Any, ...]]]:
    """Return kind and every key that differs from its default, of each objective of each stage."""
    assert isinstance(recipe, StudentRecipe)
    return [
        [
            (o.kind, *sorted(o.model_dump(exclude_defaults=True, exclude={"kind"}).items()))
            for o in stage.objectives
        ]
        for stage in recipe.all_stages
    ]


# What a recipe has, by the name of the setting.
OURS: dict[str, Callable[[Any], Any]] = {
    "layers, width, heads, feed-forward": _size,
    "positions": lambda r: r.positions if isinstance(r, TeacherRecipe) else r.student.positions,
    "LayerNorm": lambda r: r.model.norm,
    "dropout": lambda r: r.model.dropout,
    "rows: tokens, batch, steps": _rows,
    "share of steps by row length": lambda r: [
        (tokens, steps / r.train.steps) for tokens, _, steps in _rows(r)
    ],
    "rows in all by length": lambda r: [
        (tokens, batch * steps) for tokens, batch, steps in _rows(r)
    ],
    "batch, rows": lambda r: r.train.batch_rows,
    "steps": lambda r: r.train.steps,
    "length of rows": lambda r: r.train.row_tokens,
    "optimizer": lambda r: r.optim.name,
    "peak rate": lambda r: r.optim.lr,
    "peak rates": _rates,
    "warm-up, steps": lambda r: r.optim.warmup_steps,
    "warm-ups, steps": _warmups,
    "warm-up, share of steps": lambda r: round(r.optim.warmup_steps / _rows(r)[0][2], 4),
    "warm-up, share of time": lambda r: r.optim.warmup_share,
    "decay": _decay,
    "weight decay": lambda r: r.optim.weight_decay,
    "betas": lambda r: (r.optim.beta1, r.optim.beta2),
    "epsilon": lambda r: r.optim.epsilon,
    "gradient clipping": lambda r: r.optim.clip_norm,
    "masking": _mask,
    "samples": lambda r: r.samples.pairs,
    "share of short samples": lambda r: r.samples.short_share,
    "format": lambda r: r.student.format,
    "layers copied": lambda r: r.student.init,
    "losses": lambda r: _objectives(r)[0],
    "losses of the last stage": lambda r: _objectives(r)[-1],
    "precision": lambda r: r.train.precision,
}


def ours(setting: Setting | Practice, recipe: RunRecipe) -> Any:
    """Return what a recipe has for a setting."""
    return setting.here if isinstance(setting, Practice) else OURS[setting.name](recipe)
