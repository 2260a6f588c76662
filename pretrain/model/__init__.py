"""BERT, with the parameter names of transformers."""

from pretrain.model.bert import Bert, Outputs, initialise
from pretrain.model.config import BertShape

__all__ = ["Bert", "BertShape", "Outputs", "initialise"]
