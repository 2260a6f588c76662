"""Sentences that were joined are found again, in every language, in linear time."""

import time

import numpy as np
import pytest

from data_prep.languages import LANGUAGES
from data_prep.tokenize import stops
from data_prep.tokenize.sentence_rules import split_sentences, starts_finder


@pytest.mark.parametrize(
    "sentences",
    [
        ["One.", "Two!", "Three?", "Four..."],
        ["Mr. Smith met Dr. J. K. Rowling at St. Paul's."],
        ["He joined the U.S. Army.", "She stayed."],
        ["He lives in the U.S.", "She lives in France."],
        ["It opens at 9 a.m. Monday.", "It shuts at 5 p.m.", "They went home."],
        ['He said "Go!"', "Then he left."],
        ["She wrote it (in ink.)", "He read it."],
        ["“Why?” she asked.", "“No.”", "“Yes.”"],
        ["He said no.", "See No. 5 and fig. 2 for details."],
        ["The price is $3.50.", "$4 is too much.", "It rose in 1999.", "2000 was worse."],
        ["1. Flour.", "2. Sugar."],
        ["Ask, e.g. John, i.e. him.", "Ötzi was found.", "Élan is a word."],
        ["He saw www.example.com and v2.0 of it. and went on."],
        ["Wait ... what?", "Yes."],
    ],
)
def test_english_sentences_survive_joining(sentences: list[str]) -> None:
    """English sentences are found again after joining."""
    assert split_sentences(" ".join(sentences), "en") == sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["今天很好。", "明天呢？", "真的！"],
        ["他说：“你好！”", "然後走了。"],
        ["彼は「行く。」と言った。", "「なぜ？」と聞いた。", "「はい！」", "『なぜ？』が売れた。"],
        [
            "《你好！李焕英》上映了。",
            "“为什么？”他问。",
            "他喊：“快！”、“跑！”。",
            "“去哪？”，她问。",
        ],
        ["等等……", "好；", "走吧"],
        ["真的吗？！", "版本2.0很好。"],
    ],
)
def test_chinese_sentences_survive_joining(
    sentences: list[str],
) -> None:
    """Chinese and Japanese sentences are found again after joining."""
    assert split_sentences("".join(sentences), "zh") == sentences


@pytest.mark.parametrize("language", ["en", "zh"])
def test_newline_ends_a_sentence(language: str) -> None:
    """A newline always ends a sentence, and blank ones vanish."""
    text = "  A title\n\n \nthe text  \t\n"
    assert split_sentences(text, language) == ["A title", "the text"]
    assert split_sentences(" \n ", language) == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_only_white_space_is_dropped(language: str) -> None:
    """No character but white space is lost."""
    text = "“Mr. A.” (B.) said... ‘No!’ 他说。“好” 1. x\u3000y?! Z… e.g. U.S. 5.\n. ? !"
    kept = "".join("".join(split_sentences(text, language)).split())
    assert kept == "".join(text.split())


EXAMPLES = {
    "de": [
        ["In der 12. Minute fiel das Tor.", "Am 3. Oktober 1990 kam die Einheit."],
        ["Das kostet 15 Mio. Euro.", "Der Preis stieg um 3 v. H.", "Er blieb."],
        [
            "Er sagte: „Nein.“",
            "„Doch“, sagte sie.",
            "Nr. 5 lebt, z. B. Dr. Müller bzw. Prof. Maier.",
        ],
        ["Das war 1990.", "Die Mauer fiel.", "Ende gut."],
    ],
    "ru": [
        ["Он родился в 1990 г. в Москве.", "Это было давно.", "«Да!» — сказал он."],
        ["А. С. Пушкин жил там.", "Она пришла в т. ч. с ним."],
    ],
    "hi": [["राम घर गया।", "वह सो गया।", "क्या वह आया?", "हाँ॥", "ठीक।"]],
    "ur": [["وہ گھر گیا۔", "کیا وہ آیا؟", "ہاں۔"]],
    "ar": [["ذهب إلى البيت.", "هل جاء؟", "نعم."]],
    "hy": [["Նա գնաց տուն։", "Նա քնեց։"]],
    "am": [["ቤት ሄደ።", "ተኛ።"]],
    "my": [["သူ အိမ်ပြန်သွားသည်။", "အိပ်သည်။"]],
    "el": [["Πήγε σπίτι.", "Ήρθε; Ναι."]],
    "cs": [["Přišel 3. května.", "Dr. Novák odešel.", "Byl doma."]],
    "pl": [["W dn. 3 maja 1791 r. uchwalono ją.", "To było dawno."]],
    "hu": [["Az 1848. évi törvény.", "Ez régen volt."]],
    "tr": [["Dr. Ahmet geldi.", "Bu iyi oldu.", "İyi günler."]],
    "fr": [["M. Dupont est venu.", "Il a vu p. 12.", "« Non. »", "Elle rit."]],
}


