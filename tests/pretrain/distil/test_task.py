"""A student's task: terms by step, and a gradient for every parameter."""

import copy
import dataclasses
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F

from pretrain.data.batch import IGNORE_INDEX, Batch
from pretrain.distil.logit_losses import SoftLoss, cached_soft_terms
from pretrain.distil.teacher_cache.targets import top_k_targets
from pretrain.losses.term import Term, normalised_loss
from pretrain.model import Bert, BertShape, initialise
from pretrain.model.captured_states import Capture
from pretrain.train.nonfinite import NonfiniteCheck
from tests.student_tasks import DISTILBERT, Objectives, make_distillation, stage, terms_of

LAYER_KINDS: Objectives = [
    {"kind": "hidden_cosine"},
    {"kind": "hidden_mse", "student_layer": [1, 2], "teacher_layer": [2, 4]},
    {"kind": "embeddings"},
    {"kind": "attention_scores", "student_layer": [1, 2], "teacher_layer": [2, 4]},
    {"kind": "attention_distributions"},
    {"kind": "value_relations"},
    {"kind": "relations", "heads": 8, "teacher_layer": -2},
    {"kind": "feature_maps", "mean_weight": 50.0, "variance_weight": 0.05},
]
NARROW = {"width": 16, "feed_forward": 24}


