"""A step of distillation: ours, beside the usual ones of transformers on padded rows.

ours/default: objectives of student_default.yaml, relations and soft targets at masked tokens
ours/relations: of these the relations alone, no logits, as peer/minilm_v2_materialised
ours/distilbert: objectives of student_6x768.yaml, soft targets, MLM loss and cosine
peer/distilbert_all_tokens: DistilBERT's published step, logits of all tokens, of both models
peer/minilm_v2_materialised: MiniLMv2's, relations alone, each as a whole in memory, no logits
Figures are real tokens a second, padding not counted; all sides hold teacher and student at once
and take turns. Weights are random: the cost of a step does not depend on them. The peers are not
compiled; their teacher is in 16 bits where the precision is, their student under autocast.
/teacher and /student: ms a step, the teacher's between events on a GPU; student is all else:
losses, backward pass, optimizer, and of ours the teacher's logits, which the fused loss computes.
Shapes: B rows, S tokens of a row, n real tokens, V vocabulary, D width, A relation heads.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import nn

from launch.benchmarks.device import DTYPES, Trainer
from launch.benchmarks.driver import count_options
from launch.benchmarks.report import Row
from launch.benchmarks.train import (
    SHAPES,
    add_step_arguments,
    make_setting,
    measure_steps,
    shape_of,
    step_recipe,
)
from launch.benchmarks.trainers import (
    Inputs,
    Setting,
    autocast,
    build_bert,
    build_hf,
    packed_trainer,
    padded_trainer,
)
from pretrain.distil.config import StudentOptions
from pretrain.distil.loss_config import StageOptions
from pretrain.distil.stage_plan import find_projections, plan_stages, stages_of
from pretrain.distil.student import make_student, student_shape
from pretrain.distil.task import DistillationTask
from pretrain.distil.teacher import Teacher
from pretrain.model import BertShape
from pretrain.monitoring.device_timer import DeviceTimer

_RECIPES = Path(__file__).parents[1] / "recipes"
_RELATION_HEADS = 48  # as in launch/recipes/student_default.yaml
# Our sides: the recipe whose objectives they have, and the kinds of these.
OURS = {
    "ours/default": ("student_default", ("relations", "soft_targets")),
    "ours/relations": ("student_default", ("relations",)),
    "ours/distilbert": ("student_6x768", ("soft_targets", "hard_mlm", "hidden_cosine")),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this benchmark."""
    gpu = torch.cuda.is_available()
    parser.add_argument("--teacher-shape", choices=SHAPES, default="base" if gpu else "tiny")
    numbers = {
        "--student-layers": (None, "half of the teacher's if left out"),
        "--student-width": (None, "the teacher's if left out"),
        "--relation-heads": (
            None,
            f"{_RELATION_HEADS} if left out, or the teacher's heads where that divides no width",
        ),
    }
    count_options(parser, numbers)
    add_step_arguments(parser, 32768 if gpu else 512)


def run(arguments: argparse.Namespace, scratch: Path) -> list[Row]:
    """Measure, and return the rows."""
    recipe = step_recipe(arguments)
    teacher = shape_of(arguments.teacher_shape, next_sentence=False)
    student = _student_shape(arguments, teacher)
    heads = arguments.relation_heads or _usual_heads(student, teacher)
    plans = {name: objectives_of(name, heads) for name in OURS}
    for objectives in plans.values():
        plan_stages(stages_of([objectives]), student, teacher, has_mlm_head=True)  # or refuses
    setting = make_setting(student, recipe, arguments, scratch)
    size = f"{student.layers}x{student.width}"
    print(f"teacher {teacher.layers}x{teacher.width}, student {size}, {heads} relation heads")
    suffix = f"{arguments.teacher_shape}_to_{size}_{arguments.row_tokens}"
    makers = [partial(make_ours, name, setting, teacher, plans[name]) for name in OURS]
    peers = [partial(make, setting, teacher, heads) for make in PEERS]
    return measure_steps([*makers, *peers], suffix, arguments, setting)


def _student_shape(arguments: argparse.Namespace, teacher: BertShape) -> BertShape:
    width = arguments.student_width or teacher.width
    options = {"layers": arguments.student_layers, "width": width, "feed_forward": 4 * width}
    return student_shape(StudentOptions.model_validate(options), teacher, next_sentence=False)


def _usual_heads(student: BertShape, teacher: BertShape) -> int:
    fits = not (student.width % _RELATION_HEADS or teacher.width % _RELATION_HEADS)
    return _RELATION_HEADS if fits else teacher.heads


