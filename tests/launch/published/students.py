"""The published settings of students: data, written without the recipes."""

from collections.abc import Sequence
from typing import Any

from tests.launch.published.practices import (
    AHEAD,
    FIXED_MASKS,
    PACKED,
    UNCORRECTED,
    attention_dropout,
    by,
)
from tests.launch.published.setting import Practice, Setting

BERT = "arXiv 1810.04805, appendix A.2"
BERT_DATA = "google-research/bert, create_pretraining_data.py"
DISTIL = "transformers, research_projects/distillation, train.py"
DISTIL_LOSS = "transformers, research_projects/distillation, README and distiller.py"
DISTIL_PAPER = "arXiv 1910.01108, section 3"
DISTIL_LAYERS = "transformers, research_projects/distillation, scripts/extract_distilbert.py"
TINY_PAPER = "arXiv 1909.10351, section 4.2"
TINY_CODE = "huawei-noah/Pretrained-Language-Model, TinyBERT/general_distill.py"
TINY_README = "huawei-noah/Pretrained-Language-Model, TinyBERT/README.md"
TINY_DATA = "huawei-noah/Pretrained-Language-Model, TinyBERT/pregenerate_training_data.py"
MINI = "arXiv 2002.10957, section 4.1"
MINI_LOSS = "arXiv 2002.10957, section 3"
MINI2 = "bloomberg/minilmv2.bb, run.sh"
MINI2_CODE = "bloomberg/minilmv2.bb, minilmv2/minilmv2.py and run_distillation.py"
MOBILE = "google-research, mobilebert/README.md"
MOBILE_CODE = "google-research, mobilebert/run_pretraining.py and optimization.py"

_DISTILBERT: list[Setting | Practice] = [
    Setting("layers copied", [0, 2, 4, 7, 9, 11], DISTIL_LAYERS),
    Setting(
        "losses",
        [
            ("soft_targets", ("at", "all"), ("temperature", 2.0), ("weight", 5.0)),
            ("hard_mlm", ("weight", 2.0)),
            ("hidden_cosine",),
        ],
        DISTIL_LOSS,
        r"soft targets at masked tokens alone",
    ),
    Setting("format", "distilbert", DISTIL_LAYERS, r"so BERT's format"),
    Setting("samples", "none", DISTIL_LOSS, r"pairs of segments, where it has single ones"),
    Setting("share of short samples", 0.0, DISTIL_LOSS, r"cut short|pairs of segments"),
    Setting("masking", "adaptive -0.7, 0.15 (0.8, 0.1 random)", DISTIL, r"uniform masking"),
    Setting("length of rows", 512, DISTIL_LOSS, r"of 128 tokens, where .* up to 512"),
    Setting("batch, rows", 4096, DISTIL_PAPER, r"1,024 rows of 128 tokens, where .* 4k rows"),
    Setting(
        "steps",
        6300,
        "three epochs (train.py) of the 3.3 billion words of arXiv 1810.04805",
        r"100,000 steps .* three epochs",
    ),
    Setting("optimizer", "adamw", DISTIL_LOSS),
    Setting("peak rate", 5e-4, DISTIL),
    Setting("warm-up, share of steps", 0.05, DISTIL),
    Setting("decay", "linear from warmup", DISTIL_LOSS),
    Setting("weight decay", 0.0, DISTIL),
    Setting("betas", (0.9, 0.98), DISTIL_LOSS),
    Setting("epsilon", 1e-6, DISTIL),
    Setting("gradient clipping", 5.0, DISTIL),
    attention_dropout("training_configs/distilbert-base-uncased.json"),
    Practice(
        "position embeddings",
        "frozen (sinusoidal_pos_embds)",
        "trained",
        "training_configs/distilbert-base-uncased.json",
        r"stay frozen",
    ),
    Practice(
        "embedding of the first segment",
        "left out",
        "added to the positions",
        DISTIL_LAYERS,
        r"embedding of the first segment",
    ),
    Practice(
        "MLM head",
        "its dense layer at random",
        "the teacher's",
        DISTIL_LAYERS,
        r"MLM head that starts from all",
    ),
    Practice(
        "mean of the losses",
        "of the means of 50 micro-batches",
        "over the batch",
        DISTIL_LOSS,
        r"mean of the means of 50 micro-batches",
    ),
    Practice(
        "rows",
        "grouped by length and padded",
        "packed samples",
        DISTIL_LOSS,
        r"groups samples by length",
    ),
    by(AHEAD, DISTIL_LOSS),
]


