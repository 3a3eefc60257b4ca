"""What the documentation shows is so: it builds, its commands and configs are real, its examples run and say that."""

import itertools
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from graphcast_batch.cli import app
from graphcast_batch.cli.application import Exit
from graphcast_batch.cluster.drain import WORK_LEFT
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.recipe import TrainingRecipe
from tests.conftest import ROOT

DOCS = ROOT / "docs"
COMMANDS = get_command(app)
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?<![\w/-])graphcast-batch (?=[a-z-])[^`\n]*")
NAMED = re.compile(r"(?<![\w/.-])(?:graphcast_batch|tests|docs|configs)/[\w./-]*\w(?=[`)/#])")
"""Files and folders of the repository."""
MASKS = (
    (r"/\S*/", "/"),  # where things are
    (r"\d+(\.\d+)? (s|steps/s)\b", "SPEED"),
    (r"\w+:\d{3,}", "WORKER"),
    (r"\d+\.\d+", "NUMBER"),
    (r"\s+", " "),
)
"""What differs between machines."""
WIDE = {"COLUMNS": "140"}


@dataclass(frozen=True)
class Block:
    """A part of a page between fences: ``bash`` and ``python`` are run, ``sh`` and ``py`` are shown only."""

    page: str
    language: str
    text: str

    def __str__(self):
        return f"{self.page}: {self.text.splitlines()[0][:60]}"


def blocks(page):
    name = str(page.relative_to(ROOT))
    return [
        Block(name, language, re.sub(f"(?m)^{indent}", "", text))
        for indent, language, text in FENCE.findall(page.read_text())
    ]


ALL = [block for page in (ROOT / "README.md", *PAGES) for block in blocks(page)]


def of(*languages):
    return [block for block in ALL if block.language in languages]


def shown_commands(text):
    """Commands with what follows them, up to the end of the line or to what a shell would take as the end."""
    return [re.split(r" && | \| |\s#", found)[0].strip() for found in COMMAND.findall(text)]


def inline_commands(page):
    """Those within a sentence or a table, where ``A|B`` means either and ``[A]`` that A may be left out."""
    text = FENCE.sub("", page.read_text()).replace("\\|", "|")
    return [found.strip() for span in re.findall(r"`([^`\n]+)`", text) for found in COMMAND.findall(span)]


def variants(command):
    """Every command that a short form stands for."""
    words = re.sub(r"\[(?:-- )?([^\]]*)\]", r"\1", command).split()
    yield from itertools.product(*(word.split("|") for word in words))


def parsed(words):
    """Parses words as the command line does, with its errors, and runs nothing."""
    command, context = COMMANDS, None
    general = {option for one in command.params for option in one.opts}  # stand behind the subcommand too
    ours = words[: words.index("--")] if "--" in words else words
    words = [*sorted(ours, key=lambda word: word not in general), *words[len(ours) :]]
    while True:
        context = command.make_context(command.name, words, parent=context)
        if not hasattr(command, "list_commands"):
            return context
        words = [*getattr(context, "_protected_args", ()), *context.args]
        command = command.get_command(context, words[0]) or pytest.fail(f"there is no command {words[0]}")
        words = words[1:]


def options_of(words):
    """The options of the subcommand that words name, and the words that follow it."""
    command = COMMANDS
    words = list(words)
    while hasattr(command, "list_commands"):
        assert words, f"{command.name} needs a command"
        assert words[0] in command.commands, f"there is no command {words[0]}"
        command = command.commands[words.pop(0)]
    return {option for one in command.params for option in (*one.opts, *one.secondary_opts)}, words


@pytest.fixture
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.parametrize("block", [block for block in of("bash", "sh") if shown_commands(block.text)], ids=str)
def test_commands_in_blocks_parse_as_they_stand(block, at_root):
    for command in shown_commands(block.text.replace("\\\n", " ")):
        parsed(shlex.split(command)[1:])


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_commands_in_sentences_exist_with_all_their_options(page):
    for command in inline_commands(page):
        for _, *words in variants(command):
            if words[0].startswith("-"):
                continue
            known, rest = options_of(words)
            ours = rest[: rest.index("--")] if "--" in rest else rest
            unknown = [word for word in ours if word.startswith("-") and word not in (*known, "--help")]
            assert not unknown, f"{command} has no {unknown}"