def objectives_of(name: str, heads: int) -> StageOptions:
    """Return the objectives of one of our sides, with so many relation heads."""
    recipe, kinds = OURS[name]
    tree = yaml.safe_load((_RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8"))
    chosen = [each for each in tree["objectives"] if each["kind"] in kinds]
    given = [each | ({"heads": heads} if "heads" in each else {}) for each in chosen]
    return StageOptions.model_validate({"steps": 1, "objectives": given})


def make_ours(name: str, setting: Setting, shape: BertShape, objectives: StageOptions) -> Trainer:
    """Return the student of a run and its task, with a teacher of a shape."""
    plans = plan_stages(stages_of([objectives]), setting.shape, shape, has_mlm_head=True)
    model = build_bert(shape, seed=1)
    projections = find_projections(plans, setting.shape, shape)
    student = make_student(model, setting.shape, (), 0, projections)
    teacher = Teacher(model, setting.device, setting.precision, setting.backend)
    return packed_trainer(name, setting, student, DistillationTask([teacher], plans))


def make_all_tokens(setting: Setting, shape: BertShape, heads: int) -> Trainer:
    """Return DistilBERT's step as in its published code: logits of all tokens, of both models."""
    teacher, student = _models("BertForMaskedLM", setting, shape)
    widths = setting.shape.width, shape.width
    projection = nn.Identity() if widths[0] == widths[1] else nn.Linear(*widths)
    student.projection = projection.to(setting.device)  # a part of the student, to be trained

    def forward(model: Any, shown: Inputs) -> Any:
        return model(**shown, output_hidden_states=True)

    def distance(own: Any, theirs: Any, inputs: Inputs) -> torch.Tensor:
        hidden_BSD = student.projection(own.hidden_states[-1].float())
        return distilbert_loss(
            own.logits, theirs.logits, hidden_BSD, theirs.hidden_states[-1], inputs
        )

    return _peer("peer/distilbert_all_tokens", setting, teacher, student, forward, distance)


def make_materialised(setting: Setting, shape: BertShape, heads: int) -> Trainer:
    """Return MiniLMv2's step with every relation of the last layers in memory, without heads."""
    models = _models("BertModel", setting, shape)
    captured: dict[Any, list[torch.Tensor]] = {model: [] for model in models}
    for model in models:
        attention = model.encoder.layer[-1].attention.self
        for part in (attention.query, attention.key, attention.value):
            part.register_forward_hook(lambda _m, _i, out, kept=captured[model]: kept.append(out))

    def forward(model: Any, shown: Inputs) -> list[torch.Tensor]:
        model(**shown)
        found = list(captured[model])
        captured[model].clear()  # or they stay in memory until the next step
        return found

    def distance(own: Any, theirs: Any, inputs: Inputs) -> torch.Tensor:
        return relation_loss(own, theirs, inputs["attention_mask"], heads)

    return _peer("peer/minilm_v2_materialised", setting, *models, forward, distance)


def _models(kind: str, setting: Setting, shape: BertShape) -> tuple[Any, Any]:
    """Return teacher and student."""
    teacher = build_hf(kind, shape).to(setting.device, DTYPES[setting.precision])
    return teacher.eval().requires_grad_(False), build_hf(kind, setting.shape).to(setting.device)


def _peer(
    name: str,
    setting: Setting,
    teacher: Any,
    student: Any,
    forward: Callable[[Any, Inputs], Any],
    distance: Callable[[Any, Any, Inputs], torch.Tensor],
) -> Trainer:
    """Return a trainer whose loss is a distance between what `forward` returns of both models."""
    timer = DeviceTimer(setting.device)

    def loss(inputs: Inputs) -> torch.Tensor:
        names = ("input_ids", "token_type_ids", "attention_mask")
        shown = {name: inputs[name] for name in names}
        with timer.running(), torch.no_grad():
            theirs = forward(teacher, shown)
        with autocast(setting):
            own = forward(student, shown)
        return distance(own, theirs, inputs)

    trainer = padded_trainer(name, setting, student, loss)
    trainer.teacher_ms = timer.read_ms
    return trainer


def distilbert_loss(
    logits_BSV: torch.Tensor,
    teacher_BSV: torch.Tensor,
    hidden_BSD: torch.Tensor,
    teacher_BSD: torch.Tensor,
    inputs: Inputs,
) -> torch.Tensor:
    """Return DistilBERT's loss (arXiv 1910.01108): soft targets and cosine at all real tokens."""
    real_BS = inputs["attention_mask"].bool()
    soft = F.kl_div(
        F.log_softmax(logits_BSV[real_BS].float() / 2, dim=-1),
        F.softmax(teacher_BSV[real_BS].float() / 2, dim=-1),
        reduction="batchmean",
    )
    hard = F.cross_entropy(logits_BSV.flatten(0, 1).float(), inputs["labels"].flatten())
    hidden_nD, teacher_nD = hidden_BSD[real_BS].float(), teacher_BSD[real_BS].float()
    cosine = F.cosine_embedding_loss(hidden_nD, teacher_nD, hidden_nD.new_ones(len(hidden_nD)))
    # Temperature 2, whose square keeps the size of the gradient; weights 5, 2 and 1.
    return 5 * 2**2 * soft + 2 * hard + cosine


def relation_loss(
    student: Sequence[torch.Tensor],
    teacher: Sequence[torch.Tensor],
    mask_BS: torch.Tensor,
    heads: int,
) -> torch.Tensor:
    """Return MiniLMv2's loss (arXiv 2012.15828): every relation as a whole in fp32, [B, A, S, S].

    Args:
        student, teacher: queries, keys and values of a layer, [B, S, D].
        mask_BS: 1 for real tokens.
        heads: A.
    """
    losses = []
    for student_BSD, teacher_BSD in zip(student, teacher, strict=True):
        own, theirs = (_relations(x, mask_BS, heads) for x in (student_BSD, teacher_BSD))
        gaps_BAS = F.kl_div(own, theirs, reduction="none", log_target=True).sum(-1)
        losses.append((gaps_BAS.mean(1) * mask_BS).sum() / mask_BS.sum())
    return torch.stack(losses).sum()


def _relations(hidden_BSD: torch.Tensor, mask_BS: torch.Tensor, heads: int) -> torch.Tensor:
    parts = hidden_BSD.float().reshape(*mask_BS.shape, heads, -1).transpose(1, 2)
    scores = parts @ parts.transpose(-1, -2) / parts.shape[-1] ** 0.5
    # The lowest number and not minus infinity: what is left out is then 0 times a finite number.
    hidden = mask_BS[:, None, None, :] == 0
    return F.log_softmax(scores.masked_fill(hidden, torch.finfo(scores.dtype).min), dim=-1)


PEERS = (make_all_tokens, make_materialised)
