"""Read YAML files and lists of lines; refuse files that would fill the memory or never end."""

import math
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from graphcast_batch.errors import ConfigError

_MOST_TEXT: Final = 2**24
"""Largest size of a config or list of times in bytes, enough for some 600 000 times; a larger file is a mistake."""
_NODE_TEXT: Final = 16
"""Bytes that each key and value of YAML counts for, beside its text."""
_KINDS: Final[Mapping[int, str]] = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_CORE: Final = (
    ("null", re.compile(r"~|null|Null|NULL|"), ("~", "n", "N", "")),
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE"), tuple("tTfF")),
    ("int", re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII), tuple("-+0123456789")),
    (
        "float",
        re.compile(
            r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
            re.ASCII,
        ),
        tuple("-+.0123456789"),
    ),
    ("merge", re.compile(r"<<"), ("<",)),
)
"""Tag, pattern and first characters of the values that are not text, in order of precedence: the core schema of YAML
1.2.2, section 10.3.2, and the merge key of YAML 1.1. PyYAML by itself follows YAML 1.1, where ``1:30`` is 90."""


def read_mapping(path: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file.

    Raises:
        ConfigError: the file is missing, is not YAML, or is not a mapping.
    """
    try:
        content = yaml.load(_text(path), Loader=_Loader)
    except FileNotFoundError as error:
        raise ConfigError(f"the config {path} does not exist; give the path of a YAML file") from error
    except yaml.MarkedYAMLError as error:
        # From None: its text quotes the line, which may hold a password.
        raise ConfigError(f"the config {path} must be readable YAML, but: {_position(error)}") from None
    # PyYAML's constructors raise what comes, such as IndexError for ``!!int ""`` and KeyError for ``!!bool 1``.
    except (OSError, yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise ConfigError(f"the config {path} must be readable YAML, but: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"the config {path} must be a mapping of keys to values, but is {type(content).__name__}")
    return content


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file that are neither empty nor comments (#).

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not text, is too long, or is not a regular file.
    """
    return [line for line in (line.split("#")[0].strip() for line in _text(path).splitlines()) if line]


def as_yaml(content: Mapping[str, Any]) -> str:
    """Return a mapping as YAML, from which `read_mapping` and any reader of YAML 1.1 or 1.2 restores an equal one."""
    return yaml.dump(dict(content), Dumper=_Dumper, sort_keys=False)


def _text(path: Path) -> str:
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):  # opening a pipe to which no process writes never returns
        raise ValueError(f"{path} must be a file, but is {_KINDS.get(stat.S_IFMT(mode), 'none')}; give one")
    with path.open("rb") as file:
        content = file.read(_MOST_TEXT + 1)
    if len(content) > _MOST_TEXT:
        raise ValueError(f"{path} must have at most {_MOST_TEXT} bytes, but has more")
    return content.decode("utf-8")


def _position(error: yaml.MarkedYAMLError) -> str:
    """Return what is wrong and where, without the text at that place."""
    parts = [(error.context, error.context_mark), (error.problem, error.problem_mark)]
    return ", ".join(
        f"{what}{f' (line {mark.line + 1}, column {mark.column + 1})' if mark else ''}" for what, mark in parts if what
    )


class _Loader(yaml.SafeLoader):
    """Read values as YAML 1.2 does; refuse repeated keys, and aliases that are too long when they are written out."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as PyYAML declares it

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._written = 0.0
        self._sizes: dict[int, float] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401 - unknown to the stubs too
        alias, before = self.check_event(yaml.AliasEvent), self._written
        node = super().compose_node(parent, index)
        if alias:  # without a size yet where it stands within itself
            self._written += self._sizes.get(id(node), math.inf)
        else:
            self._written += _NODE_TEXT + (len(node.value) if isinstance(node, yaml.ScalarNode) else 0)
            self._sizes[id(node)] = self._written - before
        if self._written > _MOST_TEXT:
            raise yaml.YAMLError(f"it must have at most {_MOST_TEXT} characters, with its aliases written out")
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # noqa: ANN401 - unknown to the stubs too
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if (key.tag, key.value) in seen:
                raise yaml.YAMLError(
                    f"each key must be there once, but {key.value} is there again on line {key.start_mark.line + 1}; "
                    "remove one of them"
                )
            seen.add((key.tag, key.value))
        return node


class _Dumper(yaml.SafeDumper):
    """Quote text that YAML 1.1 or 1.2 would read as something else than text."""


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text if base == 10 else text[2:], base)


def _real(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_TAG: Final = "tag:yaml.org,2002:"
for _name, _pattern, _first in _CORE:
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern.pattern})\Z", re.ASCII), list(_first))
    _Dumper.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern.pattern})\Z", re.ASCII), list(_first))
_Loader.add_constructor(_TAG + "int", _integer)
_Loader.add_constructor(_TAG + "float", _real)
