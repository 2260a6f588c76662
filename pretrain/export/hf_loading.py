"""Models loaded by plain transformers, which takes seconds to import and so is imported late."""

from pathlib import Path
from typing import Any, Literal

Head = Literal["AutoModel", "AutoModelForMaskedLM", "AutoModelForPreTraining"]


def load_plain(folder: Path, head: Head) -> Any:
    """Return a model in evaluation mode, loaded from an export by an `Auto` class."""
    import transformers
    from transformers.utils import logging

    # A model loaded without one of its heads leaves weights unused, which is no warning here.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return getattr(transformers, head).from_pretrained(folder).eval()
