"""The model equals plain transformers sample by sample, and packed samples are independent.

Most of it is computed in fp64, so that equal means equal to the last few digits.
"""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import BertConfig, BertForPreTraining

from data_prep.errors import UserError
from pretrain.data.batch import IGNORE_INDEX, Batch
from pretrain.losses.mlm_nsp import pretraining_terms
from pretrain.model import Bert, BertShape, Outputs, initialise
from pretrain.model.dropout_rng import dropout_keys
from pretrain.model.foreign.config import from_hf_config
from pretrain.model.hf_conversion import to_hf_config
from tests.model_fixtures import keys_for
from tests.unpacked_rows import TABLES, T, rows_with_two, unpack

TIED = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
WATCHED = (
    "bert.embeddings.word_embeddings.weight",
    "bert.embeddings.position_embeddings.weight",
    "bert.embeddings.token_type_embeddings.weight",
    "bert.encoder.layer.0.attention.self.query.weight",
    "bert.encoder.layer.0.attention.output.LayerNorm.bias",
    "bert.encoder.layer.1.output.dense.weight",
    "bert.pooler.dense.weight",
    "cls.predictions.bias",
    "cls.predictions.transform.dense.weight",
    "cls.seq_relationship.weight",
)
close = torch.testing.assert_close


@pytest.fixture
def model(tiny_model: Bert) -> Bert:
    return tiny_model.double().eval()


def plain_transformers(model: Bert) -> BertForPreTraining:
    config: dict[str, Any] = to_hf_config(model.shape)
    theirs = BertForPreTraining(BertConfig(**config)).double().eval()
    outcome = theirs.load_state_dict(model.state_dict(), strict=False)
    assert not outcome.unexpected_keys and set(outcome.missing_keys) <= TIED
    return theirs


def summed_loss(mlm: torch.Tensor, nsp: torch.Tensor, batch: Batch) -> torch.Tensor:
    mlm_loss = F.cross_entropy(mlm, batch.mlm_labels, reduction="sum")
    return mlm_loss + F.cross_entropy(nsp, batch.nsp_labels, reduction="sum")


