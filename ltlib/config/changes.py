"""Change a config by dotted names, and name it by a hash."""

import difflib
import hashlib
import json
from collections.abc import Mapping

from pydantic import ValidationError

from ltlib.config.experiment import ExperimentConfig


def override(config: ExperimentConfig, changes: Mapping[str, object]) -> ExperimentConfig:
    """Return a copy of ``config`` with some fields changed.

    Args:
        config: The starting point; not modified.
        changes: Dotted field name to new value, e.g. ``{"optim.epochs": 2}``. Text is converted
            to the field's type, as the command line and papermill pass text.

    Raises:
        ValueError: If a field does not exist (the nearest name is suggested) or a value does not
            fit its field.
    """
    tree = config.model_dump()
    for path, value in changes.items():
        *parents, leaf = path.split(".")
        node: object = tree
        for name in parents:
            node = node.get(name) if isinstance(node, dict) else None
        if not isinstance(node, dict) or leaf not in node:
            known = list(_field_names(config.model_dump()))
            near = difflib.get_close_matches(path, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"fields: {', '.join(known)}"
            raise ValueError(f"unknown field {path!r}; {hint}")
        if path == "method.name":
            raise ValueError("method.name cannot be changed; start from a recipe of that method")
        node[leaf] = _parse(value)
    try:
        return ExperimentConfig.model_validate(tree)
    except ValidationError as error:
        raise ValueError(_one_sentence(error)) from None


def config_hash(config: ExperimentConfig) -> str:
    """Name an experiment by 10 hexadecimal digits; the seed does not enter.

    Fields at their default do not enter either, so that a new field with the old behaviour as
    its default leaves every earlier run where it is.
    """
    content = config.model_dump(mode="json", exclude={"seed"}, exclude_defaults=True)
    content["method.name"] = config.method.name
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]


def flatten(config: ExperimentConfig) -> dict[str, object]:
    """List a config's fields as ``{"optim.epochs": 200, ...}``."""
    return dict(_field_values(config.model_dump(mode="json")))


def _field_values(tree: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for name, value in tree.items():
        if isinstance(value, Mapping):
            pairs += _field_values(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", value))
    return pairs


def _field_names(tree: Mapping[str, object]) -> list[str]:
    return [name for name, _ in _field_values(tree)]


def _parse(value: object) -> object:
    """Read lists and tuples that arrive as text; pydantic converts the scalars."""
    if isinstance(value, str) and value.startswith(("[", "{")):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def _one_sentence(error: ValidationError) -> str:
    """Say what is wrong, where, and what was given, one clause per problem."""
    clauses = []
    for problem in error.errors():
        # A member of a union is located by its tag as well: ("method", "bcl", "temperature").
        location = [str(part) for part in problem["loc"]]
        if len(location) > 2 and location[0] == "method":
            location.pop(1)
        given = "" if isinstance(problem["input"], Mapping) else f", got {problem['input']!r}"
        message = problem["msg"].removeprefix("Value error, ")
        clauses.append(f"{'.'.join(location)}: {message}{given}" if location else message)
    return "; ".join(clauses)
