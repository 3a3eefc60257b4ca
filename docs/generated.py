"""Generate reference pages from the code: commands, keys of configs, layouts, metrics and modules."""

import ast
import inspect
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from docutils import nodes
from docutils.statemachine import StringList
from pydantic import BaseModel
from rich.text import Text
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typer.main import get_command

from graphcast_batch.cli import app
from graphcast_batch.cluster.ray_metrics import METRICS as EXPORTED
from graphcast_batch.inputs.layouts.dialects import DIALECTS

PACKAGE: Final = Path(__file__).parents[1] / "graphcast_batch"
BOUNDS: Final = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
TYPES: Final = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers a directive for each kind of page."""
    made: Mapping[str, Callable[[Sequence[str]], Iterator[str]]] = {
        "commands": _commands,
        "config-keys": _keys,
        "dialects": _dialects,
        "exported-metrics": _exported,
        "modules": _modules,
    }
    for name, write in made.items():
        app.add_directive(name, type(name, (_Written,), {"write": staticmethod(write)}))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class _Written(SphinxDirective):
    """Stands for the reStructuredText that ``write`` makes of the directive's arguments."""

    optional_arguments = 9
    write: Callable[[Sequence[str]], Iterator[str]]

    def run(self) -> list[nodes.Node]:
        lines = [line for block in type(self).write(self.arguments) for line in block.splitlines()]
        return self.parse_text_to_nodes(StringList(lines, source=self.env.docname), allow_section_headings=True)


# --- commands


def _commands(_: Sequence[str]) -> Iterator[str]:
    """All commands as their ``--help`` has them, subcommands too."""
    yield from _command(get_command(app), ["graphcast-batch"])


def _command(command: Any, words: list[str]) -> Iterator[str]:  # noqa: ANN401 - typer keeps the types to itself
    context = command.make_context(" ".join(words), [], resilient_parsing=True)
    usage = " ".join(command.get_usage(context).split()[1:]).replace("{", "").replace("}", "")
    yield _heading(" ".join(words[1:]) or words[0], "-")
    yield f"{_plain(command.help)}\n\n.. code-block:: text\n\n   {usage}\n\n"
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record:  # none of what is hidden
            yield f"``{record[0]}``\n   {_escaped(' '.join(record[1].split()))}\n\n"
    if command.epilog:
        lines = Text.from_markup(command.epilog).plain.split("\n\n")
        yield (
            "\n.. rubric:: Examples\n\n.. code-block:: text\n\n" + "".join(f"   {line}\n" for line in lines[1:]) + "\n"
        )
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        yield from _command(command.commands[name], [*words, name])


def _plain(text: str | None) -> str:
    """Help as text that reStructuredText leaves as it is."""
    return _escaped(Text.from_markup(inspect.cleandoc(text or "")).plain)


def _escaped(text: str) -> str:
    return re.sub(r"([\\*|`_])", r"\\\1", text)


# --- keys of configs


def _keys(arguments: Sequence[str]) -> Iterator[str]:
    """The keys of a model, given by its module and name, and of all models in it."""
    module, _, name = arguments[0].rpartition(".")
    model: type[BaseModel] = getattr(import_module(module), name)
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    places = _places(schema, definitions)
    root = name.lower()
    for key, place in {"": "", **places}.items():
        section = definitions[key] if key else schema
        kind = section.get("properties", {}).get("kind", {}).get("const")
        title = f"{place}, kind: {kind}" if kind else place or "At the top"
        yield f".. _{_label(root, key)}:\n\n{_heading(title, '-')}{_sentences(section)}\n\n"
        for name, value in _mapping(section)["properties"].items():
            if name != "kind":
                yield _key(name, value, _mapping(section).get("required", ()), root, definitions)


def _places(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, str]:
    """Where in a config each model stands first, as the dotted path of its key."""
    found: dict[str, str] = {}
    waiting = [("", schema)]
    while waiting:
        path, model = waiting.pop(0)
        for name, value in _mapping(model)["properties"].items():
            place = f"{path}.{name}".lstrip(".")
            for key in re.findall(r"'\$ref': '#/\$defs/(\w+)'", str(value)):
                if key not in found and "properties" in _mapping(definitions[key]):
                    found[key] = place
                    waiting.append((place, definitions[key]))
    return found


