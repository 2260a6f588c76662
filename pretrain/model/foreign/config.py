"""The `config.json` of a foreign model: which families are BERTs, and the shape of one.

RoBERTa, XLM-R and CamemBERT compute what BERT does. Their positions are counted from
`pad_token_id` + 1, and they have a single token type: loading cuts the table of the former and
repeats the latter. An ELECTRA whose embeddings are as wide as its layers is a BERT, too.
"""

from dataclasses import dataclass
from typing import Any, Literal

from data_prep.errors import UserError
from pretrain.model.config import BertShape
from pretrain.model.foreign.hf_config import HF_FAMILIES
from pretrain.model.hf_conversion import DISTILBERT_CONFIG


@dataclass(frozen=True, kw_only=True)
class Family:
    """What distinguishes the models of one `model_type` from BERT."""

    norm: Literal["post", "pre"] = "post"
    token_types: bool = True
    pad_id: int = 0  # where `config.json` has none
    skips_positions: bool = False  # whether positions are counted from `pad_token_id` + 1
    has_mlm_head: bool = True


_ROBERTA = Family(pad_id=1, skips_positions=True)
FAMILIES = {
    "bert": Family(),
    "megatron-bert": Family(norm="pre"),
    "distilbert": Family(token_types=False),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": Family(has_mlm_head=False),
}
# The beginning of the names of classes, for the first BERTs, whose config has no model_type.
_CLASSES = {
    "Bert": "bert",
    "MegatronBert": "megatron-bert",
    "DistilBert": "distilbert",
    "Roberta": "roberta",
    "XLMRoberta": "xlm-roberta",
    "Camembert": "camembert",
    "Electra": "electra",
}
# Both compute GELU by the error function.
_ACTIVATIONS = ("gelu", "gelu_python")


def family_of(config: dict[str, Any], source: str) -> str:
    """Return the `model_type` of a `config.json`, by its class where it has none.

    Raises:
        UserError: for one that is not supported.
    """
    model_type = config.get("model_type")
    if model_type is None:
        name = str((config.get("architectures") or ["Bert"])[0])
        stem = name.split("For")[0].removesuffix("Model")
        model_type = _CLASSES.get(stem, stem)
    if model_type not in FAMILIES and model_type not in HF_FAMILIES:
        names = ", ".join(repr(name) for name in dict.fromkeys([*FAMILIES, *HF_FAMILIES]))
        raise UserError(f"{source} has model_type {model_type!r}; only {names} are supported.")
    return str(model_type)


def needs_transformers(config: dict[str, Any], source: str) -> bool:
    """Tell whether a model is one that only transformers computes; see hf_encoder.py."""
    model_type = family_of(config, source)
    if model_type not in FAMILIES:
        return True
    if model_type == "electra":
        # The default is that of transformers.
        return bool(config.get("embedding_size", 128) != config.get("hidden_size"))
    return model_type == "bert" and config.get("hidden_act", "gelu") not in _ACTIVATIONS


def check_encoder(config: dict[str, Any], source: str) -> None:
    """Raise UserError for a decoder, or a BERT with relative positions."""
    for key in ("is_decoder", "add_cross_attention"):
        if config.get(key):
            raise UserError(
                f"{source} has {key} true: a decoder sees only the tokens before each, and only "
                "encoders are supported; name an encoder."
            )
    # transformers 5 computes relative ones no more, and ignores the key.
    if (value := config.get("position_embedding_type", "absolute")) != "absolute":
        raise UserError(
            f"{source} has position_embedding_type {value!r}; only 'absolute' is supported."
        )


def from_hf_config(config: dict[str, Any], source: str) -> BertShape:
    """Return the shape of a `config.json`; `source` names the file in errors.

    Raises:
        UserError: when this project cannot compute the model exactly.
    """
    family = FAMILIES[family_of(config, source)]
    config = as_bert_config(config)
    check_encoder(config, source)
    _check_activation(config, source)
    width, heads = (size_of(config, key, source) for key in ("hidden_size", "num_attention_heads"))
    if width % heads:
        raise UserError(
            f"{source} has hidden_size {width}, not divisible by its {heads} num_attention_heads."
        )
    positions = size_of(config, "max_position_embeddings", source) - position_offset(config, source)
    if positions < 1:
        raise UserError(
            f"{source} has max_position_embeddings {config['max_position_embeddings']}, all of "
            "which are before the first that text uses."
        )
    return BertShape(
        vocab_size=size_of(config, "vocab_size", source),
        layers=size_of(config, "num_hidden_layers", source),
        width=width,
        heads=heads,
        feed_forward=size_of(config, "intermediate_size", source),
        positions=positions,
        dropout=_number(config, "hidden_dropout_prob", 0.1, source),
        pad_id=_pad_id(config, source),
        next_sentence=any(
            str(name).endswith("ForPreTraining") for name in config.get("architectures") or []
        ),
        norm_epsilon=_number(config, "layer_norm_eps", 1e-12, source),
        norm=family.norm,
        token_types=family.token_types,
    )


def size_of(config: dict[str, Any], key: str, source: str) -> int:
    """Return a size that a `config.json` states; raise UserError where it is none."""
    if key not in config:
        raise UserError(f"{source} has no {key!r}, so the shape of the model is unknown.")
    value = config[key]
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**31:
        raise UserError(f"{source} has {key} {value!r}; it must be a whole number from 1.")
    return value


def position_offset(config: dict[str, Any], source: str) -> int:
    """Return how many position embeddings come before that of the first token."""
    skips = FAMILIES[family_of(config, source)].skips_positions
    return _pad_id(config, source) + 1 if skips else 0


def as_bert_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return a DistilBERT's `config.json` with the keys of a BERT's; any other stays."""
    if config.get("model_type") != "distilbert" and "n_layers" not in config:
        return config
    return {DISTILBERT_CONFIG.get(key, key): value for key, value in config.items()}


def _check_activation(config: dict[str, Any], source: str) -> None:
    if (value := config.get("hidden_act", "gelu")) not in _ACTIVATIONS:
        names = " or ".join(repr(name) for name in _ACTIVATIONS)
        raise UserError(f"{source} has hidden_act {value!r}; only {names} is supported.")


def _pad_id(config: dict[str, Any], source: str) -> int:
    pad_id = config.get("pad_token_id", FAMILIES[family_of(config, source)].pad_id)
    return pad_id if isinstance(pad_id, int) and pad_id >= 0 else 0


def _number(config: dict[str, Any], key: str, default: float, source: str) -> float:
    value = config.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise UserError(f"{source} has {key} {value!r}; it must be a number from 0 to 1.")
    return float(value)
