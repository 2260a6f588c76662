"""The corpus recipes of the languages, each tried on made text of its language."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from data_prep.config.loader import load_recipe
from data_prep.config.schema import CorpusRecipe
from data_prep.corpus.shards import Corpus
from data_prep.counter_rng import integers_below, key_of
from data_prep.pipeline.build import build_corpus
from data_prep.tokenizers.folder import load_tokenizer

RECIPES = Path(__file__).parents[2] / "launch" / "recipes"
SENTENCES_A_DOCUMENT = 4
DOCUMENTS = 80
# Words, what joins them, and what ends a sentence.
LANGUAGES: dict[str, tuple[str, str, str]] = {
    "hi": (
        "नदी पुरानी किताब सुंदर गाँव में बच्चे खेलते हैं और शिक्षक कहानी सुनाते थे क्योंकि मौसम अच्छा "
        "था लेकिन रास्ता लंबा कठिन उन्होंने विश्वविद्यालय पहुँचकर मित्रों को चिट्ठी लिखी",
        " ",
        "।",
    ),
    "ru": (
        "Река тихий ёлка йод чай старый дом стоял у леса и дети играли во дворе пока учитель писал "
        "письмо своему другу который жил в далёком городе где шёл сильный дождь объём съезд",
        " ",
        ".",
    ),
    "ja": (
        "古い 本 が 図書館 に ある 子供たち は 公園 で 遊んで いる 先生 の 話 を 聞きながら 雨 "
        "ガラス 窓 から データ を 見る 電車 ぎりぎり 間に合った 友だち 手紙 書いた",
        "",
        "。",
    ),
    "zh": (
        "河流 古老 书籍 在 图书馆 里 孩子们 玩耍 老师 讲述 故事 因为 天气 很好 但是 道路 漫长 "
        "他们 到达 大学 给 朋友 写信 数学 研究",
        "",
        "。",
    ),
    "en": (
        "The river quiet old house stood near forest and children played in the yard while teacher "
        "wrote a letter to friend who lived far away",
        " ",
        ".",
    ),
}


def make_documents(language: str) -> list[str]:
    """Return documents of one paragraph, some with a number and a Latin name in them."""
    spelled, join, stop = LANGUAGES[language]
    words = spelled.split()
    documents = []
    for number in range(DOCUMENTS):
        drawn = iter(integers_below(key_of(language, number), range(60), len(words)).tolist())
        sentences = []
        for index in range(SENTENCES_A_DOCUMENT):
            chosen = [words[next(drawn)] for _ in range(6 + index)]
            if index == 1:
                chosen += ["Stillhouse", str(1900 + number)]
            elif join and len(chosen[-1]) == 1:
                chosen.append(words[0])  # a letter and a full stop are an initial
            sentence = join.join(chosen)
            sentences.append(sentence[0].upper() + sentence[1:] + stop)
        documents.append(join.join(sentences))
    return documents


@pytest.mark.parametrize("language", LANGUAGES)
def test_recipe_keeps_its_language(language: str, tmp_path: Path) -> None:
    """Sentences are found, no word is lost, and plain transformers gives the same ids."""
    documents = make_documents(language)
    (tmp_path / "text.txt").write_text("\n\n".join(documents), "utf-8")
    recipe = load_recipe(
        CorpusRecipe,
        RECIPES / f"corpus_{language}.yaml",
        [
            f"input.path={tmp_path / 'text.txt'}",
            f"tokenizer.path={tmp_path / 'tokenizer'}",
            f"corpus.path={tmp_path / 'corpus'}",
            "tokenizer.vocab_size=400",
            "corpus.validation_share=0.2",
            "workers=1",
        ],
    )
    manifest = build_corpus(recipe)
    assert manifest["dropped"] == {}
    splits = manifest["splits"].values()
    sentences = DOCUMENTS * SENTENCES_A_DOCUMENT
    assert sum(split["sentences"] for split in splits) == sentences
    plain = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    expected = {tuple(plain(text, add_special_tokens=False)["input_ids"]) for text in documents}
    backend, found = load_tokenizer(tmp_path / "tokenizer").backend, set()
    for split in ("train", "validation"):
        corpus = Corpus.open(tmp_path / "corpus", split)
        for index in range(corpus.num_documents):
            found.add(tuple(token for each in corpus.document(index) for token in each.tolist()))
    assert found == expected
    assert all(plain.unk_token_id not in ids for ids in found)
    decoded = {"".join(backend.decode(list(ids)).split()) for ids in found}
    assert decoded == {"".join(text.lower().split()) for text in documents}
