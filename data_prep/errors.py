"""The one exception that a user is meant to read."""

import re

# A user and password in front of a host, and what follows a web address's question mark.
_LOGIN = re.compile(r"(?<=://)[^/@\s'\"]*@")
_QUERY = re.compile(r"(https?://[^\s?'\"]*)\?[^\s'\")\],]*", re.IGNORECASE)
# What Python makes of a byte of a file name that is not UTF-8 (PEP 383).
_BYTES = re.compile("[\udc80-\udcff]")


class UserError(Exception):
    """A request that cannot be carried out, in one sentence: the thing, its value, what to do.

    Entry points print the sentence alone, without a traceback, and exit with code 2. Addresses in
    it are shown without their passwords and tokens.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(_BYTES.sub(_escaped, without_secrets(sentence)))


def _escaped(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]) - 0xDC00:02x}"


def without_secrets(text: str) -> str:
    """Return a text whose addresses have no user, password and query."""
    return _QUERY.sub(r"\1", _LOGIN.sub("", text))
