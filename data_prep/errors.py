"""The one exception that a user is meant to read."""


class UserError(Exception):
    """A request that cannot be carried out, in one sentence: the thing, its value, what to do.

    Entry points print the sentence alone, without a traceback, and exit with code 2.
    """
