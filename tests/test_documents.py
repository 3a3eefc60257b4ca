import math
import os
import socket
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from graphcast_batch.config.documents import as_yaml, read_lines, read_mapping
from graphcast_batch.config.loading import load_config
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.config.times_section import TimesConfig
from graphcast_batch.errors import ConfigError
from graphcast_batch.recipe import load_recipe

ROOT = Path(__file__).parents[1]


def read(tmp_path, text):
    (tmp_path / "a.yaml").write_text(f"key: {text}\n")
    return read_mapping(tmp_path / "a.yaml")["key"]


@pytest.mark.parametrize(
    ("text", "value"),
    # By hand from the core schema, YAML 1.2.2 section 10.3.2; what it does not name is text.
    [
        *[("1:30", "1:30"), ("190:20:30.15", "190:20:30.15"), ("010", 10), ("-08", -8), ("0o17", 15), ("0x1F", 31)],
        *[("0b11", "0b11"), ("1_000", "1_000"), ("1e3", 1000.0), ("3e-7", 3e-7), (".5", 0.5), ("1.", 1.0)],
        *[("+12", 12), ("-.inf", -math.inf), ("yes", "yes"), ("No", "No"), ("on", "on"), ("off", "off"), ("y", "y")],
        *[("true", True), ("FALSE", False), ("null", None), ("~", None), ("", None), ("=", "=")],
        *[("2020-01-01", "2020-01-01"), ("2020-01-01T00:00:00", "2020-01-01T00:00:00"), ("1.2.3", "1.2.3")],
    ],
)
def test_plain_words_are_read_as_yaml_1_2_says(tmp_path, text, value):
    found = read(tmp_path, text)

    assert (type(found), found) == (type(value), value)


def run_config(tmp_path, old, new):
    text = (ROOT / "configs/demo.yaml").read_text()
    assert old in text
    (tmp_path / "run.yaml").write_text(text.replace(old, new))
    return tmp_path / "run.yaml"


def test_a_number_in_base_60_or_with_a_leading_0_is_what_a_person_reads(tmp_path):
    with pytest.raises(ConfigError, match=r"steps: Input should be a valid integer, but is '1:30'"):
        load_config(run_config(tmp_path, "steps: 8", "steps: 1:30"))

    assert load_config(run_config(tmp_path, "steps: 8", "steps: 010")).steps == 10


def test_a_word_for_a_truth_value_is_refused_with_the_one_to_write(tmp_path):
    with pytest.raises(ConfigError, match=r"strip: Input should be a valid boolean, but is 'yes'; write true"):
        load_config(run_config(tmp_path, "levels: [500]", "levels: [500]\n  strip: yes"))


def test_off_is_a_word_and_dates_are_times(tmp_path):
    config = load_config(run_config(tmp_path, "steps: 8", "steps: 8\ncache: off\nlimits: off"))

    assert (config.cache, config.limits) == ("off", "off")
    assert parse_config({"list": [read(tmp_path, "2020-01-01")]}, TimesConfig, origin="here").list[0].isoformat() == (
        "2020-01-01T00:00:00"
    )


def test_a_recipe_reads_numbers_alike(tmp_path):
    text = (ROOT / "configs/training/planet.yaml").read_text()
    (tmp_path / "a.yaml").write_text(text.replace("\nbatch: ", "\nbatch: 1:3"))

    with pytest.raises(ConfigError, match="batch: Input should be a valid integer, but is '1:3"):
        load_recipe(tmp_path / "a.yaml")


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])),
        st.one_of(
            st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])),
            st.from_regex(r"[-+.0-9eExXo:_~]{0,8}", fullmatch=True),
            st.sampled_from(["yes", "off", "1e3", "08", "0o7", "1:30", "2020-01-01", "null", "<<", "=", ".inf"]),
            st.integers(),
            st.floats(allow_nan=False),
            st.booleans(),
        ),
    )
)
def test_what_is_written_is_read_back_by_yaml_1_1_and_1_2(content):
    text = as_yaml(content)
    with NamedTemporaryFile("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        assert read_mapping(Path(file.name)) == content == yaml.safe_load(text)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, make_socket])
def test_what_is_no_file_is_refused_by_name_before_it_is_opened(tmp_path, make, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket has at most 107 characters
    make(Path("odd"))

    what = r"odd must be a file, but is a (named pipe \(FIFO\)|folder|socket)"
    for load in (load_config, load_recipe):
        with pytest.raises(ConfigError, match=what):
            load(Path("odd"))
    with pytest.raises(ConfigError, match=what):
        parse_config({"file": "odd"}, TimesConfig, origin="here")
    with pytest.raises(ValueError, match=what):
        read_lines(Path("odd"))


def test_a_syntax_error_is_told_by_its_place_without_what_stands_there(tmp_path):
    (tmp_path / "a.yaml").write_text("storage:\n  secret_access_key: hunter2: 'x\n")

    with pytest.raises(ConfigError, match="line 2, column") as caught:
        read_mapping(tmp_path / "a.yaml")

    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_config_given_as_values_of_another_yaml_library_may_say_off_as_false():
    content = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text()) | {"cache": False, "limits": False}

    config = parse_config(content, RunConfig, origin="here")

    assert (config.cache, config.limits) == ("off", "off")
