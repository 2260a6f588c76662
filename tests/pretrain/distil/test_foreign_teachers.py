"""Teachers that only transformers computes: which objectives they serve, and which not."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ModernBertForMaskedLM

from data_prep.errors import UserError
from data_prep.tokenizers.folder import load_tokenizer
from pretrain.data.batch import Batch
from pretrain.data.dummy_batch import dummy_batch
from pretrain.distil.setup import set_up_distillation
from pretrain.distil.teacher import Teacher
from pretrain.distributed import Cluster
from pretrain.model.captured_states import Capture
from pretrain.model.loading import load_encoder, locate
from tests.foreign_models import VOCABULARY, edit_weights, save
from tests.pretrain.distil.test_setup import inputs, recipe
from tests.student_tasks import terms_of

__all__ = ["inputs"]  # a fixture

ROW = 512
_SMALL = {"layers": 2, "positions": 64, "init": "random"}
_LAYER_LOSSES = [
    {"kind": "relations", "heads": 2},
    {"kind": "hidden_mse", "teacher_layer": 2},
    {"kind": "embeddings"},
    {"kind": "value_relations"},
]


def teacher_folder(folder: Path, tokenizer: Path, name: str, **config: Any) -> Path:
    """Save a model of transformers with the tokenizer of the corpus."""
    save(folder, name, vocab_size=load_tokenizer(tokenizer).vocab_size, **config)
    for path in tokenizer.glob("*.json"):
        if path.name != "manifest.json":
            shutil.copyfile(path, folder / path.name)
    return folder


@pytest.fixture
def modernbert(tmp_path: Path, tiny_tokenizer: Path) -> Path:
    """Return the folder of a ModernBERT whose first and third layers see whole samples."""
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    return teacher_folder(
        tmp_path / "modernbert", tiny_tokenizer, "ModernBertForMaskedLM", local_attention=8,
        global_attn_every_n_layers=2, cls_token_id=2, sep_token_id=3, max_position_embeddings=64,
        **ids,
    )  # fmt: skip


@pytest.fixture
def electra(tmp_path: Path, tiny_tokenizer: Path) -> Path:
    """Return the folder of an ELECTRA whose embeddings are narrower than its layers."""
    return teacher_folder(
        tmp_path / "electra", tiny_tokenizer, "ElectraForPreTraining", embedding_size=16,
        max_position_embeddings=64,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("family", "objectives"),
    [
        ("electra", [*_LAYER_LOSSES, {"kind": "attention_scores"}]),
        ("modernbert", [*_LAYER_LOSSES, {"kind": "soft_targets"}, {"kind": "hard_mlm"}]),
        ("modernbert", [{"kind": "attention_distributions", "teacher_layer": 3}]),
    ],
)
def test_student_of_another_family(
    request: pytest.FixtureRequest,
    family: str,
    objectives: list[dict[str, Any]],
    inputs: Any,
    alone: Cluster,
    packed: Batch,
) -> None:
    """A student has finite losses, and gradients, from each objective that its teacher serves."""
    path = str(request.getfixturevalue(family))
    chosen = recipe({"path": path}, objectives=objectives, student=_SMALL)
    prepared = set_up_distillation(chosen, inputs, alone)
    terms = terms_of(prepared.model, prepared.task, packed)  # type: ignore[arg-type]
    assert len(terms) >= len(objectives) and all(torch.isfinite(term.total) for term in terms)
    sum(term.total for term in terms).backward()  # type: ignore[union-attr]
    gradient = prepared.model.bert.embeddings.word_embeddings.weight.grad
    assert gradient is not None and gradient.abs().sum() > 0
    assert prepared.model.shape.norm == "post" and prepared.model.shape.token_types


@pytest.mark.parametrize(
    ("family", "keys", "message"),
    [
        ("modernbert", {"student": {"layers": 2}}, "but the teacher is of type modernbert: set "),
        ("electra", {"student": {"layers": 2}}, "the teacher is of type electra: set student.init"),
        ("electra", {"objectives": [{"kind": "soft_targets"}]}, "the teacher has no MLM head"),
        (
            "modernbert",
            {"objectives": [{"kind": "attention_scores", "teacher_layer": 2}]},
            r"attention_scores names teacher_layer 2, whose tokens .* name one of 1, 3, or use rel",
        ),
        (
            "modernbert",
            {"objectives": [{"kind": "relations", "heads": 8}]},
            r"has 8 heads, but a modernbert rotates .* its 4 heads: .* or relations=\[vv\]",
        ),
    ],
)
def test_what_a_family_cannot_serve(
    request: pytest.FixtureRequest,
    family: str,
    keys: dict[str, Any],
    message: str,
    inputs: Any,
    alone: Cluster,
) -> None:
    """What a teacher of another family cannot give is refused, with what it can."""
    path = str(request.getfixturevalue(family))
    with pytest.raises(UserError, match=message):
        set_up_distillation(recipe({"path": path}, **{"student": _SMALL, **keys}), inputs, alone)


def test_values_of_any_heads_are_served(modernbert: Path, inputs: Any, alone: Cluster) -> None:
    """Values are not rotated, so their relations may have any number of heads."""
    objectives = [{"kind": "relations", "heads": 8, "relations": ["vv"]}]
    chosen = recipe({"path": str(modernbert)}, objectives=objectives, student=_SMALL)
    assert set_up_distillation(chosen, inputs, alone).task is not None


def test_sharding_is_refused(electra: Path) -> None:
    """Only the layers of a BERT can be sharded."""
    model = load_encoder(locate(electra))
    with pytest.raises(UserError, match=r"but the teacher is of type electra: leave teacher.shard"):
        Teacher(model, torch.device("cpu"), "fp32", sharded=True)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_teacher_in_half_precision(modernbert: Path, packed: Batch, precision: str) -> None:
    """Outputs have the precision of the run."""
    teacher = Teacher(load_encoder(locate(modernbert)), torch.device("cpu"), precision)
    logits = teacher(packed).mlm_logits_MV
    assert logits.dtype == {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_long_rows_turn_as_in_plain(tmp_path: Path, precision: torch.dtype) -> None:
    """In half precision, tokens far from the first turn by the angles of plain transformers."""
    save(
        tmp_path, "ModernBertForMaskedLM", local_attention=512, global_attn_every_n_layers=2,
        max_position_embeddings=ROW, pad_token_id=0, bos_token_id=2, eos_token_id=3,
        cls_token_id=2, sep_token_id=3,
    )  # fmt: skip
    name = {torch.bfloat16: "bf16", torch.float16: "fp16"}[precision]
    # Larger queries and keys, so that attention depends on the angles.
    edit_weights(tmp_path, lambda w: {n: t * (4 if "Wqkv" in n else 1) for n, t in w.items()})
    teacher = Teacher(load_encoder(locate(tmp_path)), torch.device("cpu"), name)
    plain = ModernBertForMaskedLM.from_pretrained(
        tmp_path, dtype=precision, attn_implementation="sdpa"
    )
    exact = ModernBertForMaskedLM.from_pretrained(tmp_path, dtype=torch.float32)
    batch = dummy_batch(VOCABULARY, rows=1, row_tokens=ROW)
    ids = batch.input_ids.clamp(min=2)
    batch = batch.map_tensors(lambda t: ids if t is batch.input_ids else t)
    found = teacher.states(batch, Capture(hidden=frozenset({3}))).hidden[3]
    with torch.no_grad():
        theirs, truth = (m.eval().base_model(ids[None])[0][0] for m in (plain, exact))
    # The operations are the same, in the same precision. Only sums of attention may be in another
    # order, which is seen where fp32 sums lie between two numbers: far less than all rounding.
    assert distance(found, theirs) < 0.3 * distance(theirs, truth)


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the relative distance of two tensors."""
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def test_embeddings_alone_are_served(
    modernbert: Path, electra: Path, inputs: Any, alone: Cluster, packed: Batch
) -> None:
    """Losses of the embeddings alone read the states that whole models of transformers have."""
    for folder in (modernbert, electra):
        chosen = recipe({"path": str(folder)}, objectives=[{"kind": "embeddings"}], student=_SMALL)
        prepared = set_up_distillation(chosen, inputs, alone)
        (term,) = terms_of(prepared.model, prepared.task, packed)  # type: ignore[arg-type]
        assert torch.isfinite(term.total) and term.total > 0
        whole, part = load_encoder(locate(folder)), load_encoder(locate(folder))
        only = Capture(hidden=frozenset({0}))
        part.keep_layers(only.last)
        with torch.no_grad():
            found, expected = (each.eval().states(packed, only).hidden[0] for each in (part, whole))
        assert torch.equal(found, expected)
