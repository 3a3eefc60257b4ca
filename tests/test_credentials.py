"""Secrets of a config: what is written and printed refers to them, and whoever reads data has them."""

import pickle
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import starmap
from urllib.parse import quote, unquote, urlsplit

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from graphcast_batch import credentials
from graphcast_batch.config.inputs_section import ArchiveInputs
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.credentials import bare, scrubbed, secrets_of, without_secrets
from graphcast_batch.errors import ConfigError, InputError
from graphcast_batch.inputs.formats.opening import open_data
from graphcast_batch.inputs.formats.remote import Access
from graphcast_batch.inputs.sources.configured import open_source
from graphcast_batch.setup.synthetic_archive import synthetic_archive
from graphcast_batch.variables import LEVELS_13
from tests.conftest import SMALL

USER, SIGNATURE, KEY, SECRET = "alice:hunter2hunter2", "s1gn4tur3%2Bab", "AKIAPARROT", "p0llyp4rrot"
SECRETS = ("hunter2hunter2", "s1gn4tur3", KEY, SECRET)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    """As in a process that has read no config yet."""
    monkeypatch.setattr(credentials, "_known", {})


def archive(**changes):
    return parse_config({"kind": "archive"} | changes, ArchiveInputs, origin="here")


@pytest.mark.parametrize(
    ("address", "shown", "identity"),
    [
        ("/data/${X}/a?b.nc", "/data/${X}/a?b.nc", "/data/${X}/a?b.nc"),
        ("https://h/a.zarr?file=1#x", "https://h/a.zarr?file=1#x", "https://h/a.zarr?file=1#x"),
        ("https://h:8080/@x/a", "https://h:8080/@x/a", "https://h:8080/@x/a"),
        ("abfss://box@acc.dfs.core.windows.net/a", *2 * ["abfss://box@acc.dfs.core.windows.net/a"]),
        ("sftp://me@h/a", "sftp://me@h/a", "sftp://me@h/a"),
        ("https://u:p@h/a", "https://${GRAPHCAST_BATCH_H_USERINFO}@h/a", "https://h/a"),
        ("https://u:p@:| w@h/a", "https://${GRAPHCAST_BATCH_H_USERINFO}@h/a", "https://h/a"),
        ("https://token@h/a", "https://${GRAPHCAST_BATCH_H_USERINFO}@h/a", "https://h/a"),
        ("s3://AKIA:a/b@own/a", "s3://${GRAPHCAST_BATCH_OWN_USERINFO}@own/a", "s3://own/a"),
        ("https://u:${PW}@h/a", "https://u:${PW}@h/a", "https://h/a"),
        ("x::ftp://u:p@h/a", "x::ftp://${GRAPHCAST_BATCH_H_USERINFO}@h/a", "x::ftp://h/a"),
        ("https://h/a?sv=1&f=2&sig=3&se=4", "https://h/a?f=2&${GRAPHCAST_BATCH_H_QUERY}", "https://h/a?f=2"),
        ("https://h/a?sv=1", "https://h/a?sv=1", "https://h/a?sv=1"),
        ("https://h/a?X-Amz-Date=1&X-Amz-Signature=2", "https://h/a?${GRAPHCAST_BATCH_H_QUERY}", "https://h/a"),
        *(
            (f"https://h/a?f=2&{name}=1", "https://h/a?f=2&${GRAPHCAST_BATCH_H_QUERY}", "https://h/a?f=2")
            for name in ("access", "code", "sas", "sig", "api_key", "ticket")
        ),
        ("https://h/a?f=2#token=1", "https://h/a?f=2#${GRAPHCAST_BATCH_H_QUERY}", "https://h/a?f=2"),
        ("https://h/a?access_token=${T}", "https://h/a?access_token=${T}", "https://h/a"),
    ],
)
def test_an_address_is_shown_without_its_secrets_and_is_the_same_archive_with_others(address, shown, identity):
    assert without_secrets(address) == shown == without_secrets(shown)
    assert bare(address) == bare(shown) == identity