NEWSPAPERS = {
    "de": [
        "Die Müller GmbH & Co. KG meldete Insolvenz an.",
        "Bayern vs. Dortmund endete 2:1.",
        "Die ev. Kirche (engl. Church) liegt in Frankfurt a. M. am Main.",
        "Bei max. 20 Grad gab es lt. Polizei mind. 20 Verletzte.",
        "Papst Johannes Paul II. Vorgänger starb 1978.",
        "Goethes 100. Todestag war 1932.",
        "Th. Mann hörte op. 27 Nr. 2 von Joh. Seb. Bach.",
    ],
    "ru": [
        "Он приехал в 2000 г.",
        "В 2001 г. он уехал.",
        "Дж. Байден и Вл. Соловьёв были там.",
        "Адрес: ул. Мира, д. 5, кв. 10, тел. 123-45-67.",
        "Там были столы, стулья и т. д.",
        "Они остались на ст. Лесная и наб. Мойки с 12 янв. 2016 года.",
    ],
    "hi": [
        "डॉ. मनमोहन सिंह और प्रो. शर्मा आए।",
        "ए. पी. जे. अब्दुल कलाम राष्ट्रपति थे।",
        "के. आर. नारायणन भी थे।",
        "दूरी 5 कि. मी. है।",
        "नं. 5 की कीमत रु. 500 है।",
        "वह घर गया है.",
        "राम आया था.",
        "मैं ठीक हूँ.",
    ],
    "bn": ["ডা. রায় ও মো. আলী এলেন।", "তিনি গেলেন।"],
    "fr": [
        "Il a lu le chap. III et le vol. II.",
        "Le gén. De Gaulle et Ch. Gounod sont là.",
        "Tél. 01 23 45.",
        "C'est fini…",
        "Il dort.",
    ],
    "es": ["EE. UU. y los JJ. OO. de París.", "Viajó a EE. UU.", "El Excmo. Sr. Alcalde habló."],
    "en": [
        "He read Vol. II and Ch. IV.",
        "Assoc. Prof. Jones met Det. Insp. Brown.",
        "He said no.",
        "I left.",
        "Henry VIII.",
        "He reigned near Ft. Worth.",
    ],
}


@pytest.mark.parametrize("language", NEWSPAPERS)
def test_sentences_of_newspapers_survive_joining(language: str) -> None:
    """Titles, initials, Roman numerals and units of newspapers end no sentence."""
    sentences = NEWSPAPERS[language]
    assert split_sentences(" ".join(sentences), language) == sentences


def test_opening_quotes_begin_chinese_sentences() -> None:
    """A quotation mark that closes in German opens the next sentence in Chinese."""
    assert split_sentences("走吧。“好。”他走了。", "zh") == ["走吧。", "“好。”", "他走了。"]


@pytest.mark.parametrize("language", [code for code in EXAMPLES if code != "el"])
def test_sentences_of_language_survive_joining(language: str) -> None:
    """Stops, abbreviations, ordinals and quotes of a language divide its text rightly."""
    for sentences in EXAMPLES[language]:
        assert split_sentences(" ".join(sentences), language) == sentences