@pytest.mark.parametrize("block", [block for block in of("yaml") if "apiVersion" not in block.text], ids=str)
def test_configs_load(block, at_root):
    content = yaml.safe_load(block.text)
    if "folder" in content:
        parse_config(content, TrainingRecipe, origin=block.page)
        return
    complete = {"store": "runs/x", "inputs": {"kind": "synthetic", "resolution": 6}, "steps": 40} | {
        "model": {"weights": {"kind": "checkpoint", "path": "weights.npz"}, "statistics": "stats"}
    }
    complete |= {} if content.get("inputs", {}).get("kind") == "datasets" else {"times": {"list": ["2020-01-01T00"]}}
    parse_config(content if "store" in content else complete | content, RunConfig, origin=block.page)


def test_the_page_of_exit_codes_has_all_of_them():
    codes = {
        int(code) for code in re.findall(r"^\| (\d+) \|", (DOCS / "reference" / "exit-codes.md").read_text(), re.M)
    }
    ours = {value for name, value in vars(Exit).items() if name.isupper()}
    assert codes == {0, *ours, WORK_LEFT}


@pytest.mark.skipif(find_spec("sphinx") is None, reason="sphinx is not installed; pip install '.[docs]'")
def test_the_documentation_builds_without_a_warning(tmp_path):
    words = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    told = subprocess.run([*words, DOCS, tmp_path / "html"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert not re.findall(
        r'(?:src|href)="https?://[^"]*\.(?:js|css|woff2?)"', (tmp_path / "html" / "index.html").read_text()
    )


def test_the_files_that_pages_name_exist():
    pages = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "RELEASING.md", DOCS / "guides" / "extending.md")
    named = {name for page in pages for name in NAMED.findall(page.read_text())} - {"docs/_build"}
    assert len(named) > 20
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


class Reader:
    """Somebody in an empty folder who types what a page shows, and compares what they see."""

    def __init__(self, folder, run):
        self.folder, self.run = folder, run

    def follow(self, page):
        told = ""
        for block in blocks(page):
            if block.language == "bash":
                told = "".join(self._type(command) for command in shown_commands(block.text))
            elif block.language == "text":
                missing = set(masked(block.text)) - set(masked(told))
                assert not missing, f"{block.page} claims {missing}, but it was\n{told}"
            elif block.language == "yaml":
                name = "hindcast.yaml"  # the only one that a reader writes
                (self.folder / name).write_text(block.text)
            elif block.language == "python":
                self.run_python(block)

    def _type(self, command):
        done = self.run(*shlex.split(command)[1:], cwd=self.folder, also=WIDE)
        assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
        return done.stdout

    def run_python(self, block):
        done = self.run(block.text, cwd=self.folder, also=WIDE, kind="python")
        assert done.returncode == 0, f"{block}\n{done.stderr}"


def of_its_own(*arguments, cwd, also, kind="command"):
    """Runs a command with a Ray of its own, or Python code, in a new process."""
    start = {"command": ["-m", "graphcast_batch"], "python": ["-c"]}[kind]
    words = [sys.executable, *start, *arguments]
    return subprocess.run(words, cwd=cwd, env=os.environ | also, capture_output=True, text=True, check=False)


def masked(text):
    lines = []
    for line in filter(None, map(str.strip, text.splitlines())):
        for pattern, word in MASKS:
            line = re.sub(pattern, word, line)
        lines.append(line.strip())
    return lines


@pytest.fixture(scope="module")
def reader(run_on_ray, tmp_path_factory):
    """Who has followed the quickstart."""
    found = Reader(tmp_path_factory.mktemp("reader"), run_on_ray)
    found.follow(DOCS / "quickstart.md")
    return found


def test_the_quickstart_does_what_it_says(reader):
    assert (reader.folder / "demo.html").stat().st_size > 10_000
    assert len(list((reader.folder / "runs" / "demo" / "figures").rglob("*.png"))) == 16


@pytest.mark.parametrize(
    "block", [block for block in of("python") if Path(block.page).stem not in ("quickstart", "tutorial")], ids=str
)
def test_python_on_other_pages_runs_after_the_quickstart(block, reader):
    reader.run_python(block)


@pytest.mark.slow
def test_the_quickstart_does_what_it_says_on_a_ray_of_its_own(tmp_path):
    Reader(tmp_path, of_its_own).follow(DOCS / "quickstart.md")
    assert len(list((tmp_path / "runs" / "demo" / "figures").rglob("*.png"))) == 16


@pytest.mark.slow
def test_the_tutorial_does_what_it_says(tmp_path):
    Reader(tmp_path, of_its_own).follow(DOCS / "tutorial.md")
    assert (tmp_path / "scores.csv").read_text().count("\n") > 1000