@given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
def test_what_is_kept_apart_comes_back_as_it_was(user, password, signature):
    address = f"https://{quote(user, '')}:{quote(password, '')}@host/a.zarr?f=1&sig={quote(signature, '')}"

    shown = without_secrets(address)

    secrets = secrets_of([shown])
    assert credentials.revealed(shown, secrets) == address
    assert address not in scrubbed(f"error at {address}!")


def test_of_options_only_those_that_are_surely_no_secrets_are_shown():
    options = {
        "endpoint": "http://u:p@h",
        "region": "eu",
        "secret_access_key": SECRET,
        "unheard_of": "x",
        "aws_region": "eu",
        "use_ssl": "true",
    }

    inputs = archive(path="s3://own/a.zarr", storage=options)

    assert inputs.storage == {
        "endpoint": "http://${GRAPHCAST_BATCH_H_USERINFO}@h",
        "region": "eu",
        "aws_region": "eu",
        "secret_access_key": "${GRAPHCAST_BATCH_OWN_SECRET_ACCESS_KEY}",
        "unheard_of": "${GRAPHCAST_BATCH_OWN_UNHEARD_OF}",
        "use_ssl": "true",
    }
    shown = inputs.model_dump(mode="json")["storage"]
    assert bare({"storage": shown}) == bare({"storage": options})
    assert bare({"storage": shown}) == {"storage": {"endpoint": "http://h", "region": "eu", "aws_region": "eu"}}


def test_two_secrets_for_one_place_have_two_names():
    shown = [without_secrets(f"https://u:{word}@h/a") for word in ("one", "two", "one")]

    assert shown[0] == shown[2] != shown[1]
    assert set(secrets_of(shown).values()) == {"u:one", "u:two"}


def test_a_reference_is_taken_from_the_environment_and_what_is_absent_is_named(monkeypatch):
    inputs = archive(path="s3://own/a.zarr", storage={"secret_access_key": "${MY_SECRET}"})

    with pytest.raises(ConfigError, match="environment must hold MY_SECRET, which the inputs refer to, but does"):
        open_source(inputs, LEVELS_13)
    monkeypatch.setenv("MY_SECRET", SECRET)
    assert secrets_of(inputs.storage.values()) == {"MY_SECRET": SECRET}


@pytest.mark.parametrize(
    "inputs",
    [
        {"kind": "archive", "path": f"https://{USER}@h/a", "storage": {"secret_access_key": ["p0llyp4rrot"]}},
        {"kind": "archive", "path": f"https://{USER}@h/a", "storage": "p0llyp4rrot"},
        {"kind": "archive", "path": f"https://{USER}@h/a", "color": SECRET, "regrid": f"https://{USER}@h"},
        {"kind": "synthetic", "resolution": f"https://{USER}@h/a?sig={SIGNATURE}"},
    ],
)
def test_a_config_that_does_not_fit_is_told_of_without_its_secrets(inputs, tmp_path):
    with pytest.raises(ConfigError) as caught:
        parse_config(SMALL | {"store": f"https://{USER}@h/store", "inputs": inputs}, RunConfig, origin="here")

    for text in (str(caught.value), str(caught.value.__cause__)):
        assert not any(secret in text for secret in SECRETS), text


