"""Every family over packed rows: each sample's outputs are those of plain transformers alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.modernbert.modeling_modernbert import apply_rotary_pos_emb

from data_prep.errors import UserError
from pretrain.data.batch import Batch
from pretrain.model.captured_states import Capture
from pretrain.model.foreign.hf_encoder import HfEncoder
from pretrain.model.loading import load_encoder, load_located, locate
from tests.foreign_models import VOCABULARY, edit_config, edit_weights, save

ROW = 24
SAMPLES = [(0, 0, 9), (0, 9, 13), (1, 0, 20)]  # row, first token, tokens; the rest is padding
MODERN = {"local_attention": 8, "global_attn_every_n_layers": 2, "pad_token_id": 0,
          "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}  # fmt: skip

FAMILIES: dict[str, tuple[str, dict[str, Any], bool]] = {  # class, config, only by transformers
    "bert": ("BertForMaskedLM", {}, False),
    "distilbert": ("DistilBertForMaskedLM", {}, False),
    "megatron": ("MegatronBertForMaskedLM", {}, False),
    "roberta": ("RobertaForMaskedLM", {"type_vocab_size": 1, "layer_norm_eps": 1e-5}, False),
    "xlm-roberta": ("XLMRobertaForMaskedLM", {"type_vocab_size": 1}, False),
    "electra-base": ("ElectraForPreTraining", {"embedding_size": 32}, False),
    "electra-small": ("ElectraForPreTraining", {"embedding_size": 16}, True),
    "modernbert": ("ModernBertForMaskedLM", MODERN, True),
    "modernbert-bias": ("ModernBertForMaskedLM", {**MODERN, "attention_bias": True}, True),
    "modernbert-encoder": ("ModernBertModel", MODERN, True),
    "modernbert-classifier": ("ModernBertForSequenceClassification", MODERN, True),
    "bert-gelu-new": ("BertForMaskedLM", {"hidden_act": "gelu_new"}, True),
    "bert-relu": ("BertForMaskedLM", {"hidden_act": "relu"}, True),
}


def packed_rows() -> Batch:
    """Return two rows: two samples and padding, one sample and padding; every token is masked."""
    shape = 2, ROW
    ids = torch.randint(5, VOCABULARY, shape, generator=torch.Generator().manual_seed(2))
    types, positions, sample_ids = (torch.zeros(shape, dtype=torch.int64) for _ in range(3))
    bounds = [0]
    for row, first, length in SAMPLES:
        part = row, slice(first, first + length)
        types[part] = (torch.arange(length) >= length // 2).long()
        positions[part] = torch.arange(length)
        sample_ids[part] = sample_ids[row].max() + 1
        bounds += [row * ROW + first + length]
        if first + length < ROW and not any(r == row and f > first for r, f, _ in SAMPLES):
            bounds += [(row + 1) * ROW]
    tokens = torch.arange(2 * ROW)
    return Batch(
        input_ids=torch.where(sample_ids > 0, ids, 0).flatten(),
        token_types=types.flatten(),
        positions=positions.flatten(),
        sample_ids=sample_ids.flatten().int(),
        cu_seqlens=torch.tensor(bounds, dtype=torch.int32),
        masked_positions=tokens,
        mlm_labels=tokens,
        cls_positions=tokens[:0],
        nsp_labels=tokens[:0],
        row_tokens=ROW,
        counts={"masked": 2 * ROW, "samples": len(SAMPLES), "tokens": 42},
    )


def of_samples(tensor_ND: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the part of a packed tensor that belongs to each sample."""
    for row, first, length in SAMPLES:
        yield tensor_ND[row * ROW + first : row * ROW + first + length]


