"""What the model card says of the pooler, the only part that an export may lack."""

from string import Template

from pretrain.model import BertShape
from pretrain.run_facts import RunFacts

# Averages the hidden states of real tokens, as sentence-transformers does by default.
_MEAN = Template(
    """
```python
import torch
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained($location)
model = AutoModel.from_pretrained($location$option)
inputs = tokenizer([$text, $text], padding=True, truncation=True, return_tensors="pt")
with torch.no_grad():
    hidden = model(**inputs).last_hidden_state
mask = inputs.attention_mask.unsqueeze(-1)
vectors = (hidden * mask).sum(1) / mask.sum(1)
```
"""
)


def describe_pooler(shape: BertShape, facts: RunFacts, location: str, text: str) -> str:
    """Return the paragraph on the pooler, with an example where there is none.

    Args:
        shape: of the model.
        facts: of its run.
        location: what `from_pretrained` is given, as a Python literal.
        text: an example text, as a Python literal.
    """
    if shape.next_sentence:
        ordered = facts.identity.get("samples.pairs") == "sentence_order"
        task = "sentence-order" if ordered else "next-sentence"
        return f"Its pooler was trained with {task} prediction.\n"
    if shape.pooler:
        origin = "its teacher" if facts.teacher else "the model that it started from"
        return f"Its pooler is the one of {origin}, unchanged: no loss of its own trained it.\n"
    if not shape.token_types:
        return (
            "A DistilBERT has no pooler. For a vector of a text, average its hidden states:\n"
            + _MEAN.substitute(location=location, option="", text=text)
        )
    return (
        "It has no pooler, because no loss trained one: `AutoModel` and classifiers draw a new "
        "one at every load, which only fine-tuning trains. For a vector of a text, load it without "
        "and average its hidden states:\n"
        + _MEAN.substitute(location=location, option=", add_pooling_layer=False", text=text)
    )
