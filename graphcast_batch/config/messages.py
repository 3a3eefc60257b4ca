"""Check a mapping against a pydantic model, and report every key or value that does not fit."""

import difflib
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from graphcast_batch.credentials import printable_cause, scrubbed
from graphcast_batch.errors import ConfigError
from graphcast_batch.text import brief

Parsed = TypeVar("Parsed", bound=BaseModel)


def parse_config(content: Mapping[str, Any], kind: type[Parsed], *, origin: str) -> Parsed:
    """Check a mapping against a pydantic model.

    Args:
        content: keys and values, as read from YAML.
        kind: the model.
        origin: where the mapping comes from, for messages.

    Raises:
        ConfigError: some keys or values do not fit; the message names each by its dotted path, and says what is valid.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        findings = "\n".join(f"  {scrubbed(_finding(detail, kind))}" for detail in error.errors())
        raise ConfigError(f"the config {origin} does not fit:\n{findings}") from printable_cause(error)


def _finding(detail: Any, kind: type[BaseModel]) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    location = _without_tags(kind, detail["loc"])
    path = ".".join(str(part) for part in location) or "the config"
    if detail["type"] == "extra_forbidden":
        valid = sorted(_valid_names(kind, detail["loc"][:-1]))
        near = difflib.get_close_matches(str(location[-1]), valid, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"valid keys here: {', '.join(valid)}"
        return f"{path}: unknown key; {hint}"
    if detail["type"] == "missing":
        return f"{path}: required, but missing"
    if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return f"{path}.kind: {_wrong_kind(detail, kind)}"
    message = detail["msg"].removeprefix("Value error, ").replace("a valid tuple", "a valid list")
    is_shown = not isinstance(detail["input"], dict) and "storage" not in location
    shown = f", but is {brief(detail['input'])}" if is_shown else ""
    hint = "; write true or false" if detail["type"] == "bool_type" else ""
    return f"{path}: {message}" if detail["type"] == "value_error" else f"{path}: {message}{shown}{hint}"


def _wrong_kind(detail: Any, kind: type[BaseModel]) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    valid = sorted(tag for model in _models_at(kind, detail["loc"]) for tag in _tags(model))
    if detail["type"] == "union_tag_not_found":
        return f"required; one of {', '.join(valid)}"
    found = detail["ctx"]["tag"]
    near = difflib.get_close_matches(found, valid, n=1)
    return f"one of {', '.join(valid)}, but is {found!r}" + (f"; did you mean {near[0]}?" if near else "")


def _without_tags(kind: type[BaseModel], location: tuple[Any, ...]) -> list[Any]:
    """Return a location without the tags that pydantic adds for the chosen member of a union."""
    kept = []
    for depth, part in enumerate(location):
        before = _models_at(kind, location[:depth])
        tags = {tag for model in before for tag in _tags(model)} if len(before) > 1 else set()
        if part not in tags:
            kept.append(part)
    return kept


def _valid_names(kind: type[BaseModel], location: tuple[Any, ...]) -> set[str]:
    return {name for model in _models_at(kind, location) for name in model.model_fields}


def _models_at(kind: type[BaseModel], location: tuple[Any, ...]) -> list[type[BaseModel]]:
    models = [kind]
    for part in location:
        if len(models) > 1 and any(part in _tags(model) for model in models):
            models = [model for model in models if part in _tags(model)]
            continue
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        models = [found for field in fields for found in _models_in(field.annotation)]
    return models


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, Annotated):
        for argument in get_args(annotation):
            yield from _models_in(argument)


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    field = model.model_fields.get("kind")
    return get_args(field.annotation) if field else ()