@contextmanager
def kept_projections(base: Any) -> Iterator[dict[int, tuple[torch.Tensor, ...]]]:
    """Keep each layer's queries, keys and values [T, D] of a plain model, by hooks of its own."""
    kept: dict[int, tuple[torch.Tensor, ...]] = {}
    parts: dict[tuple[int, int], torch.Tensor] = {}
    hooks = []

    def keep(number: int, index: int) -> Any:
        def hook(module: Any, inputs: Any, output: torch.Tensor) -> None:
            parts[number, index] = output[0]
            if index == 2:
                kept[number] = tuple(parts[number, each] for each in range(3))

        return hook

    def keep_rotated(number: int, layer: Any) -> Any:
        def hook(module: Any, inputs: Any, output: torch.Tensor) -> None:
            heads = base.config.num_attention_heads
            query, key, value = output.view(1, -1, 3, heads, 32 // heads).unbind(2)
            where = torch.arange(query.shape[1])[None]
            turn = base.rotary_emb(output, where, layer.attention_type)
            query, key = apply_rotary_pos_emb(query.transpose(1, 2), key.transpose(1, 2), *turn)
            rotated = query.transpose(1, 2), key.transpose(1, 2), value
            kept[number] = tuple(each[0].flatten(1) for each in rotated)

        return hook

    modern = hasattr(base, "rotary_emb")
    layers = base.layers if modern else getattr(base, "encoder", None) or base.transformer
    for number, layer in enumerate(layers if modern else layers.layer, start=1):
        if modern:
            hooks.append(layer.attn.Wqkv.register_forward_hook(keep_rotated(number, layer)))
            continue
        attention = getattr(layer.attention, "self", layer.attention)
        names = ("query", "key", "value") if hasattr(attention, "query") else (
            "q_lin", "k_lin", "v_lin"
        )  # fmt: skip
        for index, name in enumerate(names):
            linear = getattr(attention, name)
            hooks.append(linear.register_forward_hook(keep(number, index)))
    yield kept
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_samples_match_plain(tmp_path: Path, family: str) -> None:
    """Hidden states, queries, keys, values and logits are those of each sample alone."""
    name, config, by_transformers = FAMILIES[family]
    plain = save(tmp_path, name, **config)
    located = locate(tmp_path)
    model = load_encoder(located).eval()
    assert isinstance(model, HfEncoder) == by_transformers == (located.foreign is not None)
    assert located.has_mlm_head == name.endswith("ForMaskedLM")
    batch, layers = packed_rows(), range(1, located.shape.layers + 1)
    capture = Capture(hidden=frozenset({0, *layers}), attention=frozenset(layers))
    with torch.no_grad():
        states = model.states(batch, capture)
        logits = model(batch).mlm_logits_MV if located.has_mlm_head else None
    has_types = getattr(plain.config, "type_vocab_size", 0) > 1
    for number, (row, first, length) in enumerate(SAMPLES):
        part = slice(row * ROW + first, row * ROW + first + length)
        inputs = {"input_ids": batch.input_ids[None, part]}
        if has_types:
            inputs["token_type_ids"] = batch.token_types[None, part]
        with torch.no_grad(), kept_projections(plain.base_model) as projected:
            expected = plain(**inputs, output_hidden_states=True)
        for layer in (0, *layers):
            found = list(of_samples(states.hidden[layer]))[number]
            _assert_close(found, expected.hidden_states[layer][0])
        for layer in layers:
            for ours, theirs in zip(states.attention[layer], projected[layer], strict=True):
                _assert_close(list(of_samples(ours))[number], theirs)
        if logits is not None:
            _assert_close(list(of_samples(logits))[number], expected.logits[0])


def _assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    # fp32 sums of 48 products in another order differ by some 1e-6 at values of about 3.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_kept_layers_compute_the_same(tmp_path: Path) -> None:
    """Removing the layers above those that are read changes nothing below."""
    save(tmp_path, "ModernBertForMaskedLM", **MODERN)
    model = load_encoder(locate(tmp_path)).eval()
    capture = Capture(hidden=frozenset({0, 1, 2}), attention=frozenset({2}))
    with torch.no_grad():
        whole = model.states(packed_rows(), capture)
        model.keep_layers(2)
        part = model.states(packed_rows(), capture)
    assert all(torch.equal(whole.hidden[n], part.hidden[n]) for n in (0, 1, 2))
    assert torch.equal(whole.attention[2].query_ND, part.attention[2].query_ND)


def test_modernbert_costs_three_matrices(tmp_path: Path) -> None:
    """A gated feed-forward block has half as many parameters again as that of a BERT."""
    save(tmp_path, "ModernBertForMaskedLM", **MODERN)
    model = load_encoder(locate(tmp_path))
    assert isinstance(model, HfEncoder)
    mlp = model.model.base_model.layers[0].mlp
    matrices = sum(parameter.numel() for parameter in mlp.parameters())
    assert matrices == 2 * model.cost_shape.width * model.cost_shape.feed_forward


def test_other_families_are_not_trained(tmp_path: Path) -> None:
    """A model that only transformers computes is refused where it would be trained or copied."""
    save(tmp_path, "ModernBertForMaskedLM", **MODERN)
    with pytest.raises(UserError, match="of type modernbert that only transformers computes"):
        load_located(locate(tmp_path))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_hidden_layers": 10**9}, "of 3 layers, but states 1000000000"),
        ({"intermediate_size": 2**33}, r"Wi\.weight is \[96, 32\], but it should be"),
        ({"num_attention_heads": 5}, r"transformers cannot load .* not a multiple"),
        ({"hidden_size": "wide"}, "transformers cannot load"),
        ({"is_decoder": True}, "has is_decoder true: a decoder sees only"),
    ],
)
def test_unsuitable_modernberts_refused(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    """What does not fit is refused before anything is allocated."""
    save(tmp_path, "ModernBertForMaskedLM", **MODERN)
    # Of the number of layers follow lists that the config holds, too.
    edit_config(tmp_path, layer_types=None, **config)
    with pytest.raises(UserError, match=message):
        locate(tmp_path)


def test_missing_tensor_of_modernbert_named(tmp_path: Path) -> None:
    """A tensor that the files lack would be random in transformers: it is refused by name."""
    save(tmp_path, "ModernBertForMaskedLM", **MODERN)
    edit_weights(tmp_path, lambda w: {n: t for n, t in w.items() if "layers.1.mlp.Wo" not in n})
    with pytest.raises(UserError, match=r"'layers\.1\.mlp\.Wo\.weight' is missing"):
        locate(tmp_path)


def test_unknown_activation_refused(tmp_path: Path) -> None:
    """An activation that transformers does not have is refused."""
    save(tmp_path, "BertForMaskedLM")
    edit_config(tmp_path, hidden_act="swoosh")
    with pytest.raises(UserError, match=r"transformers cannot load .*swoosh"):
        locate(tmp_path)
