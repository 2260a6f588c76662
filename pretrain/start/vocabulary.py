"""A changed vocabulary: which tokens of a start each new token takes its embedding from.

A token that both vocabularies have keeps its embedding, and each special token that of its role. A
new one starts as the mean of the pieces into which the start's tokenizer splits its text, as in
Fast Vocabulary Transfer (Gee et al. 2022, arXiv 2402.09977), which takes it from VIPI (Mosin et al.
2021, arXiv 2112.14569). What has no pieces starts as the mean of all (Hewitt 2021, "Initializing
New Word Embeddings for Pretrained Language Models"). The bias of the MLM head goes the same way.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from data_prep.tokenizers.folder import LoadedTokenizer
from pretrain.start.token_forms import TokenForms

_ROLES = ("pad_id", "unk_id", "cls_id", "sep_id", "mask_id")


@dataclass(frozen=True, kw_only=True)
class VocabularyTransfer:
    """For each id of a new vocabulary, the old ids of which it becomes the mean.

    Attributes:
        sources: by new id; empty where it becomes the mean of all.
        ordinary: the old ids of that mean.
        kept: tokens that both vocabularies have, special ones by their role.
        by_pieces: new tokens that start as the mean of their pieces.
        without_pieces: new tokens that start as the mean of all, ids without a token included.
        dropped: old tokens that the new vocabulary does not have.
    """

    sources: Sequence[Sequence[int]]
    ordinary: Sequence[int]
    kept: int
    by_pieces: int
    without_pieces: int
    dropped: int

    def apply(self, old: torch.Tensor) -> torch.Tensor:
        """Return the new rows (or numbers) of a tensor whose first axis is the vocabulary."""
        flat = torch.tensor([index for ids in self.sources for index in ids])
        counts = torch.tensor([len(ids) for ids in self.sources])
        # In fp64, whose mean of one number is that number and of many is exact after rounding.
        table = old.double().view(len(old), -1)
        means = F.embedding_bag(flat, table, counts.cumsum(0) - counts, mode="mean")
        means[counts == 0] = table[torch.tensor(self.ordinary)].mean(0)
        return means.view(-1, *old.shape[1:]).to(old.dtype)

    def describe(self) -> str:
        """Return the line for the log."""
        return (
            f"{self.kept:,} tokens kept, {self.by_pieces:,} new as the mean of their old pieces, "
            f"{self.without_pieces:,} without pieces (mean of all), {self.dropped:,} dropped"
        )


def plan_transfer(old: LoadedTokenizer, new: LoadedTokenizer) -> VocabularyTransfer:
    """Return how embeddings of an old vocabulary become those of a new one."""
    ours, theirs = TokenForms(new), TokenForms(old)
    kept = _kept(ours, theirs)
    by_pieces = {
        index: pieces
        for token, index in ours.ordinary.items()
        if index not in kept
        and (form := ours.form(token)) is not None
        and (pieces := theirs.pieces(form))
    }
    return VocabularyTransfer(
        sources=[
            [kept[index]] if index in kept else by_pieces.get(index, [])
            for index in range(new.vocab_size)
        ],
        ordinary=sorted(theirs.ordinary.values()),
        kept=len(kept),
        by_pieces=len(by_pieces),
        without_pieces=new.vocab_size - len(kept) - len(by_pieces),
        dropped=len(set(theirs.vocabulary.values()) - set(kept.values())),
    )


def _kept(ours: TokenForms, theirs: TokenForms) -> dict[int, int]:
    """Return the old id of each new one whose token, or role, both vocabularies have."""
    roles = {getattr(ours.tokenizer, role): getattr(theirs.tokenizer, role) for role in _ROLES}
    if ours.notation == theirs.notation:
        # Unused and other special tokens included. The form differs where a token was added: it is
        # written without a mark.
        same = {
            index: theirs.vocabulary[token]
            for token, index in ours.vocabulary.items()
            if token in theirs.vocabulary and ours.form(token) == theirs.form(token)
        }
    else:
        by_form = {theirs.form(token): index for token, index in theirs.ordinary.items()}
        same = {
            index: by_form[form]
            for token, index in ours.ordinary.items()
            if (form := ours.form(token)) is not None and form in by_form
        }
    old_roles = set(roles.values())
    return {index: old for index, old in same.items() if old not in old_roles} | roles