class Handler(BaseHTTPRequestHandler):
    """A server of files for those who have the signature, or the key."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        parts, root, allowed = urlsplit(self.path), *self.server.known
        path = root / unquote(parts.path).lstrip("/")
        given = f"{parts.query} {self.headers.get('Authorization', '')}"
        status = 403 if not any(each in given for each in allowed) else 200 if path.is_file() else 404
        content = path.read_bytes() if status == 200 else b""
        self.send_response(status)
        for name, value in (("Content-Length", len(content)), ("ETag", '"1"')):
            self.send_header(name, str(value))
        self.send_header("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815  # the name that http.server calls

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    """The address of a server that holds ``own/planet.zarr`` for those who may read it."""
    pytest.importorskip("obstore", reason="the extra remote is not installed")
    root = tmp_path_factory.mktemp("web")
    (root / "own").mkdir()
    times = np.arange("2020-01-01T00", "2020-01-01T19", 6, "datetime64[h]").astype("datetime64[ns]")
    synthetic_archive(root / "own" / "planet.zarr", 30, LEVELS_13, times, 0, starmap)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.known = root, [f"sig={SIGNATURE}", f"Credential={KEY}", "sig=renewed"]
    threading.Thread(target=server.serve_forever).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def far(web, signature=SIGNATURE, user=USER):
    return {"kind": "archive", "path": f"http://{user}@{web}/own/planet.zarr?sig={signature}"}


def in_bucket(web, secret=SECRET):
    storage = {"endpoint": f"http://{web}", "region": "us-east-1", "access_key_id": KEY, "secret_access_key": secret}
    return {"kind": "archive", "path": "s3://own/planet.zarr", "storage": storage}


def test_another_process_reads_with_what_it_was_sent(web):
    for inputs in (far(web), in_bucket(web)):
        source = open_source(archive(**inputs), LEVELS_13)
        assert not any(secret in f"{source.origin} {source.volumes}" for secret in SECRETS)
        sent = pickle.dumps(source)
        credentials._known.clear()

        found = pickle.loads(sent).fields(("2m_temperature",), source.times[:1], ())

        assert found["2m_temperature"].shape == (1, 7, 12)


@pytest.mark.parametrize("host", ["127.0.0.1:1", None])
def test_an_error_of_reading_tells_no_secrets_nor_does_its_traceback(web, host):
    import traceback

    access = Access(options=(("connect_timeout", "100ms"),), secrets=(("U", USER), ("Q", "sig=s1gn4tur3-no")))

    with pytest.raises(InputError) as caught, open_data(f"http://${{U}}@{host or web}/a.zarr?${{Q}}", access):
        pass

    assert "http://${U}@" in str(caught.value)
    assert not any(secret in "".join(traceback.format_exception(caught.value)) for secret in SECRETS)


def test_a_store_of_old_that_holds_secrets_is_compatible_with_a_config_that_keeps_them_apart(web):
    raw = ArchiveInputs.model_construct(**in_bucket(web)).model_dump(mode="json")

    assert bare(raw) == bare(archive(**in_bucket(web, secret="another")).model_dump(mode="json"))


@pytest.mark.slow
def test_nothing_that_commands_write_or_print_holds_a_secret(web, command, small_config, tmp_path):
    """Through the public door: run, evaluate, figures of scores, report, submit, and again with other secrets."""
    changes = {"times": {"list": ["2020-01-01T06"]}, "steps": 1, "workers": SMALL["workers"] | {"count": 1}}
    config = small_config(inputs=far(web), scores={"truth": in_bucket(web)}, **changes)
    renewed = small_config(
        "renewed", inputs=far(web, "renewed&se=9", "bob:0ther"), store=str(tmp_path / "run"), **changes
    )
    store, told = tmp_path / "run", []

    def call(*arguments, code=0, **options):
        done = command(*arguments, **options)
        told.append(done.stdout + done.stderr)
        assert done.returncode == code, told[-1]
        return told[-1]

    call("run", config)
    assert re.search(r"complete +1\b", call("plan", renewed))
    asked = call("evaluate", store, code=2)
    names = re.search(r"must hold (.*), which the", asked)[1].split(", ")
    assert names == ["GRAPHCAST_BATCH_OWN_ACCESS_KEY_ID", "GRAPHCAST_BATCH_OWN_SECRET_ACCESS_KEY"]
    assert "1 scored now" in call("evaluate", store, also=dict(zip(names, (KEY, SECRET), strict=True)))
    call("report", store, "--out", tmp_path / "report.html")
    call("submit", config, "--dry-run", "--gpus-per-node", "0")
    call("status", store)
    call("verify", store)

    written = [path for path in tmp_path.rglob("*") if path.is_file() and path not in (config, renewed)]
    assert {"zarr.json", "run.yaml", "report.html"} <= {path.name for path in written}
    contents = {str(path): path.read_bytes() for path in written} | dict(enumerate(text.encode() for text in told))
    found = [(where, secret) for where, content in contents.items() for secret in SECRETS if secret.encode() in content]
    assert not found
    kept = yaml.safe_load((store / "run.yaml").read_text())
    assert kept["scores"]["truth"]["storage"]["secret_access_key"] == "${GRAPHCAST_BATCH_OWN_SECRET_ACCESS_KEY}"
