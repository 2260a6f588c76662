"""The published settings of teachers: data, written without the recipes."""

from tests.launch.published.practices import (
    AHEAD,
    BERT_MASKS,
    FIXED_MASKS,
    PACKED,
    UNCORRECTED,
    attention_dropout,
    by,
)
from tests.launch.published.setting import Practice, Setting

BERT = "arXiv 1810.04805, appendix A.2"
BERT_SIZE = "arXiv 1810.04805, section 3"
BERT_CODE = "google-research/bert, optimization.py"
BERT_DATA = "google-research/bert, create_pretraining_data.py"
BERT_MODEL = "google-research/bert, modeling.py"
NVIDIA = "NVIDIA/DeepLearningExamples, BERT, scripts/configs/pretrain_config.sh"
NVIDIA_CODE = "NVIDIA/DeepLearningExamples, BERT, run_pretraining.py; apex FusedLAMB"
NVIDIA_RATE = "NVIDIA/DeepLearningExamples, BERT, schedulers.py"
BUDGET = "IntelLabs/academic-budget-bert, README, best configuration of arXiv 2104.07705"

PUBLISHED_TEACHERS: dict[str, list[Setting | Practice]] = {
    "teacher_base": [
        Setting("layers, width, heads, feed-forward", (12, 768, 12, 3072), BERT_SIZE),
        Setting("positions", 512, BERT),
        Setting("LayerNorm", "post", BERT_MODEL),
        Setting("dropout", 0.1, BERT),
        Setting("share of steps by row length", [(128, 0.9), (512, 0.1)], BERT),
        Setting("rows in all by length", [(128, 230_400_000), (512, 25_600_000)], BERT),
        Setting("batch, rows", 256, BERT, r"batches of 1,024 rows, so that a step is four"),
        Setting("steps", 1_000_000, BERT, r"a step is four of BERT's"),
        Setting("warm-up, steps", 10_000, BERT, r"2,500 steps of warm-up"),
        Setting("warm-up, share of steps", round(10_000 / 900_000, 4), BERT),
        Setting("decay", "linear from start", BERT_CODE),
        Setting("optimizer", "adamw", BERT_CODE),
        Setting("peak rate", 1e-4, BERT),
        Setting("weight decay", 0.01, BERT),
        Setting("betas", (0.9, 0.999), BERT),
        Setting("epsilon", 1e-6, BERT_CODE),
        Setting("gradient clipping", 1.0, BERT_CODE),
        Setting("masking", BERT_MASKS, "arXiv 1810.04805, section 3.1"),
        Setting("samples", "next_sentence", BERT),
        Setting("share of short samples", 0.1, BERT_DATA),
        Practice("GELU", "tanh form", "exact", BERT_MODEL, r"GELU in its exact form"),
        Practice(
            "mean of the losses",
            "of each core",
            "over the batch",
            BERT_CODE,
            r"not over what each core holds",
        ),
        attention_dropout(BERT_MODEL),
        by(UNCORRECTED, BERT_CODE),
        by(PACKED, BERT_DATA),
        FIXED_MASKS,
        by(AHEAD, BERT_CODE),
    ],
    "teacher_large_lamb": [
        Setting("layers, width, heads, feed-forward", (24, 1024, 16, 4096), BERT_SIZE),
        Setting("positions", 512, BERT),
        Setting("LayerNorm", "post", NVIDIA),
        Setting("dropout", 0.1, "NVIDIA/DeepLearningExamples, BERT, bert_config.json"),
        Setting("rows: tokens, batch, steps", [(128, 65_536, 7038), (512, 32_768, 1563)], NVIDIA),
        Setting("optimizer", "lamb", NVIDIA_CODE),
        Setting("peak rates", [6e-3, 4e-3], NVIDIA),
        # The steps s for which (s + 1) / steps is below the share of its warm-up.
        Setting("warm-ups, steps", [int(0.2843 * 7038), int(0.128 * 1563)], NVIDIA_RATE),
        Setting("decay", "polynomial to the power of 0.5 from start", NVIDIA_RATE),
        Setting("weight decay", 0.01, NVIDIA_CODE),
        Setting("betas", (0.9, 0.999), NVIDIA_CODE),
        Setting("epsilon", 1e-6, NVIDIA_CODE),
        Setting("gradient clipping", 1.0, NVIDIA_CODE),
        Setting("masking", BERT_MASKS, NVIDIA),
        Setting("samples", "next_sentence", NVIDIA),
        Setting("precision", "fp16", NVIDIA, r"bf16, where it has fp16"),
        Practice(
            "initial weights",
            "N(0, 0.02)",
            "truncated",
            "NVIDIA/DeepLearningExamples, BERT, modeling.py",
            r"truncated initialisation",
        ),
        Practice(
            "Adam's count of steps",
            "starts again",
            "goes on",
            NVIDIA_CODE,
            r"count of Adam's steps",
        ),
        Practice("rate of the last step", "0", "one step before", NVIDIA_RATE, r"a step behind"),
        Practice(
            "vocabulary",
            "padded to a multiple of 8",
            "as it is",
            NVIDIA_CODE,
            r"not padded\s+to a multiple of 8",
        ),
        attention_dropout("NVIDIA/DeepLearningExamples, BERT, bert_config.json"),
        by(PACKED, NVIDIA),
        FIXED_MASKS,
    ],
    "teacher_one_gpu": [
        Setting(
            "layers, width, heads, feed-forward",
            (24, 1024, 16, 4096),
            BUDGET,
            r"BERT-base, where the former trains BERT-large",
        ),
        Setting("LayerNorm", "pre", BUDGET, r"LayerNorm behind each block"),
        Setting("dropout", 0.1, BUDGET, r"no dropout"),
        Setting("batch, rows", 4096, BUDGET),
        Setting("length of rows", 128, "arXiv 2104.07705, section 3"),
        Setting("optimizer", "adamw", BUDGET),
        Setting("peak rate", 1e-3, BUDGET, r"a rate of 6e-4"),
        Setting("warm-up, share of time", 0.06, BUDGET),
        Setting("decay", "budget from warmup", BUDGET),
        Setting("weight decay", 0.01, BUDGET),
        Setting("betas", (0.9, 0.98), BUDGET),
        Setting("epsilon", 1e-6, BUDGET),
        Setting("gradient clipping", "none", BUDGET, r"does not\s+clip"),
        Setting("samples", "none", "arXiv 2104.07705, section 3"),
        Setting("precision", "fp16", BUDGET, r"bf16, where the former has fp16"),
        Practice("batch in the first steps", "the same", "smaller", BUDGET, r"grows at first"),
    ],
}