def _tinybert(layers: int, width: int, feed_forward: int, pairs: Sequence[int], maps: str) -> Any:
    student_layers = list(range(1, layers + 1))
    mapped = (("student_layer", student_layers), ("teacher_layer", list(pairs)))
    return [
        Setting(
            "layers, width, heads, feed-forward", (layers, width, 12, feed_forward), TINY_PAPER
        ),
        Setting("layers copied", "random", TINY_CODE),
        Setting(
            "losses",
            [("attention_scores", *mapped), ("hidden_mse", *mapped), ("embeddings",)],
            TINY_CODE,
        ),
        Setting("losses of the last stage", "as before", TINY_CODE, r"the second stage"),
        Setting("length of rows", 128, TINY_PAPER),
        Setting("batch, rows", 256, TINY_README),
        Setting(
            "rows: tokens, batch, steps",
            [(128, 256, 300_000)],
            "three epochs (section 4.2) of 2.5 billion words",
            r"second stage, with a schedule",
        ),
        Setting("positions", 512, "config.json of the published models", r"128 positions"),
        Setting("masking", "none", TINY_DATA, r"masked inputs"),
        Setting("samples", "next_sentence", TINY_DATA),
        Setting("share of short samples", 0.1, TINY_DATA),
        Setting("optimizer", "adamw", TINY_CODE),
        Setting("peak rate", 1e-4, TINY_PAPER + ", as BERT's pretraining"),
        Setting("warm-up, share of steps", 0.1, TINY_CODE),
        Setting("decay", "linear from warmup", TINY_CODE + ", BertAdam"),
        Setting("weight decay", 0.01, TINY_CODE),
        Setting("betas", (0.9, 0.999), TINY_CODE + ", BertAdam"),
        Setting("epsilon", 1e-6, TINY_CODE + ", BertAdam"),
        Setting(
            "gradient clipping",
            "each tensor at 1",
            TINY_CODE + ", BertAdam",
            r"clips each tensor's at 1",
        ),
        Setting("precision", "fp32", TINY_CODE, r"bf16, where it has fp32"),
        Practice("map of states", maps, "see the header", TINY_CODE, r"map of"),
        Practice(
            "mean of the losses",
            "over padding too",
            "over a sample's tokens",
            TINY_CODE,
            r"counts padding too",
        ),
        Practice("dropout of the teacher", "left on", "off", TINY_CODE, r"teacher without dropout"),
        Practice(
            "initial weights", "N(0, 0.02)", "truncated", TINY_CODE, r"truncated initialisation"
        ),
        attention_dropout("config.json of the published models"),
        by(UNCORRECTED, TINY_CODE + ", BertAdam"),
        by(PACKED, TINY_DATA),
        by(AHEAD, TINY_CODE + ", BertAdam"),
    ]


def _minilm_v2(width: int, named: str | None = None) -> list[Setting | Practice]:
    return [
        Setting("layers, width, heads, feed-forward", (6, width, 12, 3072), MINI2, named),
        Setting("layers copied", "random", MINI2_CODE),
        Setting("losses", [("relations", ("heads", 48))], MINI2, r"light soft-target loss"),
        Setting("rows: tokens, batch, steps", [(512, 256, 400_000)], MINI2),
        Setting("masking", "none", MINI2_CODE, r"masked text"),
        Setting("samples", "none", MINI2_CODE, r"pairs of segments"),
        Setting("optimizer", "adamw", MINI2),
        Setting("peak rate", 6e-4, MINI2),
        Setting("warm-up, steps", 4000, MINI2),
        Setting("decay", "linear from warmup", "transformers' Trainer"),
        Setting("weight decay", 0.01, MINI2),
        Setting("betas", (0.9, 0.999), MINI2),
        Setting("epsilon", 1e-6, MINI2),
        Setting("gradient clipping", 1.0, "transformers' Trainer"),
        Setting("precision", "fp32", MINI2, r"bf16, where it has\s+fp32"),
        Practice("mean of the losses", "over samples", "over tokens", MINI2_CODE, r"averages each"),
        Practice(
            "initial weights", "N(0, 0.02)", "truncated", MINI2_CODE, r"truncated initialisation"
        ),
        attention_dropout("bert-base-uncased's config.json"),
        by(PACKED, MINI2_CODE),
        by(AHEAD, "transformers' Trainer"),
    ]


_ALL_LAYERS = list(range(1, 25))
_LAYER_PAIRS = (("student_layer", _ALL_LAYERS), ("teacher_layer", _ALL_LAYERS))