def test_stops_of_other_scripts_end_english() -> None:
    """Text of another script under the English rules is divided by its own stops."""
    for code in ("hi", "ur", "ar", "am", "my"):
        (sentences,) = EXAMPLES[code]
        assert split_sentences(" ".join(sentences), "en") == sentences


def test_length_divides_scripts_without_stops() -> None:
    """Thai text is divided at a space after some hundred characters, and nowhere else."""
    clause = "แมวนั่งอยู่บนเสื่อและมองดูนก"
    sentences = split_sentences(" ".join([clause] * 40), "th")
    assert " ".join(sentences) == " ".join([clause] * 40)
    assert all(100 <= len(sentence) < 140 for sentence in sentences[:-1])


def test_urls_and_numbers_stay_whole() -> None:
    """A mark inside a URL or a number ends no sentence, in Chinese text either."""
    english = "See http://a.b/?q=1.5!x and 3.14.15 there."
    assert split_sentences(english, "en") == [english]
    chinese = "见 http://a.b/?q=1!x 和3.14。好。"
    assert split_sentences(chinese, "zh") == ["见 http://a.b/?q=1!x 和3.14。", "好。"]


@pytest.mark.parametrize("language", ["en", "de", "zh", "hi", "th", "ar"])
@pytest.mark.parametrize(
    "unit", ["!", ".", "!a", ". ", '."', "a.", "1. ", "! ", "。!", "…x", "(", "“"]
)
def test_runs_of_stops_take_linear_time(language: str, unit: str) -> None:
    """A million characters of stops are divided in a second or two, not in minutes."""
    text = unit * (1_000_000 // len(unit)) + "x"
    started = time.process_time()
    split_sentences(text, language)
    assert time.process_time() - started < 5


def test_languages_are_consistent() -> None:
    """Abbreviations are in lower case, first words are not, and all have rules that compile."""
    for code, rules in LANGUAGES.items():
        assert starts_finder(code)("A b. C d.") is not None
        for words in (rules.before_names, rules.before_numbers, rules.undecided):
            assert all(len(word) <= 12 for word in words), code
            assert all(word == word.lower() for word in words), code
        assert all(not word[0].islower() for word in rules.first_words), code


def hostile_text(language: str) -> str:
    """Return words that the rules of a language know, and others, before all kinds of stops."""
    rules = LANGUAGES[language]
    words = [*stops.abbreviations(rules), "house", "it", "A", "II", "iv", "12", "1999", "x123", "É"]
    words += ["3.1999", "J. K.", "中", "a_", "..", "", " "]
    begins = ["The ", "the ", "3 ", "É", '"The ', "(The ", "« The ", "I ", "VI ", "- ", "中", "\n"]
    draws = np.random.default_rng(len(rules.stops))
    return "".join(
        draws.choice(["", "(", "\n", "d-"])
        + str(draws.choice([word := str(draws.choice(words)), word.capitalize(), word.upper()]))
        + draws.choice(["", "", ")", "”", "é"])
        + draws.choice([*".......!?:;…॥。"])
        + draws.choice(["", "", "", '"', ")", "”", " »"])
        + draws.choice([" ", " ", " ", "\n", ""])
        + draws.choice(begins)
        for _ in range(3_000)
    )


@pytest.mark.parametrize("language", ["en", "de", "fr", "tr", "el", "hy", "hi", "vi"])
def test_stops_found_together_are_alike(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentences of a long text are those that the regular expression finds alone."""
    text = hostile_text(language)
    monkeypatch.setattr(stops, "_CHARS_A_STOP", len(text))
    by_expression = starts_finder(language)(text)
    monkeypatch.setattr(stops, "_CHARS_A_STOP", 0)
    monkeypatch.setattr(stops, "_CHARS_A_TRIAL", 0)
    certain, doubtful = stops.StopFinder(LANGUAGES[language], '"”»)').find(text)
    assert len(certain) and doubtful is not None
    assert starts_finder(language)(text).tolist() == by_expression.tolist()