def labelled_logits(outputs: Outputs, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits of both heads at the positions with labels, without padding."""
    assert outputs.nsp_logits_S2 is not None
    masked, pairs = batch.mlm_labels != IGNORE_INDEX, batch.nsp_labels != IGNORE_INDEX
    return outputs.mlm_logits_MV[masked], outputs.nsp_logits_S2[pairs]


def test_bert_matches_transformers(model: Bert, packed: Batch) -> None:
    """Outputs and gradients equal those of transformers' BERT."""
    alone, _ = unpack(packed)
    theirs = plain_transformers(model)
    expected = theirs(
        input_ids=alone.input_ids.view(-1, T),
        token_type_ids=alone.token_types.view(-1, T),
        attention_mask=(alone.sample_ids > 0).long().view(-1, T),
        output_hidden_states=True,
    )
    ours: Outputs = model(alone)
    real = alone.sample_ids > 0
    mlm = expected.prediction_logits.flatten(0, 1)[alone.masked_positions]
    nsp = expected.seq_relationship_logits
    assert ours.nsp_logits_S2 is not None and len(mlm) > 20 and mlm.std() > 0.5
    close(ours.hidden_ND[real], expected.hidden_states[-1].flatten(0, 1)[real])
    close(ours.mlm_logits_MV, mlm)
    close(ours.nsp_logits_S2, nsp)

    summed_loss(ours.mlm_logits_MV, ours.nsp_logits_S2, alone).backward()
    summed_loss(mlm, nsp, alone).backward()
    own, reference = dict(model.named_parameters()), dict(theirs.named_parameters())
    for name in WATCHED:
        gradient = own[name].grad
        assert gradient is not None and gradient.abs().max() > 1e-3, name
        close(gradient, reference[name].grad, msg=lambda text, name=name: f"{name}: {text}")


def test_packed_samples_match_single_samples(model: Bert, packed: Batch) -> None:
    """Samples packed into rows have the outputs and gradients of one sample per row."""
    alone, origin = unpack(packed)
    together, apart = model(packed), model(alone)
    assert len(alone.input_ids) > len(packed.input_ids)
    close(together.hidden_ND[origin[origin >= 0]], apart.hidden_ND[origin >= 0])
    close(labelled_logits(together, packed), labelled_logits(apart, alone))
    gradients = []
    for outputs, batch in ((together, packed), (apart, alone)):
        model.zero_grad()
        summed_loss(outputs.mlm_logits_MV, outputs.nsp_logits_S2, batch).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    close(*gradients)


def test_packed_loss_matches_single_samples(tiny_model: Bert, packed: Batch) -> None:
    """Losses and gradients of packed rows equal those of one sample per row."""
    alone, _ = unpack(packed)
    found = []
    for batch in (packed, alone):
        tiny_model.zero_grad()
        terms = tiny_model(batch, pretraining_terms)
        torch.stack([term.total for term in terms if term.weight]).sum().backward()
        figures = {term.tag: term.total for term in terms}
        found.append(figures | {name: p.grad for name, p in tiny_model.named_parameters()})
    together, apart = found
    assert together["loss/mlm"] > 10 and together["loss/nsp"] > 1
    for name, figure in apart.items():
        # In fp32 only the order of sums differs, over about 400 tokens.
        tolerance = 1e-5 * float(figure.detach().abs().max()) + 1e-5
        close(together[name], figure, rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def test_samples_in_row_are_independent(model: Bert, packed: Batch) -> None:
    """Changing one sample changes no output of another in the same row."""
    row = int(rows_with_two(packed).nonzero()[0])
    mine = (packed.sample_ids == 2) & (torch.arange(len(packed.sample_ids)) // T == row)
    other = torch.where(mine, (packed.input_ids + 7) % 150 + 20, packed.input_ids)
    before = model(packed).hidden_ND
    after = model(dataclasses.replace(packed, input_ids=other)).hidden_ND
    assert torch.equal(before[~mine], after[~mine])
    assert (before[mine] != after[mine]).all()


def test_padding_changes_nothing(model: Bert, packed: Batch) -> None:
    """Padding changes no output, and rows of padding alone give no NaN."""
    padded = dataclasses.replace(
        packed, **{name: F.pad(getattr(packed, name), (0, 2 * T)) for name in TABLES}
    )
    noise = torch.where(padded.sample_ids == 0, 77, padded.input_ids)
    real = padded.sample_ids > 0
    before = model(packed)
    after = model(dataclasses.replace(padded, input_ids=noise))
    assert torch.isfinite(after.hidden_ND).all(), "rows of padding alone give no NaN"
    close(after.hidden_ND[real], before.hidden_ND[packed.sample_ids > 0])
    close(after.mlm_logits_MV, before.mlm_logits_MV)


def test_parameter_names_match_transformers(tiny_shape: BertShape) -> None:
    """Parameters have the names and shapes of transformers, and nothing else is saved."""
    config = BertConfig(**to_hf_config(tiny_shape))
    theirs = {name: p.shape for name, p in BertForPreTraining(config).named_parameters()}
    ours = {name: p.shape for name, p in Bert(tiny_shape).named_parameters()}
    assert ours == {name: shape for name, shape in theirs.items() if name not in TIED}
    assert set(Bert(tiny_shape).state_dict()) == set(ours), "nothing else is saved"


def test_no_nsp_means_no_pooler(tiny_shape: BertShape, packed: Batch) -> None:
    """Without NSP a model has neither pooler nor NSP head."""
    shape = dataclasses.replace(tiny_shape, next_sentence=False)
    missing = set(Bert(tiny_shape).state_dict()) - set(Bert(shape).state_dict())
    assert {name.rsplit(".", 1)[0] for name in missing} == {
        "bert.pooler.dense",
        "cls.seq_relationship",
    }
    assert Bert(shape)(packed).nsp_logits_S2 is None


def test_no_segments_keeps_parameter_dtype(tiny_shape: BertShape, packed: Batch) -> None:
    """Without segment embeddings, hidden states have the type of the parameters."""
    plain = Bert(dataclasses.replace(tiny_shape, token_types=False))
    initialise(plain, seed=0)
    for parameter in plain.parameters():
        parameter.data = parameter.data.to(
            torch.bfloat16
        )  # as DeepSpeed does, which casts no buffers
    assert plain(packed).hidden_ND.dtype == torch.bfloat16


def test_count_parameters_counts_tied_once(tiny_shape: BertShape) -> None:
    """The parameter count equals the formula, tied weights counted once."""
    v, d, f, t, layers = 201, 32, 64, 64, 2
    layer = 4 * (d * d + d) + (d * f + f) + (f * d + d) + 2 * 2 * d
    embeddings = v * d + t * d + 2 * d + 2 * d
    heads = (d * d + d) + 2 * d + v + (d * d + d) + (2 * d + 2)
    assert Bert(tiny_shape).count_parameters() == embeddings + layers * layer + heads


def test_initialise_matches_bert(tiny_shape: BertShape) -> None:
    """Initial weights follow BERT's distribution and depend on the seed alone."""
    models = [Bert(tiny_shape) for _ in range(3)]
    for index, (model, seed) in enumerate(zip(models, (1, 1, 2), strict=True)):
        torch.manual_seed(index)  # must have no effect
        initialise(model, seed)
    first, again, other = (dict(model.named_parameters()) for model in models)
    for name, weight in first.items():
        assert torch.equal(weight, again[name])
        if "LayerNorm.weight" in name:
            assert (weight == 1).all()
        elif name.endswith("bias"):
            assert not weight.any()
        else:
            assert not torch.equal(weight, other[name])
            drawn = weight[1:] if "word_embeddings" in name else weight
            # N(0, 1) between -2 and 2 has the variance 1 - 4 phi(2) / (2 Phi(2) - 1). The deviation
            # of a deviation is at most 0.02 / sqrt(2n); five of them.
            deviation = 0.02 * (1 - 4 * 0.0539910 / 0.9544997) ** 0.5
            bound = 5 * 0.02 / (2 * drawn.numel()) ** 0.5
            assert abs(drawn.std().item() - deviation) < bound, name
            assert drawn.abs().max() <= 0.04, name
    assert not first["bert.embeddings.word_embeddings.weight"][tiny_shape.pad_id].any()


def test_dropout_depends_on_keys_alone(tiny_shape: BertShape, packed: Batch) -> None:
    """Dropout depends on its keys and not on the global generator; no keys mean no dropout."""
    model = Bert(dataclasses.replace(tiny_shape, dropout=0.5))
    first_keys, second_keys = (keys_for(packed, tiny_shape.layers, step) for step in (1, 2))
    first, second = (model(packed, None, keys).hidden_ND for keys in (first_keys, second_keys))
    torch.manual_seed(9)  # must have no effect
    assert torch.equal(first, model(packed, None, first_keys).hidden_ND)
    evaluated = [model(packed).hidden_ND for _ in range(2)]
    assert torch.equal(*evaluated)
    for other in (second, evaluated[0]):
        assert (first != other).float().mean() > 0.9


def test_dropout_keys_are_distinct() -> None:
    """Keys differ between seeds, steps, rows and layers, and are reproducible."""
    rows = np.array([[0, 1, 2], [5, 6, 2**40]])
    drawn = [
        dropout_keys(seed, step, rows, 4, torch.device("cpu")) for seed in (0, 1) for step in (0, 1)
    ]
    assert drawn[0].dtype == torch.int32 and drawn[0].shape == (2, 9, 3, 2)
    keys = torch.stack(drawn).flatten(0, 3)
    assert len(keys.unique(dim=0)) == len(keys) == 4 * 2 * 9 * 3
    assert torch.equal(drawn[0], dropout_keys(0, 0, rows, 4, torch.device("cpu")))


def test_dropout_keys_follow_rows() -> None:
    """A row has the same keys in any micro-batch."""
    whole = dropout_keys(0, 0, np.arange(8)[None], 2, torch.device("cpu"))
    pairs = dropout_keys(0, 0, np.array([[6, 7], [2, 3]]), 2, torch.device("cpu"))
    assert torch.equal(pairs[0], whole[0, :, 6:8]) and torch.equal(pairs[1], whole[0, :, 2:4])


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_dropout_keys_are_aligned(layers: int, rows: int) -> None:
    """The keys of every micro-batch and layer are aligned to 16 bytes, so that compiled layers do
    not copy them.
    """
    numbers = np.arange(4 * rows).reshape(4, rows)
    for keys in dropout_keys(0, 0, numbers, layers, torch.device("cpu")):
        of_layers = [keys[:-1].view(-1, 2, rows, 2)[number] for number in range(layers)]
        assert all(key.data_ptr() % 16 == 0 and key.is_contiguous() for key in (keys, *of_layers))


def test_shape_round_trips_through_config(tiny_shape: BertShape) -> None:
    """A shape is the same after conversion to `config.json` and back."""
    for next_sentence in (True, False):
        shape = dataclasses.replace(tiny_shape, dropout=0.25, next_sentence=next_sentence)
        assert from_hf_config(to_hf_config(shape), "config.json") == shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model_type": "t5"},
            "export has model_type 't5'; only 'bert', 'megatron-bert'",
        ),
        ({"hidden_act": "relu"}, "export has hidden_act 'relu'; only 'gelu' or 'gelu_python'"),
        ({"hidden_size": None}, "has no 'hidden_size', so the shape of the model is unknown"),
    ],
)
def test_unsupported_config_refused(
    tiny_shape: BertShape, change: dict[str, Any], message: str
) -> None:
    """A `config.json` of an unsupported model is refused."""
    config = to_hf_config(tiny_shape) | change
    present = {key: value for key, value in config.items() if value is not None}
    with pytest.raises(UserError, match=message):
        from_hf_config(present, "export")
