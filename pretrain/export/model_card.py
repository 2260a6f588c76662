"""The model card, filled in from the facts of the run."""

from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import yaml

from pretrain.run_facts import RunFacts

_SCORES = {
    "validation/loss_mlm": ("MLM loss", "{:.4f}"),
    "validation/accuracy_mlm": ("MLM accuracy", "{:.2%}"),
    "validation/accuracy_mlm_baseline": ("of always predicting the most frequent token", "{:.2%}"),
    "validation/loss_nsp": ("{pair} loss", "{:.4f}"),
    "validation/accuracy_nsp": ("{pair} accuracy", "{:.2%}"),
}
_OBJECTIVES = {
    "next_sentence": "masked tokens and next sentences",
    "sentence_order": "masked tokens and the order of sentences",
    "none": "masked tokens",
}


def write_card(facts: RunFacts, name: str, license_name: str, language: str) -> str:
    """Return the text of a model card.

    Args:
        facts: of the checkpoint that is published.
        name: what the model is called.
        license_name: as the model hub writes it, such as `apache-2.0`.
        language: as an ISO 639-1 code, such as `en`.
    """
    template = Template((files("pretrain") / "export" / "card.md").read_text(encoding="utf-8"))
    teacher_scores = facts.teacher.validation if facts.teacher else {}
    return template.substitute(
        name=name,
        location=name,
        license=license_name,
        language=language,
        summary=_summary(facts),
        shape_rows=_rows(_shape(facts)),
        teacher_heading=" | its teacher" if teacher_scores else "",
        teacher_rule="---|" if teacher_scores else "",
        score_rows=_score_rows(facts.validation, teacher_scores, _pairs(facts)),
        training_rows=_rows(_training(facts)),
        recipe=yaml.safe_dump(facts.identity, sort_keys=True).rstrip(),
    )


def _summary(facts: RunFacts) -> str:
    shape = f"{facts.shape['layers']} layers of width {facts.shape['width']}"
    if facts.teacher is None:
        return f"A BERT with {shape}, pre-trained on {_OBJECTIVES[_pairs(facts)]}."
    kept = ", ".join(str(layer) for layer in facts.teacher.layers)
    origin = f"started from layers {kept} of its teacher" if kept else "started at random"
    training = "distilled from a teacher" if _is_distilled(facts) else "trained without a teacher"
    return f"A BERT with {shape}, {origin} and {training} on a general corpus."


def _is_distilled(facts: RunFacts) -> bool:
    """Return whether an objective with a weight reads a teacher; older recipes have a `loss`."""
    identity = facts.identity
    if "objectives" not in identity:
        return bool(identity["loss.soft"] or identity["loss.cosine"])
    per_stage = [stage["objectives"] for stage in identity["stages"]] or [identity["objectives"]]
    alone = ("hard_mlm", "next_sentence")
    return any(o["kind"] not in alone and o["weight"] for listed in per_stage for o in listed)


def _pairs(facts: RunFacts) -> str:
    """Return the kind of samples; older recipes have no key, and next sentences."""
    return str(facts.identity.get("samples.pairs", "next_sentence"))


def _shape(facts: RunFacts) -> dict[str, Any]:
    shape = facts.shape
    return {
        "parameters": f"{facts.parameters:,}",
        "layers": shape["layers"],
        "width": shape["width"],
        "attention heads": shape["heads"],
        "feed-forward width": shape["feed_forward"],
        "longest input": f"{shape['positions']} tokens (training reached "
        f"{facts.trained_positions or facts.longest_row})",
        "vocabulary": f"{shape['vocab_size']:,}",
    }


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
    if facts.teacher:
        rows["teacher"] = f"{facts.teacher.parameters:,} parameters"
    return rows


def _rows(table: dict[str, Any]) -> str:
    return "\n".join(f"| {name} | {value} |" for name, value in table.items())


def _score_rows(scores: dict[str, float], teacher: dict[str, float], pairs: str) -> str:
    lines = []
    for key, (template, form) in _SCORES.items():
        name = template.format(pair=pairs.replace("_", "-"))
        if key in scores:
            theirs = f" | {form.format(teacher[key])}" if key in teacher else ""
            lines.append(f"| {name} | {form.format(scores[key])}{theirs} |")
    return "\n".join(lines) or "| not measured | |"


def card_name(export: Path) -> str:
    """Return what a model is called by default: the name of its folder."""
    return export.resolve().name
