"""BERT's special tokens: the roles, their names and their ids."""

from collections.abc import Mapping
from pathlib import Path

from tokenizers import Tokenizer, processors

from data_prep.errors import UserError
from data_prep.tokenizers.json_files import read_json_object

ROLES = ("pad", "unk", "cls", "sep", "mask")
BERT_NAMES = {role: f"[{role.upper()}]" for role in ROLES}
ROBERTA_NAMES = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}
SPECIAL_TOKENS = tuple(BERT_NAMES.values())

CONFIG = "tokenizer_config.json"
ROLE_MAP = "special_tokens_map.json"


def special_ids(tokenizer: Tokenizer, names: Mapping[str, str], origin: Path) -> dict[str, int]:
    """Return the id of each role's special token.

    Raises:
        UserError: naming all that the vocabulary lacks.
    """
    ids = {role: tokenizer.token_to_id(names[role]) for role in ROLES}
    if missing := [names[role] for role, index in ids.items() if index is None]:
        raise UserError(
            f"The vocabulary of {origin} has no {', '.join(missing)}: BERT needs "
            f"{', '.join(names[role] for role in ROLES)}."
        )
    return {role: index for role, index in ids.items() if index is not None}


def add_bert_roles(tokenizer: Tokenizer) -> None:
    """Declare BERT's special tokens, which the vocabulary has, and put them around encoded text."""
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    ids = special_ids(tokenizer, BERT_NAMES, Path("vocabulary"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["cls"]), ("[SEP]", ids["sep"])],
    )


def role_names(folder: Path) -> dict[str, str]:
    """Return the special token of each role, as a Hugging Face folder names them.

    Roles that the folder does not mention have BERT's names.
    """
    names = dict(BERT_NAMES)
    for path in (folder / ROLE_MAP, folder / CONFIG):
        if path.is_file():
            content = read_json_object(path)
            for role in ROLES:
                token = content.get(f"{role}_token")
                token = token.get("content") if isinstance(token, dict) else token
                names[role] = token or names[role]
    return names
