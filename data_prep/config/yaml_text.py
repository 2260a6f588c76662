"""YAML as recipes use it: each key once, numbers such as 1e-4, and errors in one sentence."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from data_prep.errors import UserError

# YAML 1.2 reads these as numbers; PyYAML follows YAML 1.1, which wants a dot.
_SHORT_FLOAT = re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$")
_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_MERGE = "tag:yaml.org,2002:merge"


class _RecipeLoader(yaml.SafeLoader):
    """Reads 1e-4 as a number and 2026-01-31 as text."""


_RecipeLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_RecipeLoader.add_implicit_resolver("tag:yaml.org,2002:float", _SHORT_FLOAT, list("-+0123456789"))


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; an empty file is an empty mapping.

    Raises:
        UserError: when it cannot be read, is not valid YAML, is no mapping, or has a key twice.
    """
    try:
        tree = _load(path.read_text(encoding="utf-8"), path)
    except yaml.MarkedYAMLError as error:
        raise UserError(f"The recipe {path} is not valid YAML: {_problem_of(error)}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"The recipe {path} is not valid YAML: {' '.join(str(error).split())}."
        ) from error
    except OSError as error:
        raise UserError(f"The recipe {path} cannot be read: {error.strerror}.") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(
            f"The recipe {path} must be a mapping of keys, not {_kind_of(tree)}: begin it with "
            "lines such as `run:`."
        )
    return tree


def _kind_of(tree: Any) -> str:
    return "a list" if isinstance(tree, list) else "a single value"


def parse_value(text: str) -> Any:
    """Return the value that a text has in YAML.

    A text such as *.txt is a glob: the alias that it is in YAML could refer to nothing.

    Raises:
        yaml.YAMLError: when it has none.
    """
    if text.startswith("*"):
        return text
    return yaml.load(text, _RecipeLoader)


def _load(text: str, path: Path) -> Any:
    loader = _RecipeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_repeated_keys(node, path)
        return _unshared(loader.construct_document(node))
    finally:
        loader.dispose()


def _unshared(value: Any) -> Any:
    """Copy what an alias of an anchor shares, so that an override changes one place alone."""
    if isinstance(value, dict):
        return {key: _unshared(each) for key, each in value.items()}
    return [_unshared(each) for each in value] if isinstance(value, list) else value


def _refuse_repeated_keys(root: yaml.Node, path: Path) -> None:
    for mapping, prefix in _mappings_in(root, "", set()):
        lines: dict[str, int] = {}
        for key, _ in mapping.value:
            line = key.start_mark.line + 1
            if key.tag == _MERGE or not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in lines:
                raise UserError(
                    f"The key {prefix + key.value!r} is given twice in {path}, in lines "
                    f"{lines[key.value]} and {line}: keep one of them."
                )
            lines[key.value] = line


def _mappings_in(
    node: yaml.Node, prefix: str, seen: set[int]
) -> Iterator[tuple[yaml.MappingNode, str]]:
    """Yield every mapping below a node with the dotted key in front of its own keys."""
    if id(node) in seen:  # an alias of an anchor
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        yield node, prefix
        for key, value in node.value:
            yield from _mappings_in(value, f"{prefix}{key.value}.", seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _mappings_in(value, f"{prefix}{index}.", seen)


def _problem_of(error: yaml.MarkedYAMLError) -> str:
    """Return what is wrong, in which line, and what to do about the usual causes."""
    mark = error.problem_mark
    line = f"line {mark.line + 1}" if mark else "an unknown line"
    problem = str(error.problem or error.context)
    if r"'\t'" in problem:
        return f"{line} is indented with a tab, where YAML takes spaces: replace it"
    if "mapping values are not allowed" in problem:
        return (
            f"{line} has a second colon, or more spaces in front than the line above it: put a "
            "value that holds `: ` in quotes, or align the line"
        )
    if "could not find expected ':'" in problem:
        return f"{line} or the line above it lacks a colon and a space after its key: add them"
    if "could not determine a constructor" in problem:
        return f"{line} has a tag that recipes do not take: remove the word that begins with `!`"
    if "expected ',' or" in problem:
        return f"a bracket is still open in {line}: add the missing ] or }}, or a comma"
    return f"{problem} in {line}: correct that line"