def _mapping(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a model's schema with its keys, beside which there may be a word that stands for one."""
    return next((part for part in model.get("anyOf", ()) if "properties" in part), model)


def _key(
    name: str, value: Mapping[str, Any], required: Sequence[str], root: str, definitions: Mapping[str, Any]
) -> str:
    notes = [_kind(value, root, definitions)]
    if name in required:
        notes.append("required")
    elif default := _default(value.get("default")):
        notes.append(f"default ``{default}``")
    return f"``{name}``: {', '.join(notes)}\n   {_sentences(value)}\n\n"


def _default(value: object) -> str:
    """As it would stand in YAML; nothing of a section, whose keys have their own."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if value is None or isinstance(value, dict):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _sentences(schema: Mapping[str, Any]) -> str:
    text = _mapping(schema).get("description") or schema.get("description") or ""
    return " ".join(text.split())


def _kind(schema: Mapping[str, Any], root: str, definitions: Mapping[str, Any]) -> str:
    """What a value may be, in words."""
    if "$ref" in schema:
        key = schema["$ref"].rpartition("/")[2]
        if "properties" in _mapping(definitions[key]):
            word = definitions[key].get("properties", {}).get("kind", {}).get("const", "section")
            return f":ref:`{word} <{_label(root, key)}>`"
        return _kind(definitions[key], root, definitions)
    if "const" in schema or "enum" in schema:
        return " | ".join(f"``{value}``" for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema or "oneOf" in schema:
        every = [part for part in schema.get("anyOf", schema.get("oneOf", ())) if part.get("type") != "null"]
        return " or ".join(dict.fromkeys(_kind(part, root, definitions) for part in every))
    if schema.get("type") == "array":
        pair = [_kind(part, root, definitions) for part in schema.get("prefixItems", ())]
        return f"[{', '.join(pair)}]" if pair else f"list of {_kind(schema['items'], root, definitions)}"
    if schema.get("type") == "object":
        return f"mapping of names to {_kind(schema['additionalProperties'], root, definitions)}"
    bounds = [f"{sign} {schema[bound]}" for bound, sign in BOUNDS.items() if bound in schema]
    return " ".join([TYPES.get(schema.get("type", ""), "value"), *bounds])


def _label(root: str, key: str) -> str:
    return f"{root}-keys-{key}".lower().rstrip("-")


# --- tables


def _dialects(_: Sequence[str]) -> Iterator[str]:
    """The layouts of archives that are recognized, in the order in which they are tried."""
    rows = []
    for one in DIALECTS.values():
        names = ", ".join(f"``{theirs}``" for theirs in one.variables)
        rows.append((f"``{one.name}``", one.title, names, one.precipitation or "as it says"))
    yield from _table(("dialect", "layout", "names it turns into ours", "precipitation"), rows)


def _exported(_: Sequence[str]) -> Iterator[str]:
    """The metrics of a run that Ray exports."""
    rows = [
        (" ".join(f"``{name}``" for name in sorted(one.exported)), one.kind, one.text, ", ".join(("store", *one.tags)))
        for one in EXPORTED
    ]
    yield from _table(("name", "kind", "what it is", "tags"), rows)


def _modules(_: Sequence[str]) -> Iterator[str]:
    """First sentences of the modules and packages at the top, in the order in which they may import each other."""
    rows = []
    for name in _from_above():
        path = PACKAGE / f"{name}.py" if (PACKAGE / f"{name}.py").exists() else PACKAGE / name / "__init__.py"
        told = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        rows.append((f"``{name}``", " ".join(told.split("\n\n")[0].split())))
    yield from _table(("module", "what turns into what"), rows)


def _from_above() -> Iterator[str]:
    """Names of modules, as import-linter is told their layers."""
    content = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = content["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return (name.strip() for layer in layers for name in layer.split("|") if name.strip() != "__main__")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield ".. list-table::\n   :header-rows: 1\n\n"
    for row in (head, *rows):
        yield "".join(f"   {'*' if n == 0 else ' '} - {cell}\n" for n, cell in enumerate(row))
    yield "\n"


def _heading(text: str, line: str) -> str:
    return f"{text}\n{line * (len(text) + 2)}\n\n"
