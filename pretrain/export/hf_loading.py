"""Plain transformers, as a colleague will use it; imported late, because it takes seconds."""

from pathlib import Path
from typing import Any, Literal

Head = Literal["AutoModel", "AutoModelForMaskedLM", "AutoModelForPreTraining"]


def load_plain(folder: Path, head: Head) -> Any:
    """Return a model in evaluation mode, loaded from an export by an `Auto` class."""
    import transformers
    from transformers.utils import logging

    # A teacher read without one of its heads leaves weights aside, as it should: say nothing.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return getattr(transformers, head).from_pretrained(folder).eval()
