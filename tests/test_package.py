"""What is published: an archive of the sources that tests and documents itself, and a wheel that needs no checkout."""

import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import graphcast_batch as gb
from graphcast_batch.app.demo import demo_config, write_examples
from graphcast_batch.cli import main
from graphcast_batch.errors import ConfigError
from tests.conftest import ROOT

WEIGHTS, STATISTICS = Path("stats", "synthetic", "weights.npz"), Path("stats", "synthetic")
TRIED = ("remote", "grib", "parquet")
"""Extras whose lowest versions are in tests/lowest.txt."""
NOT_IN_SDIST = {".ci/run", ".gitignore"}
"""Files of the repository that neither the package nor its tests or pages need; and all of .github."""


@pytest.fixture(scope="module")
def build_script():
    """The functions of setup.py."""
    pytest.importorskip("setuptools", reason="setuptools is not installed; pip install '.[test]'")
    spec = importlib.util.spec_from_file_location("build_script", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def contents(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# --- the example files


def test_the_example_files_are_those_of_the_checkout(tmp_path, build_script):
    written = write_examples(tmp_path)

    found = contents(tmp_path)
    assert set(written) == {tmp_path / name for name in found}
    assert sorted(found) == build_script.example_files(ROOT)
    assert {name: (ROOT / name).read_bytes() for name in found} == found
    assert {Path("configs/demo.yaml"), Path("slurm/ray.sbatch"), WEIGHTS} <= set(found)


def test_the_demo_is_configs_demo_yaml_in_the_given_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = demo_config("here")

    monkeypatch.chdir(tmp_path / "here")  # where a person would run it
    assert config == gb.plan("configs/demo.yaml").config
    assert config.store == tmp_path / "here" / "runs" / "demo"
    assert config.model.weights.path == tmp_path / "here" / WEIGHTS
    assert config.model.statistics == tmp_path / "here" / STATISTICS


def test_example_files_are_written_once(tmp_path):
    written = write_examples(tmp_path)
    times = [file.stat().st_mtime_ns for file in written]
    written[0].unlink()

    again = write_examples(tmp_path)

    assert again == written
    assert [file.stat().st_mtime_ns for file in again][1:] == times[1:]


def test_a_file_that_somebody_changed_is_kept_and_nothing_written(tmp_path):
    mine = tmp_path / "configs" / "demo.yaml"
    mine.parent.mkdir()
    mine.write_text("store: mine\n")

    with pytest.raises(ConfigError, match=re.escape(str(mine))):
        write_examples(tmp_path)
    assert contents(tmp_path) == {Path("configs/demo.yaml"): b"store: mine\n"}


def test_the_command_writes_the_example_files_alone(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["demo", str(tmp_path / "here"), "--files-only"])

    assert ended.value.code == 0
    found = contents(tmp_path / "here")
    assert re.search(rf"\b{len(found)}\b.*{re.escape(str(tmp_path / 'here'))}$", capsys.readouterr().out)
    assert not (tmp_path / "here" / "runs").exists()


# --- metadata


def test_the_version_stands_in_one_place_and_in_the_citation():
    from importlib.metadata import version

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert gb.__version__ == version("graphcast-batch") == citation["version"]


def test_the_versions_that_are_tried_together_are_the_lower_bounds():
    lines = (ROOT / "tests" / "lowest.txt").read_text().split()
    tried = {canonicalize_name(name): Version(number) for name, _, number in (line.partition("==") for line in lines)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    bounded = [Requirement(text) for text in (*project["dependencies"], *chain(*(extras[name] for name in TRIED)))]
    for requirement in bounded:
        (bound,) = requirement.specifier
        assert bound.operator == ">="
        assert tried[canonicalize_name(requirement.name)].release[: len(bound.version.split("."))] == tuple(
            map(int, bound.version.split("."))
        ), requirement


@pytest.mark.parametrize(
    ("source", "linked", "pictured"),
    [
        (
            "https://example.org/gb/",
            "[guides](https://example.org/gb/blob/v1/docs/a.md)",
            "![a map](https://example.org/gb/raw/v1/docs/a.png)",
        ),
        (None, "guides", "*Picture: a map*"),
    ],
)
def test_relative_links_hold_away_from_the_repository(build_script, source, linked, pictured):
    code = "```py\nfields[0](x)\n```"
    paper = "[paper](https://doi.org/10.1)"

    told = build_script.index_readme(f"[guides](docs/a.md) ![a map](docs/a.png) {paper}\n\n{code}\n", source, "v1")

    assert told == f"{linked} {pictured} {paper}\n\n{code}\n"


def test_a_link_within_the_page_leads_to_the_page_of_the_release(build_script):
    text = build_script.index_readme("[Training](#training)", "https://example.org/gb", "v1")
    assert text == "[Training](https://example.org/gb/blob/v1/README.md#training)"


# --- what is built


@dataclass(frozen=True)
class Built:
    """What ``python -m build`` makes: the sources, and a wheel of those sources."""

    sdist: Path
    wheel: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """With the setuptools of the tests, so that nothing is downloaded."""
    folder = tmp_path_factory.mktemp("dist")
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return Built(next(folder.glob("*.tar.gz")), next(folder.glob("*.whl")))


@pytest.fixture(scope="module")
def tracked():
    """Paths of all files under version control."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout:
        pytest.skip("this is not a clone")
    return {name for name in done.stdout.splitlines() if (ROOT / name).exists()}


@pytest.mark.slow
def test_the_sources_hold_what_the_repository_holds(built, tracked):
    with tarfile.open(built.sdist) as archive:
        held = {member.name.partition("/")[2] for member in archive if member.isfile()}
    wanted = {name for name in tracked if name not in NOT_IN_SDIST and not name.startswith(".github/")}
    assert not wanted - held
    made = {name for name in held - tracked if ".egg-info/" not in name and "/examples/" not in name}
    assert {name for name in made if not name.startswith(("tests/", "docs/"))} <= {"PKG-INFO", "setup.cfg"}


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_the_example_files(built, tracked, build_script):
    with zipfile.ZipFile(built.wheel) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
        examples = {f"graphcast_batch/examples/{file}": ROOT / file for file in build_script.example_files(ROOT)}
        assert held == {name for name in tracked if name.startswith("graphcast_batch/")} | set(examples)
        assert all(wheel.read(name) == file.read_bytes() for name, file in examples.items())


@pytest.mark.slow
def test_an_index_would_take_it_and_its_page_has_no_link_that_leads_nowhere(built):
    words = [sys.executable, "-m", "twine", "check", "--strict", built.sdist, built.wheel]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    with zipfile.ZipFile(built.wheel) as wheel:
        page = next(wheel.read(name).decode() for name in wheel.namelist() if name.endswith("/METADATA"))
    assert "# graphcast-batch" in page
    assert not re.findall(r"\]\((?!https?://)[\w#./-]+\)", page)


@pytest.mark.slow
def test_the_sources_test_and_document_themselves(built, tmp_path):
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = next(tmp_path.iterdir())
    for words in (
        ["-c", "import graphcast_batch as gb, pathlib as p; assert p.Path(gb.__file__).parents[1] == p.Path.cwd()"],
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_plan.py", "tests/cli/test_start.py"],
        ["-m", "sphinx", "-W", "-q", "-b", "html", "docs", "pages"],
    ):
        done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "pages" / "index.html").exists()


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The folder of commands of an environment that has the wheel, and what it requires from that of the tests."""
    place = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    python = place / "bin" / "python"
    words = [python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", built.wheel]
    subprocess.run(words, check=True)
    site = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    required = [folder for folder in sys.path if folder.endswith("site-packages")]
    Path(site.strip(), "requirements.pth").write_text("\n".join(required))
    return place / "bin"


@pytest.mark.slow
def test_the_wheel_runs_the_demo_in_an_empty_folder(installed, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}

    def call(*words):
        return subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    where = call(installed / "python", "-c", "import graphcast_batch as gb; print(gb.__file__)").stdout
    assert where.startswith(str(installed.parent)), where

    done = call(installed / "graphcast-batch", "demo")

    assert done.returncode == 0, done.stdout + done.stderr
    store = tmp_path / "graphcast-batch-demo" / "runs" / "demo"
    assert f"store: {store}\n" in done.stdout
    assert len(list((store / "figures").rglob("*.png"))) == 16
    again = call(
        installed / "python",
        "-c",
        "import graphcast_batch as gb\n"
        "if __name__ == '__main__':\n"
        "    outcome = gb.demo()\n"
        "    print(outcome.succeeded, len(outcome.complete), len(outcome.made))",
    )
    assert again.stdout.splitlines()[-1:] == ["True 4 0"], again.stdout + again.stderr
