"""The model card, filled in from the facts of the run."""

import json
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any

import yaml

from pretrain.export.card.languages import example_sentences
from pretrain.export.card.pooler import describe_pooler
from pretrain.model import BertShape
from pretrain.model.hf_conversion import to_hf_config
from pretrain.run_facts import RunFacts, TeacherFacts

_SCORES = {
    "validation/loss_mlm": ("MLM loss", "{:.4f}"),
    "validation/accuracy_mlm": ("MLM accuracy", "{:.2%}"),
    "validation/accuracy_mlm_baseline": ("of always predicting the most frequent token", "{:.2%}"),
    "validation/loss_nsp": ("{pair} loss", "{:.4f}"),
    "validation/accuracy_nsp": ("{pair} accuracy", "{:.2%}"),
}
_LOSS = "validation/loss_"
_KNOWN_LOSSES = (f"{_LOSS}mlm", f"{_LOSS}nsp")
_MLM_NOTE = "Fixed rows with fixed masks; loss is natural-logarithm cross entropy per masked token."
_LAYERS_NOTE = (
    "Fixed rows with fixed masks; losses compare its layers with its teacher's, per token."
)
_NEUTRAL = "\nPut a sentence of its language there, with {mask} in place of a word.\n"
_FILLED_MASK = Template(
    """\
from transformers import AutoModelForMaskedLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained($location)
model = AutoModelForMaskedLM.from_pretrained($location)
inputs = tokenizer($sentence, return_tensors="pt")
logits = model(**inputs).logits[inputs.input_ids == tokenizer.mask_token_id]
print(tokenizer.convert_ids_to_tokens(logits.topk(5).indices[0].tolist()))"""
)
_HIDDEN_STATES = Template(
    """\
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained($location)
model = AutoModel.from_pretrained($location)
inputs = tokenizer($sentence, return_tensors="pt")
print(model(**inputs).last_hidden_state.shape)"""
)
_OBJECTIVES = {
    "next_sentence": "masked tokens and next sentences",
    "sentence_order": "masked tokens and the order of sentences",
    "none": "masked tokens",
}


_FORMATS = {
    "bert": "BERT",
    "distilbert": "DistilBERT",
    "megatron-bert": "Megatron-BERT, a BERT with LayerNorm before each block,",
}


@dataclass(frozen=True, kw_only=True)
class CardOptions:
    """What a card says beyond the facts of the run."""

    name: str  # of the model
    location: str  # what `from_pretrained` is given in the example
    license: str  # as the model hub writes it, such as `apache-2.0`
    languages: tuple[str, ...]  # ISO 639 codes; empty where they are not known


def write_card(facts: RunFacts, shape: BertShape, options: CardOptions, mask_token: str) -> str:
    """Return the text of a model card.

    Args:
        facts: of the checkpoint that is published.
        shape: of the published model.
        options: what the person who publishes says.
        mask_token: of its tokenizer.
    """
    template = Template(
        (files("pretrain") / "export" / "card" / "template.md").read_text(encoding="utf-8")
    )
    teacher_scores = facts.teacher.validation if facts.teacher else {}
    sentences = example_sentences(options.languages, mask_token)
    sentence = _literal(sentences[0] if sentences else mask_token)
    location = _literal(options.location)
    example = _FILLED_MASK if facts.has_mlm_head else _HIDDEN_STATES
    return template.substitute(
        header=_header(facts, shape, options),
        name=" ".join(options.name.split()),
        example=example.substitute(location=location, sentence=sentence),
        sentence_note=""
        if sentences or not facts.has_mlm_head
        else _NEUTRAL.format(mask=mask_token),
        summary=_summary(facts, shape),
        pooler=describe_pooler(shape, facts, location, sentence),
        shape_rows=_rows(_shape(facts, shape)),
        teacher_heading=" | its teacher" if teacher_scores else "",
        teacher_rule="---|" if teacher_scores else "",
        score_note=_MLM_NOTE if facts.has_mlm_head else _LAYERS_NOTE,
        score_rows=_score_rows(facts.validation, teacher_scores, _pairs(facts)),
        training_rows=_rows(_training(facts)),
        recipe=yaml.safe_dump(facts.identity, sort_keys=True).rstrip(),
    )


def _header(facts: RunFacts, shape: BertShape, options: CardOptions) -> str:
    """Return the metadata that the model hub reads."""
    tags = [format_of(shape), *(["distillation"] if _is_distilled(facts) else []), "stillhouse"]
    header: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "fill-mask" if facts.has_mlm_head else "feature-extraction",
        "license": options.license,
    }
    if options.languages:
        header["language"] = list(options.languages)
    if base_models := _base_models(facts):
        header["base_model"] = base_models
    text: str = yaml.safe_dump({**header, "tags": tags}, sort_keys=False, allow_unicode=True)
    return text.rstrip()


