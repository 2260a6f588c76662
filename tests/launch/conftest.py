"""Fixtures of models, for tests of entry points."""

from tests.model_fixtures import published_teacher, tiny_shape

__all__ = ["published_teacher", "tiny_shape"]
