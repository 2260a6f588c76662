"""A student's task: which terms it has, when, and that every parameter learns from them."""

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


def learn(student: Bert, terms: list[Term], batch: Batch) -> dict[str, torch.Tensor]:
    """Return the gradient of each parameter; every one must have some."""
    student.zero_grad()
    normalised_loss(terms, batch.counts).backward()
    gradients = {name: p.grad for name, p in student.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    return {name: gradient.clone() for name, gradient in gradients.items() if gradient is not None}


def value_of(terms: list[Term], tag: str) -> torch.Tensor:
    return next(term.total for term in terms if term.tag == tag)


@pytest.mark.parametrize("student", [{}, NARROW, {**NARROW, "format": "distilbert"}])
@pytest.mark.parametrize("objective", LAYER_KINDS, ids=lambda one: str(one["kind"]))
def test_an_objective_of_layers_teaches_a_student_of_any_width(
    teacher: Bert, packed: Batch, objective: dict[str, Any], student: dict[str, Any]
) -> None:
    pupil, task = make_distillation(teacher, stage([objective]), layers=2, **student)
    # Copied embeddings are the teacher's; what is to be learned must differ.
    pupil.bert.embeddings.word_embeddings.weight.data += 0.1 * torch.rand(pupil.shape.width)
    (term,) = terms_of(pupil, task, packed)
    assert term.tag == f"loss/{objective['kind']}" and term.per == "tokens"
    assert torch.isfinite(term.total) and term.total > 0
    gradients = learn(pupil, [term], packed)
    embeddings = gradients["bert.embeddings.word_embeddings.weight"]
    assert torch.isfinite(embeddings).all() and embeddings.any()
    # What the objective does not reach gets a gradient of zero, not none: ZeRO-3 needs one.
    assert not gradients["cls.predictions.transform.dense.weight"].any()


@pytest.mark.parametrize("objective", LAYER_KINDS, ids=lambda one: str(one["kind"]))
def test_a_student_equal_to_its_teacher_has_nothing_to_learn_from_layers(
    teacher: Bert, packed: Batch, objective: dict[str, Any]
) -> None:
    same = {key: value for key, value in objective.items() if not key.endswith("_layer")}
    pupil, task = make_distillation(teacher, stage([same]), layers=4)
    (term,) = terms_of(pupil, task, packed)
    # Sums over hundreds of tokens of squares and divergences that round to 1e-7 at most.
    assert abs(term.total.item()) < 1e-3
    gradients = learn(pupil, [term], packed)
    assert all(gradient.abs().max() < 1e-3 for gradient in gradients.values())


def test_a_projection_learns_where_widths_differ_and_is_absent_where_not(
    teacher: Bert, packed: Batch
) -> None:
    objectives = [{"kind": "hidden_mse", "student_layer": 1, "teacher_layer": 2}]
    pupil, task = make_distillation(teacher, stage(objectives), layers=2, **NARROW)
    gradients = learn(pupil, terms_of(pupil, task, packed), packed)
    assert gradients["projections.layer1_to_2.weight"].any()
    same, _ = make_distillation(teacher, stage(objectives), layers=2)
    assert not same.projections


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_every_objective_learns_in_bf16_and_with_either_norm(
    tiny_shape: BertShape, packed: Batch, norm: Literal["post", "pre"]
) -> None:
    taught = Bert(dataclasses.replace(tiny_shape, layers=4, norm=norm))
    initialise(taught, seed=5)
    listed = [*LAYER_KINDS, *DISTILBERT[:2]]
    pupil, task = make_distillation(taught, stage(listed), precision="bf16", layers=2, **NARROW)
    pupil = pupil.to(torch.bfloat16)
    terms = terms_of(pupil, task, packed)
    assert all(term.total.dtype == torch.float32 for term in terms)
    assert all(torch.isfinite(g).all() for g in learn(pupil, terms, packed).values())


def test_soft_targets_and_masked_words_are_the_formula(teacher: Bert, packed: Batch) -> None:
    pupil, task = make_distillation(teacher, stage(DISTILBERT), layers=2)
    terms = terms_of(pupil, task, packed)
    assert [(t.tag, t.per, t.weight) for t in terms] == [
        ("loss/soft_targets", "masked", 5.0),
        ("loss/mlm", "masked", 2.0),
        ("accuracy/mlm", "masked", 0.0),
        ("loss/hidden_cosine", "tokens", 1.0),
    ]
    with torch.no_grad():
        own, theirs = pupil(packed), teacher(packed)
    asked = packed.mlm_labels != IGNORE_INDEX
    p, q = ((out.mlm_logits_MV[asked] / 2).log_softmax(-1) for out in (theirs, own))
    torch.testing.assert_close(terms[0].total, 4 * F.kl_div(q, p, reduction="sum", log_target=True))
    hard = F.cross_entropy(own.mlm_logits_MV, packed.mlm_labels, reduction="sum")
    torch.testing.assert_close(terms[1].total.detach(), hard)


@pytest.mark.parametrize("weights", [(5.0, 2.0), (0.5, 0.0), (0.0, 3.0)])
def test_one_pass_has_the_gradient_of_both_losses_at_any_weights(
    teacher: Bert, packed: Batch, weights: tuple[float, float]
) -> None:
    course = {"schedule": {"to": 1.0}}  # keeps a weight of 0 from being left out
    soft = {"kind": "soft_targets", "weight": weights[0], **course}
    hard = {"kind": "hard_mlm", "weight": weights[1], **course}
    pupil, both = make_distillation(teacher, stage([soft, hard], steps=100), layers=2)
    found = learn(pupil, terms_of(pupil, both, packed), packed)
    expected = {name: torch.zeros_like(gradient) for name, gradient in found.items()}
    for kind, weight in zip(("soft_targets", "hard_mlm"), weights, strict=True):
        _, task = make_distillation(teacher, stage([{"kind": kind}]), layers=2)
        for name, gradient in learn(pupil, terms_of(pupil, task, packed), packed).items():
            expected[name] += weight * gradient
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("divergence", ["forward", "reverse", "symmetric"])
def test_soft_targets_of_all_tokens_ask_every_real_one(
    teacher: Bert, packed: Batch, divergence: str
) -> None:
    objective = {"kind": "soft_targets", "at": "all", "divergence": divergence}
    pupil, task = make_distillation(teacher, stage([objective]), layers=2)
    (term,) = terms_of(pupil, task, packed)
    everywhere = dataclasses.replace(packed, masked_positions=torch.arange(len(packed.input_ids)))
    real = packed.sample_ids > 0
    with torch.no_grad():
        p, q = (m(everywhere).mlm_logits_MV[real].log_softmax(-1) for m in (teacher, pupil))
    forward, reverse = (
        F.kl_div(b, a, reduction="sum", log_target=True) for a, b in ((p, q), (q, p))
    )
    expected = {"forward": forward, "reverse": reverse, "symmetric": (forward + reverse) / 2}
    assert term.per == "tokens"
    torch.testing.assert_close(term.total, expected[divergence])


def test_several_teachers_are_averaged_in_probability(teacher: Bert, packed: Batch) -> None:
    other = Bert(teacher.shape)
    initialise(other, seed=9)
    for parameter in other.parameters():
        parameter.data += 0.1
    words = [{"kind": "soft_targets", "temperature": 2.0}, {"kind": "hard_mlm"}]
    pupil, task = make_distillation([teacher, other], stage(words), layers=2)
    terms = terms_of(pupil, task, packed)
    asked = packed.mlm_labels != IGNORE_INDEX
    with torch.no_grad():
        theirs = [(m(packed).mlm_logits_MV[asked] / 2).softmax(-1) for m in (teacher, other)]
        q = (pupil(packed).mlm_logits_MV[asked] / 2).log_softmax(-1)
    p = (theirs[0] + theirs[1]) / 2
    torch.testing.assert_close(terms[0].total, 4 * F.kl_div(q, p, reduction="sum"))
    learn(pupil, terms, packed)


@pytest.mark.parametrize("asked_of", ["one", "several", "disk"])
def test_soft_targets_in_bf16_come_from_logits_that_are_not_rounded(
    teacher: Bert, packed: Batch, asked_of: str
) -> None:
    """A pupil whose logits differ by some 2^-8; those of size 1 are off by as much in bf16."""
    pupil, task = make_distillation(
        [teacher, copy.deepcopy(teacher)] if asked_of == "several" else teacher,
        stage([{"kind": "soft_targets"}]),
        precision="bf16",
        layers=4,
    )
    pupil = pupil.to(torch.bfloat16)
    pupil.cls.predictions.transform.LayerNorm.bias.data += 2.0**-8
    asked = packed.mlm_labels != IGNORE_INDEX
    with torch.no_grad():
        own, theirs = pupil(packed), teacher(packed)
        z_S, z_T = (
            out.masked_MD.double() @ out.decoder_VD.double().T + out.decoder_bias_V
            for out in (own, theirs)
        )
        if asked_of == "disk":
            kept = top_k_targets(z_T.float(), z_T.shape[1], torch.float32)
            ids, values, rest = (x * asked.view(-1, *[1] * (x.dim() - 1)) for x in kept)
            batch = dataclasses.replace(
                packed, cached_ids=ids, cached_values=values, cached_rest=rest
            )
            (term,) = cached_soft_terms(SoftLoss(1.0, "forward", 1.0), own, batch, "top_k")
        else:
            (term,) = terms_of(pupil, task, packed)
    p, q = (z[asked].log_softmax(-1) for z in (z_T, z_S))
    wanted = F.kl_div(q, p, reduction="sum", log_target=True).item()
    # fp32 holds 2^-24 of the sums near 1 whose differences these are, one for each token.
    assert term.total.item() == pytest.approx(wanted, rel=1e-2)


def test_tags_of_a_kind_that_comes_twice_are_numbered(teacher: Bert, packed: Batch) -> None:
    twice = [
        {"kind": "hidden_mse", "student_layer": 1, "teacher_layer": 2},
        {"kind": "hidden_mse", "weight": 0.5},
    ]
    pupil, task = make_distillation(teacher, stage(twice), layers=2)
    found = [(term.tag, term.weight) for term in terms_of(pupil, task, packed)]
    assert found == [("loss/hidden_mse", 1.0), ("loss/hidden_mse_2", 0.5)]


def test_next_sentences_are_learned_by_a_student_with_that_head(
    teacher: Bert, packed: Batch
) -> None:
    listed = [{"kind": "hard_mlm"}, {"kind": "next_sentence", "weight": 0.5}]
    pupil, task = make_distillation(teacher, stage(listed), layers=2)
    assert pupil.shape.next_sentence
    terms = terms_of(pupil, task, packed)
    assert ("loss/nsp", 0.5) in [(term.tag, term.weight) for term in terms]
    assert learn(pupil, terms, packed)["cls.seq_relationship.weight"].any()
    without, _ = make_distillation(teacher, stage(DISTILBERT), layers=2)
    assert not without.shape.next_sentence


def test_a_stage_has_its_own_terms_teacher_and_weights(teacher: Bert, packed: Batch) -> None:
    layers = stage([{"kind": "relations", "heads": 4, "schedule": {"to": 0.5}}], steps=5)
    words = stage([{"kind": "soft_targets"}], steps=3)
    plain = stage([{"kind": "hard_mlm"}], steps=2)
    pupil, task = make_distillation(teacher, layers, words, plain, layers=2)
    tags = [[t.tag for t in terms_of(pupil, task, packed, step)] for step in (0, 4, 5, 7, 8)]
    assert tags == [
        ["loss/relations"],
        ["loss/relations"],
        ["loss/soft_targets"],
        ["loss/soft_targets"],
        ["loss/mlm", "accuracy/mlm"],
    ]
    weights = [terms_of(pupil, task, packed, step)[0].weight for step in range(5)]
    assert weights == pytest.approx([1, 0.875, 0.75, 0.625, 0.5])
    assert task.at(0).capture == Capture(attention=frozenset({2}))
    asked = [task.at(step).teacher_passes for step in (0, 5, 8)]
    assert [len(models) for models in asked] == [1, 1, 0]
    assert not asked[0][0].has_mlm_head and asked[1][0].has_mlm_head
    # The teacher's last layer is not asked for, but the one that is asked for is the last.
    assert asked[0][0].shape.layers == 4


def test_a_micro_batch_without_masked_tokens_takes_part(teacher: Bert, packed: Batch) -> None:
    bare = dataclasses.replace(
        packed,
        mlm_labels=torch.full_like(packed.mlm_labels, IGNORE_INDEX),
        counts={**packed.counts, "masked": 0},
    )
    pupil, task = make_distillation(teacher, stage(DISTILBERT), layers=2)
    terms = terms_of(pupil, task, bare)
    assert [t.total.item() for t in terms[:3]] == [0, 0, 0]
    assert all(torch.isfinite(g).all() for g in learn(pupil, terms, bare).values())


def test_a_teacher_that_goes_wrong_in_mid_run_is_noticed(teacher: Bert, packed: Batch) -> None:
    pupil, task = make_distillation(teacher, stage(DISTILBERT), layers=2)
    check = NonfiniteCheck()
    for number in (0.0, float("nan")):
        teacher.bert.encoder.layer[3].output.dense.bias.data[0] += number
        terms = terms_of(pupil, task, packed)
        check.add(normalised_loss(terms, packed.counts))
        check.close_step()
        assert check.settle() == (0 if number == 0 else 1)