def _base_models(facts: RunFacts) -> list[str]:
    """Return the names on the model hub of what a model was made from, where they are known."""
    names = facts.teacher.hub_names if facts.teacher and _is_distilled(facts) else []
    return [name for name in (*names, facts.start.hub_name if facts.start else "") if name]


def format_of(shape: BertShape) -> str:
    """Return the name that transformers has for the format of an export."""
    return str(to_hf_config(shape)["model_type"])


def _summary(facts: RunFacts, shape: BertShape) -> str:
    size = f"{shape.layers} layer{'s'[: shape.layers > 1]} of width {shape.width}"
    model = f"A {_FORMATS[format_of(shape)]} with {size}"
    if facts.teacher is None:
        start = f"started from `{facts.start.name}` and " if facts.start else ""
        return f"{model}, {start}pre-trained on {_OBJECTIVES[_pairs(facts)]}."
    kept = ", ".join(str(layer) for layer in facts.teacher.layers)
    plural = "s"[: len(facts.teacher.layers) > 1]
    origin = f"started from layer{plural} {kept} of its teacher" if kept else "started at random"
    distilled = "distilled from " + (_teacher_names(facts.teacher) or "a teacher")
    training = distilled if _is_distilled(facts) else "trained without a teacher"
    return f"{model}, {origin} and {training} on a general corpus."


def _teacher_names(teacher: TeacherFacts) -> str:
    return " and ".join(f"`{name}`" for name in teacher.names)


def _is_distilled(facts: RunFacts) -> bool:
    """Return whether an objective with a weight reads a teacher; older recipes have a `loss`."""
    identity = facts.identity
    if facts.teacher is None:
        return False
    if "objectives" not in identity:
        return bool(identity["loss.soft"] or identity["loss.cosine"])
    per_stage = [stage["objectives"] for stage in identity["stages"]] or [identity["objectives"]]
    alone = ("hard_mlm", "next_sentence")
    return any(o["kind"] not in alone and o["weight"] for listed in per_stage for o in listed)


def _pairs(facts: RunFacts) -> str:
    """Return the kind of samples; older recipes have no key, and next sentences."""
    return str(facts.identity.get("samples.pairs", "next_sentence"))


def _shape(facts: RunFacts, shape: BertShape) -> dict[str, Any]:
    rows: dict[str, Any] = {
        "format": format_of(shape),
        "parameters": f"{facts.parameters:,}",
        "layers": shape.layers,
        "width": shape.width,
        "attention heads": shape.heads,
        "feed-forward width": shape.feed_forward,
        "longest input": f"{shape.positions} tokens",
    }
    if facts.trained_positions is not None:
        rows["trained positions"] = min(facts.trained_positions, shape.positions)
    return rows | {"vocabulary": f"{shape.vocab_size:,}"}


def _training(facts: RunFacts) -> dict[str, Any]:
    rows = {
        "corpus": f"{facts.corpus_documents:,} documents, {facts.corpus_tokens:,} tokens "
        f"(fingerprint `{facts.corpus}`)",
        "tokenizer": f"fingerprint `{facts.tokenizer}`",
        "steps": f"{facts.step:,}",
        "real tokens seen": f"{facts.tokens_seen:,}",
        "samples seen": f"{facts.samples_seen:,}",
        "precision": facts.identity["train.precision"],
        "hardware": f"{facts.world_size} × {facts.device}",
        "software": ", ".join(f"{name} {number}" for name, number in facts.versions.items()),
    }
    if facts.start:
        rows["started from"] = f"`{facts.start.name}`, sha256 `{facts.start.weights}`"
    return rows | (_teacher_rows(facts.teacher) if facts.teacher else {})


def _teacher_rows(teacher: TeacherFacts) -> dict[str, str]:
    """Return how many parameters the teachers have, and for each its name and its weights."""
    names = _teacher_names(teacher)
    rows = {"teacher": f"{names + ', ' if names else ''}{teacher.parameters:,} parameters"}
    if teacher.weights:
        hashes = ", ".join(f"`{found}`" for found in teacher.weights.split("+"))
        rows["sha256 of the teacher's weights"] = hashes
    return rows


def _literal(text: str) -> str:
    """Return a string as Python and a reader see it, whatever is in it."""
    return json.dumps(text, ensure_ascii=False)


def _rows(table: dict[str, Any]) -> str:
    return "\n".join(f"| {name} | {value} |" for name, value in table.items())


def _score_rows(scores: dict[str, float], teacher: dict[str, float], pairs: str) -> str:
    lines = []
    for key, (template, form) in _SCORES.items():
        name = template.format(pair=pairs.replace("_", "-"))
        if key in scores:
            theirs = f" | {form.format(teacher[key])}" if key in teacher else ""
            lines.append(f"| {name} | {form.format(scores[key])}{theirs} |")
    lines += [
        f"| {key.removeprefix(_LOSS).replace('_', ' ')} loss | {score:.4f} |"
        for key, score in scores.items()
        if key.startswith(_LOSS) and not key.startswith(_KNOWN_LOSSES)
    ]
    return "\n".join(lines) or "| not measured | |"