PUBLISHED_STUDENTS: dict[str, list[Setting | Practice]] = {
    "student_distilbert_6x768": _DISTILBERT,
    "student_6x768": _DISTILBERT,
    "student_tinybert_4x312": _tinybert(
        4, 312, 1200, [3, 6, 9, 12], "one, 312 to 768, for all layers"
    ),
    "student_tinybert_6x768": _tinybert(6, 768, 3072, [2, 4, 6, 8, 10, 12], "768 to 768"),
    "student_minilm_v1_6x384": [
        Setting("layers, width, heads, feed-forward", (6, 384, 12, 1536), MINI + " and table 4"),
        Setting(
            "losses",
            [("attention_distributions",), ("value_relations",)],
            MINI_LOSS,
            r"light soft-target loss",
        ),
        Setting("rows: tokens, batch, steps", [(512, 256, 400_000)], MINI),
        Setting("masking", "none", MINI_LOSS, r"masked text"),
        Setting("optimizer", "adamw", MINI),
        Setting("peak rate", 3e-4, MINI),
        Setting("warm-up, steps", 4000, MINI),
        Setting("decay", "linear", MINI, r"from where its\s+fall counts"),
        Setting("weight decay", 0.01, MINI),
        Setting("betas", (0.9, 0.999), MINI),
        Setting("epsilon", "not named", MINI, r"neither epsilon and clipping"),
        Setting("gradient clipping", "not named", MINI, r"neither epsilon and clipping"),
        Setting("layers copied", "not named", MINI, r"nor the start"),
        Setting("samples", "not named", MINI, r"nor pairs"),
        Setting("precision", "fp16", MINI, r"mixed\s+precision in fp16"),
        Practice(
            "mean of the losses", "over samples", "over tokens", MINI_LOSS, r"average each sample"
        ),
        attention_dropout(MINI),
        by(PACKED, MINI),
    ],
    "student_minilm_v2_6x384": _minilm_v2(384, r"four times the width"),
    "student_minilm_v2_6x768": _minilm_v2(768),
    "student_mobilebert_thin": [
        Setting(
            "layers, width, heads, feed-forward",
            (24, 512, 4, 512),
            "mobilebert/config/uncased_L-24_H-128_B-512_A-4_F-4_OPT.json",
            r"plain BERT layer in place of its bottlenecks",
        ),
        Setting(
            "losses",
            [
                (
                    "feature_maps",
                    ("map_weight", 100.0),
                    ("mean_weight", 5000.0),
                    *_LAYER_PAIRS,
                    ("variance_weight", 5.0),
                    ("weight", 0.041667),
                ),
                ("attention_distributions", *_LAYER_PAIRS, ("weight", 0.041667)),
            ],
            MOBILE_CODE,
        ),
        Setting(
            "losses of the last stage",
            [("soft_targets", ("weight", 0.5)), ("hard_mlm", ("weight", 0.5)), ("next_sentence",)],
            MOBILE_CODE,
        ),
        Setting("rows: tokens, batch, steps", [(512, 2048, 240_000), (512, 2048, 500_000)], MOBILE),
        Setting("layers copied", "the embeddings", MOBILE_CODE, r"embeddings drawn at random"),
        Setting("optimizer", "lamb", MOBILE),
        Setting("peak rates", [1.5e-3, 1.5e-3], MOBILE, None),
        Setting(
            "warm-ups, steps",
            ["1,000 of each layer", 10_000],
            MOBILE_CODE,
            r"rises anew with each layer",
        ),
        Setting("decay", "linear from start to 0.0001 of the peak", MOBILE_CODE),
        Setting("weight decay", 0.01, MOBILE_CODE),
        Setting("betas", (0.9, 0.999), MOBILE_CODE),
        Setting("epsilon", 1e-6, MOBILE_CODE),
        Setting("gradient clipping", 1.0, MOBILE_CODE),
        Setting(
            "masking",
            "uniform, at most 20 of 512 (0.8, 0.1 random)",
            MOBILE,
            r"at most 20 of\s+512",
        ),
        Setting("samples", "next_sentence", MOBILE),
        Setting("share of short samples", 0.1, BERT_DATA),
        Practice("layers trained", "one by one", "all at once", MOBILE_CODE, r"layer by layer"),
        Practice(
            "rate of the layers",
            "3 times for the one that learns",
            "the same for all",
            "mobilebert/distill_util.py",
            r"three times the rate",
        ),
        Practice(
            "mean and variance",
            "of all layers of the teacher",
            "of each layer",
            MOBILE_CODE,
            r"all layers of the teacher",
        ),
        Practice(
            "dropout",
            "none while it distils",
            "as the teacher's",
            MOBILE_CODE,
            r"dropout as the teacher's",
        ),
        Practice(
            "mean of the losses",
            "over padding too",
            "over a sample's tokens",
            MOBILE_CODE,
            r"counts padding too",
        ),
        by(UNCORRECTED, "mobilebert/lamb_optimizer.py"),
        by(PACKED, MOBILE),
        FIXED_MASKS,
    ],
}
