"""The documents of the input as sentences, before there is a tokenizer or a corpus."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import islice

from data_prep.config.schema import CorpusRecipe, InputOptions
from data_prep.filters.cleaning import Cleaner
from data_prep.filters.plugins import load_plugin
from data_prep.readers.dispatch import read_documents
from data_prep.readers.listing import cut_into_tasks, list_input
from data_prep.tokenize.encoder import Splitter, sentences_by
from data_prep.tokenize.sentence_rules import split_sentences


def preview_documents(recipe: CorpusRecipe, count: int) -> Iterator[str]:
    """Yield the first documents that cleaning keeps, one sentence a line with its characters.

    Duplicates, and what overlaps evaluation files, are still among them.

    Raises:
        UserError: when the input cannot be read with the options of the recipe.
    """
    documents = enumerate(islice(_documents(recipe), count))
    for index, sentences in documents:
        characters = sum(map(len, sentences))
        lines = [f"document {index}: {len(sentences)} sentences, {characters} characters"]
        yield "\n".join([*lines, *(f"{len(sentence):6d}  {sentence}" for sentence in sentences)])


def _documents(recipe: CorpusRecipe) -> Iterator[list[str]]:
    cleaner = Cleaner(recipe.clean)
    counts: Counter[str] = Counter()
    splitters = {name: _splitter(options) for name, options in recipe.corpora.items()}
    for task in cut_into_tasks(list_input(recipe.corpora).sources):
        for piece in task:
            options = recipe.corpora[piece.source.corpus]
            split = splitters[piece.source.corpus]
            for document in read_documents(piece, options, counts):
                text = cleaner.clean(document.text, counts)
                if not cleaner.reason_to_drop(text):
                    yield [each for paragraph in text.split("\n") for each in split(paragraph)]


def _splitter(options: InputOptions) -> Splitter:
    if options.sentences:
        return partial(sentences_by, load_plugin(options.sentences, "input.sentences"))
    return partial(split_sentences, language=options.language)
