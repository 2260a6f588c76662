"""A tokenizer folder works with the models and pipelines of transformers."""

from pathlib import Path

from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, pipeline

from data_prep.tokenizers.folder import load_tokenizer


def test_fill_mask_takes_tokenizer_folder(tiny_tokenizer: Path) -> None:
    """The fill-mask pipeline of transformers opens a tokenizer folder and fills its mask."""
    tokenizer = load_tokenizer(tiny_tokenizer)
    config = BertConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=8,
    )  # fmt: skip
    fill = pipeline(
        "fill-mask",
        model=BertForMaskedLM(config),
        tokenizer=AutoTokenizer.from_pretrained(tiny_tokenizer),
    )
    answers = fill("bake [MASK] ball.", top_k=2)
    assert len(answers) == 2
    assert {answer["token_str"] for answer in answers} <= set(tokenizer.backend.get_vocab())