@pytest.fixture
def teacher(tiny_shape: BertShape) -> Bert:
    """Return a teacher of four layers whose outputs differ everywhere."""
    model = Bert(dataclasses.replace(tiny_shape, layers=4))
    initialise(model, seed=5)
    generator = torch.Generator().manual_seed(6)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def gradients_of(student: Bert, terms: list[Term], batch: Batch) -> dict[str, torch.Tensor]:
    """Return the gradient of each parameter; none may be missing."""
    student.zero_grad()
    normalised_loss(terms, batch.counts).backward()
    gradients = {name: p.grad for name, p in student.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    return {name: gradient.clone() for name, gradient in gradients.items() if gradient is not None}


def value_of(terms: list[Term], tag: str) -> torch.Tensor:
    return next(term.total for term in terms if term.tag == tag)


@pytest.mark.parametrize("options", [{}, NARROW, {**NARROW, "format": "distilbert"}])
@pytest.mark.parametrize("objective", LAYER_KINDS, ids=lambda one: str(one["kind"]))
def test_layer_objective_any_student_width(
    teacher: Bert, packed: Batch, objective: dict[str, Any], options: dict[str, Any]
) -> None:
    """Every layer objective gives a student of any width a finite gradient."""
    student, task = make_distillation(teacher, stage([objective]), layers=2, **options)
    # Copied embeddings equal the teacher's; move them, so that there is a gradient.
    student.bert.embeddings.word_embeddings.weight.data += 0.1 * torch.rand(student.shape.width)
    (term,) = terms_of(student, task, packed)
    assert term.tag == f"loss/{objective['kind']}" and term.per == "tokens"
    assert torch.isfinite(term.total) and term.total > 0
    gradients = gradients_of(student, [term], packed)
    embeddings = gradients["bert.embeddings.word_embeddings.weight"]
    assert torch.isfinite(embeddings).all() and embeddings.any()
    # Other parameters have a gradient of zero, not None: ZeRO-3 needs one.
    assert not gradients["cls.predictions.transform.dense.weight"].any()


@pytest.mark.parametrize("objective", LAYER_KINDS, ids=lambda one: str(one["kind"]))
def test_layer_objectives_zero_at_equality(
    teacher: Bert, packed: Batch, objective: dict[str, Any]
) -> None:
    """Every layer objective is 0, with its gradient, where student and teacher are equal."""
    same = {key: value for key, value in objective.items() if not key.endswith("_layer")}
    student, task = make_distillation(teacher, stage([same]), layers=4)
    (term,) = terms_of(student, task, packed)
    # Sums over hundreds of tokens of squares and divergences that round to 1e-7 at most.
    assert abs(term.total.item()) < 1e-3
    gradients = gradients_of(student, [term], packed)
    assert all(gradient.abs().max() < 1e-3 for gradient in gradients.values())


def test_projection_only_for_different_widths(teacher: Bert, packed: Batch) -> None:
    """A projection is trained where widths differ and absent where they do not."""
    objectives = [{"kind": "hidden_mse", "student_layer": 1, "teacher_layer": 2}]
    student, task = make_distillation(teacher, stage(objectives), layers=2, **NARROW)
    gradients = gradients_of(student, terms_of(student, task, packed), packed)
    assert gradients["projections.layer1_to_2.weight"].any()
    same, _ = make_distillation(teacher, stage(objectives), layers=2)
    assert not same.projections


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_objectives_in_bf16_with_either_norm(
    tiny_shape: BertShape, packed: Batch, norm: Literal["post", "pre"]
) -> None:
    """Every objective has finite fp32 sums and gradients in bf16, post-norm and pre-norm."""
    model = Bert(dataclasses.replace(tiny_shape, layers=4, norm=norm))
    initialise(model, seed=5)
    listed = [*LAYER_KINDS, *DISTILBERT[:2]]
    student, task = make_distillation(model, stage(listed), precision="bf16", layers=2, **NARROW)
    student = student.to(torch.bfloat16)
    terms = terms_of(student, task, packed)
    assert all(term.total.dtype == torch.float32 for term in terms)
    assert all(torch.isfinite(g).all() for g in gradients_of(student, terms, packed).values())


def test_soft_targets_and_mlm_match_formula(teacher: Bert, packed: Batch) -> None:
    """Soft-target and MLM terms are the published formulas."""
    student, task = make_distillation(teacher, stage(DISTILBERT), layers=2)
    terms = terms_of(student, task, packed)
    assert [(t.tag, t.per, t.weight) for t in terms] == [
        ("loss/soft_targets", "masked", 5.0),
        ("loss/mlm", "masked", 2.0),
        ("accuracy/mlm", "masked", 0.0),
        ("loss/hidden_cosine", "tokens", 1.0),
    ]
    with torch.no_grad():
        own, theirs = student(packed), teacher(packed)
    is_masked = packed.mlm_labels != IGNORE_INDEX
    p, q = ((out.mlm_logits_MV[is_masked] / 2).log_softmax(-1) for out in (theirs, own))
    torch.testing.assert_close(terms[0].total, 4 * F.kl_div(q, p, reduction="sum", log_target=True))
    hard = F.cross_entropy(own.mlm_logits_MV, packed.mlm_labels, reduction="sum")
    torch.testing.assert_close(terms[1].total.detach(), hard)


@pytest.mark.parametrize("weights", [(5.0, 2.0), (0.5, 0.0), (0.0, 3.0)])
def test_fused_gradient_is_weighted_sum(
    teacher: Bert, packed: Batch, weights: tuple[float, float]
) -> None:
    """The fused pass has the gradient of both losses, at any weights."""
    schedule = {"schedule": {"to": 1.0}}  # keeps objectives with a weight of 0
    soft = {"kind": "soft_targets", "weight": weights[0], **schedule}
    hard = {"kind": "hard_mlm", "weight": weights[1], **schedule}
    student, both = make_distillation(teacher, stage([soft, hard], steps=100), layers=2)
    found = gradients_of(student, terms_of(student, both, packed), packed)
    expected = {name: torch.zeros_like(gradient) for name, gradient in found.items()}
    for kind, weight in zip(("soft_targets", "hard_mlm"), weights, strict=True):
        _, task = make_distillation(teacher, stage([{"kind": kind}]), layers=2)
        for name, gradient in gradients_of(
            student, terms_of(student, task, packed), packed
        ).items():
            expected[name] += weight * gradient
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("divergence", ["forward", "reverse", "symmetric"])
def test_soft_targets_at_all_tokens(teacher: Bert, packed: Batch, divergence: str) -> None:
    """Soft targets at all tokens are the divergence over the real ones."""
    objective = {"kind": "soft_targets", "at": "all", "divergence": divergence}
    student, task = make_distillation(teacher, stage([objective]), layers=2)
    (term,) = terms_of(student, task, packed)
    everywhere = dataclasses.replace(packed, masked_positions=torch.arange(len(packed.input_ids)))
    real = packed.sample_ids > 0
    with torch.no_grad():
        p, q = (m(everywhere).mlm_logits_MV[real].log_softmax(-1) for m in (teacher, student))
    forward, reverse = (
        F.kl_div(b, a, reduction="sum", log_target=True) for a, b in ((p, q), (q, p))
    )
    expected = {"forward": forward, "reverse": reverse, "symmetric": (forward + reverse) / 2}
    assert term.per == "tokens"
    torch.testing.assert_close(term.total, expected[divergence])


def test_teachers_averaged_in_probability(teacher: Bert, packed: Batch) -> None:
    """Several teachers are averaged in probability, not in logits."""
    other = Bert(teacher.shape)
    initialise(other, seed=9)
    for parameter in other.parameters():
        parameter.data += 0.1
    objectives = [{"kind": "soft_targets", "temperature": 2.0}, {"kind": "hard_mlm"}]
    student, task = make_distillation([teacher, other], stage(objectives), layers=2)
    terms = terms_of(student, task, packed)
    is_masked = packed.mlm_labels != IGNORE_INDEX
    with torch.no_grad():
        theirs = [(m(packed).mlm_logits_MV[is_masked] / 2).softmax(-1) for m in (teacher, other)]
        q = (student(packed).mlm_logits_MV[is_masked] / 2).log_softmax(-1)
    p = (theirs[0] + theirs[1]) / 2
    torch.testing.assert_close(terms[0].total, 4 * F.kl_div(q, p, reduction="sum"))
    gradients_of(student, terms, packed)


@pytest.mark.parametrize("source", ["one", "several", "cache"])
def test_bf16_soft_targets_keep_fp32_logits(teacher: Bert, packed: Batch, source: str) -> None:
    """A student whose logits differ by some 2^-8; those of size 1 are off by as much in bf16."""
    student, task = make_distillation(
        [teacher, copy.deepcopy(teacher)] if source == "several" else teacher,
        stage([{"kind": "soft_targets"}]),
        precision="bf16",
        layers=4,
    )
    student = student.to(torch.bfloat16)
    student.cls.predictions.transform.LayerNorm.bias.data += 2.0**-8
    is_masked = packed.mlm_labels != IGNORE_INDEX
    with torch.no_grad():
        own, theirs = student(packed), teacher(packed)
        z_S, z_T = (
            out.masked_MD.double() @ out.decoder_VD.double().T + out.decoder_bias_V
            for out in (own, theirs)
        )
        if source == "cache":
            kept = top_k_targets(z_T.float(), z_T.shape[1], torch.float32)
            ids, values, rest = (x * is_masked.view(-1, *[1] * (x.dim() - 1)) for x in kept)
            batch = dataclasses.replace(
                packed, cached_ids=ids, cached_values=values, cached_rest=rest
            )
            (term,) = cached_soft_terms(SoftLoss(1.0, "forward", 1.0), own, batch, "top_k")
        else:
            (term,) = terms_of(student, task, packed)
    p, q = (z[is_masked].log_softmax(-1) for z in (z_T, z_S))
    wanted = F.kl_div(q, p, reduction="sum", log_target=True).item()
    # fp32 holds 2^-24 of the sums near 1 whose differences these are, one for each token.
    assert term.total.item() == pytest.approx(wanted, rel=1e-2)


def test_repeated_tags_are_numbered(teacher: Bert, packed: Batch) -> None:
    """Tags of an objective that occurs twice are numbered."""
    twice = [
        {"kind": "hidden_mse", "student_layer": 1, "teacher_layer": 2},
        {"kind": "hidden_mse", "weight": 0.5},
    ]
    student, task = make_distillation(teacher, stage(twice), layers=2)
    found = [(term.tag, term.weight) for term in terms_of(student, task, packed)]
    assert found == [("loss/hidden_mse", 1.0), ("loss/hidden_mse_2", 0.5)]


def test_next_sentence_trains_nsp_head(teacher: Bert, packed: Batch) -> None:
    """The objective next_sentence gives the student an NSP head and trains it."""
    listed = [{"kind": "hard_mlm"}, {"kind": "next_sentence", "weight": 0.5}]
    student, task = make_distillation(teacher, stage(listed), layers=2)
    assert student.shape.next_sentence
    terms = terms_of(student, task, packed)
    assert ("loss/nsp", 0.5) in [(term.tag, term.weight) for term in terms]
    assert gradients_of(student, terms, packed)["cls.seq_relationship.weight"].any()
    without, _ = make_distillation(teacher, stage(DISTILBERT), layers=2)
    assert not without.shape.next_sentence


def test_stage_terms_weights_and_teacher_passes(teacher: Bert, packed: Batch) -> None:
    """Each stage has its own terms, weights, captured states and teacher passes."""
    layers = stage([{"kind": "relations", "heads": 4, "schedule": {"to": 0.5}}], steps=5)
    soft = stage([{"kind": "soft_targets"}], steps=3)
    hard = stage([{"kind": "hard_mlm"}], steps=2)
    student, task = make_distillation(teacher, layers, soft, hard, layers=2)
    tags = [[t.tag for t in terms_of(student, task, packed, step)] for step in (0, 4, 5, 7, 8)]
    assert tags == [
        ["loss/relations"],
        ["loss/relations"],
        ["loss/soft_targets"],
        ["loss/soft_targets"],
        ["loss/mlm", "accuracy/mlm"],
    ]
    weights = [terms_of(student, task, packed, step)[0].weight for step in range(5)]
    assert weights == pytest.approx([1, 0.875, 0.75, 0.625, 0.5])
    assert task.at(0).capture == Capture(attention=frozenset({2}))
    passes = [task.at(step).teacher_passes for step in (0, 5, 8)]
    assert [len(models) for models in passes] == [1, 1, 0]
    assert not passes[0][0].has_mlm_head and passes[1][0].has_mlm_head
    # The default teacher_layer is the last one, so no layer is left out.
    assert passes[0][0].shape.layers == 4


def test_validation_has_layer_losses(teacher: Bert, packed: Batch) -> None:
    """A validation has the MLM loss and the layer losses of the stage that trained last."""
    layers = stage([{"kind": "relations", "heads": 4}, {"kind": "hidden_mse"}], steps=5)
    soft = stage([{"kind": "soft_targets"}], steps=3)
    student, task = make_distillation(teacher, layers, soft, layers=2)
    spec = task.validation(5)
    terms = student(packed, spec.terms, capture=spec.capture)
    trained = {term.tag: term.total for term in terms_of(student, task, packed, step=4)}
    found = {term.tag: term.total for term in terms}
    assert list(found) == ["loss/mlm", "accuracy/mlm", "loss/relations", "loss/hidden_mse"]
    assert all(torch.equal(found[tag], total) for tag, total in trained.items())
    assert [
        len(student(packed, task.validation(n).terms, None, task.validation(n).capture))
        for n in (0, 8)
    ] == [4, 2]
    # Not part of a training step: the teacher's share of its time would be wrong.
    assert task.teacher_ms() > 0
    student(packed, spec.terms, capture=spec.capture)
    assert task.teacher_ms() == 0


def test_micro_batch_without_masked_tokens(teacher: Bert, packed: Batch) -> None:
    """A micro-batch without masked tokens has sums of 0 and finite gradients."""
    bare = dataclasses.replace(
        packed,
        mlm_labels=torch.full_like(packed.mlm_labels, IGNORE_INDEX),
        counts={**packed.counts, "masked": 0},
    )
    student, task = make_distillation(teacher, stage(DISTILBERT), layers=2)
    terms = terms_of(student, task, bare)
    assert [t.total.item() for t in terms[:3]] == [0, 0, 0]
    assert all(torch.isfinite(g).all() for g in gradients_of(student, terms, bare).values())


def test_teacher_nan_in_mid_run_detected(teacher: Bert, packed: Batch) -> None:
    """A teacher whose outputs become NaN during a run makes the loss NaN."""
    student, task = make_distillation(teacher, stage(DISTILBERT), layers=2)
    check = NonfiniteCheck()
    for number in (0.0, float("nan")):
        teacher.bert.encoder.layer[3].output.dense.bias.data[0] += number
        terms = terms_of(student, task, packed)
        check.add(normalised_loss(terms, packed.counts))
        check.close_step()
        assert check.synchronised_flag() == (0 if number == 0 else 1)
