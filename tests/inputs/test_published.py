"""Files are fetched from a real server on this machine, which may cut, change, refuse and lie."""

import base64
import hashlib
import json
import re
import resource
import tempfile
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcast_batch.errors import InputError, InputNotFoundError
from graphcast_batch.inputs.downloads import published, transfer
from graphcast_batch.inputs.downloads.catalog import KNOWN, Published, license
from graphcast_batch.inputs.downloads.published import RECORD, fetch, find, listing

ROOT = Path(__file__).parents[2]
CONTENT = bytes(range(256)) * 20
FILE = Published("sample", "source-fake_date-2000-01-01_res-6.0_levels-13_steps-01.nc")
PLACE = f"/dataset/{FILE.file}"


@dataclass
class Site:
    """What a server has and how it misbehaves: ``cuts`` says after how many bytes each next answer breaks off."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=lambda: {PLACE: CONTENT})
    kind: str = "application/octet-stream"
    ranges: bool = True
    heeds_if_range: bool = True
    early: int = 0
    tells_size: bool = True
    tag: str = '"{}"'
    md5: str | None = None
    redirect: dict[str, str] = field(default_factory=dict)
    statuses: deque[int] = field(default_factory=deque)
    cuts: deque[int] = field(default_factory=deque)
    silence: threading.Event | None = None
    asked: list[str | None] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        site, place = self.server.site, unquote(urlsplit(self.path).path)
        site.asked.append(self.headers["Range"])
        if site.silence and not site.silence.wait(10):
            return
        status = site.statuses.popleft() if site.statuses else 200 if place in site.files else 404
        if place in site.redirect:
            self.send_response(302)
            self.send_header("Location", site.redirect[place])
            self.end_headers()
        elif status != 200:
            self.send_error(status)
        else:
            self.answer(site, site.files[place])

    def answer(self, site, content):
        tag = site.tag.format(hashlib.md5(content).hexdigest())
        same = self.headers["If-Range"] == tag or not site.heeds_if_range
        start = 0
        if site.ranges and self.headers["Range"] and same:
            asked = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1])
            if asked >= len(content):
                self.send_error(416)
                return
            start = min(max(asked - site.early, 0), len(content) - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if tag:
            self.send_header("ETag", tag)
        if site.tells_size:
            self.send_header("Content-Length", str(len(content) - start))
        if site.md5 is not None:
            self.send_header("x-goog-hash", "crc32c=AAAAAA==")
            self.send_header("x-goog-hash", f"md5={site.md5}")
        self.send_header("Content-Type", site.kind)
        self.end_headers()
        sent = content[start:]
        with suppress(ConnectionError):  # the other side did not wait
            self.wfile.write(sent[: site.cuts.popleft()] if site.cuts else sent)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(scope="module", autouse=True)
def impatient():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "_PAUSE_SECONDS", 0.0)
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            patch.delenv(name, raising=False)
        yield


def open_site(server, **how):
    server.site = Site(address=f"http://127.0.0.1:{server.server_address[1]}", **how)
    return server.site


@pytest.fixture
def site(server):
    return open_site(server)


def bring(site, folder, file=FILE):
    return fetch(file, folder, lambda here, of: None, site.address)


def md5_base64(content):
    return base64.b64encode(hashlib.md5(content).digest()).decode()


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_with_a_record_of_its_origin(site, tmp_path):
    fetched = bring(site, tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert (folder / FILE.file).read_bytes() == CONTENT
    assert left_in(folder) == [RECORD, FILE.file]
    kept = json.loads((folder / RECORD).read_text())[FILE.file]
    assert kept == fetched.model_dump()
    assert kept["url"] == f"{site.address}{PLACE}"
    assert kept["bytes"] == len(CONTENT)
    assert kept["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert kept["license"] == "CC-BY-4.0"
    assert kept["date"].endswith("+00:00")


def test_progress_ends_with_all_bytes(site, tmp_path):
    told = []
    fetch(FILE, tmp_path, lambda here, of: told.append((here, of)), site.address)
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert told == sorted(told)


@given(
    content=st.binary(max_size=600),
    cuts=st.lists(st.integers(0, 300), max_size=3),
    ranges=st.booleans(),
    tag=st.sampled_from(['"{}"', 'W/"{}"', ""]),
    early=st.integers(-20, 50),
)
@settings(max_examples=60, deadline=None)
def test_a_file_cut_at_any_byte_is_identical_in_the_end(server, content, cuts, ranges, tag, early):
    site = open_site(server, files={PLACE: content}, cuts=deque(cuts), ranges=ranges, tag=tag, early=early)
    with tempfile.TemporaryDirectory() as folder:
        bring(site, Path(folder))
        assert (Path(folder) / FILE.file).read_bytes() == content
        assert left_in(Path(folder)) == [RECORD, FILE.file]


def test_after_a_cut_only_the_rest_is_asked_for(site, tmp_path):
    site.cuts.extend([1000, 2000])
    bring(site, tmp_path)
    assert site.asked == [None, "bytes=1000-", "bytes=3000-"]


def test_tries_do_not_run_out_while_each_brings_more(site, tmp_path):
    site.cuts.extend([100] * 20)
    bring(site, tmp_path)
    assert (tmp_path / FILE.file).read_bytes() == CONTENT


@pytest.mark.parametrize("tag", ['W/"{}"', ""])
def test_without_a_strong_tag_nothing_is_resumed(site, tmp_path, tag):
    site.tag = tag
    site.cuts.append(1000)
    bring(site, tmp_path)
    assert site.asked == [None, None]


def give_up(site, folder, kept):
    """Leaves a part of the first `kept` bytes behind."""
    site.cuts.extend([kept, 0, 0, 0])
    with pytest.raises(InputError, match=r"in 4 attempts: it broke off .* \d+ bytes that arrived are kept"):
        bring(site, folder)
    assert (folder / f"{FILE.file}.part").read_bytes() == site.files[PLACE][:kept]
    assert not (folder / FILE.file).exists()
    site.asked.clear()


def test_a_part_of_an_earlier_run_is_taken_up_again(site, tmp_path):
    give_up(site, tmp_path, 1234)
    bring(site, tmp_path)
    assert site.asked == ["bytes=1234-"]
    assert (tmp_path / FILE.file).read_bytes() == CONTENT


def test_a_part_that_was_whole_already_is_only_verified(site, tmp_path):
    give_up(site, tmp_path, 1234)
    (tmp_path / f"{FILE.file}.part").write_bytes(CONTENT)
    bring(site, tmp_path)
    assert site.asked == []
    assert (tmp_path / FILE.file).read_bytes() == CONTENT


@pytest.mark.parametrize("longer", [False, True])
@pytest.mark.parametrize("ranges", [False, True])
@pytest.mark.parametrize("heeds_if_range", [False, True])
def test_a_file_that_changed_is_never_spliced(site, tmp_path, longer, ranges, heeds_if_range):
    give_up(site, tmp_path, 1234)
    site.files[PLACE] = CONTENT[::-1] * (2 if longer else 1)
    site.ranges, site.heeds_if_range = ranges, heeds_if_range
    bring(site, tmp_path)
    assert (tmp_path / FILE.file).read_bytes() == site.files[PLACE]


@pytest.mark.parametrize("early", [-10, 10])
def test_a_server_that_begins_elsewhere_than_asked_does_no_harm(site, tmp_path, early):
    site.cuts.append(1000)
    site.early = early
    bring(site, tmp_path)
    assert (tmp_path / FILE.file).read_bytes() == CONTENT


def test_a_part_that_is_longer_than_the_file_is_not_used(site, tmp_path):
    give_up(site, tmp_path, 1234)
    (tmp_path / f"{FILE.file}.part").write_bytes(CONTENT + b"x")
    bring(site, tmp_path)
    assert (tmp_path / FILE.file).read_bytes() == CONTENT


def test_a_part_without_its_note_or_from_elsewhere_is_not_used(site, tmp_path):
    give_up(site, tmp_path, 1234)
    note = tmp_path / f"{FILE.file}.part.json"
    for damaged in (note.read_text().replace("127.0.0.1", "127.0.0.2"), "{"):
        note.write_text(damaged)
        give_up(site, tmp_path, 77)
    note.unlink()
    bring(site, tmp_path)
    assert site.asked == [None]
    assert (tmp_path / FILE.file).read_bytes() == CONTENT


def test_what_is_there_whole_is_neither_fetched_nor_recorded_again(site, tmp_path):
    first = bring(site, tmp_path)
    record = tmp_path / RECORD
    record.write_text(record.read_text().replace(first.date, "2020-01-01T00:00:00+00:00"))
    site.files.clear()
    assert bring(site, tmp_path).date == "2020-01-01T00:00:00+00:00"
    assert len(site.asked) == 1


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"x" + content[1:]])
def test_what_is_there_damaged_is_fetched_again(site, tmp_path, damage):
    bring(site, tmp_path)
    (tmp_path / FILE.file).write_bytes(damage(CONTENT))
    bring(site, tmp_path)
    assert (tmp_path / FILE.file).read_bytes() == CONTENT


def test_a_copy_by_hand_of_a_file_with_a_known_sum_is_recorded_without_asking(site, tmp_path):
    known = Published("stats", "mean_by_level.nc", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    (tmp_path / known.file).write_bytes(CONTENT)
    assert bring(site, tmp_path, known).sha256 == known.sha256
    assert site.asked == []
    assert left_in(tmp_path) == [RECORD, known.file]


def test_two_files_have_two_entries(site, tmp_path):
    other = Published("stats", "mean_by_level.nc")
    site.files["/stats/mean_by_level.nc"] = b"other"
    bring(site, tmp_path)
    bring(site, tmp_path, other)
    assert set(json.loads((tmp_path / RECORD).read_text())) == {FILE.file, other.file}


def test_two_at_once_fetch_once(site, tmp_path):
    site.silence = threading.Event()
    both = [threading.Thread(target=bring, args=(site, tmp_path)) for _ in range(2)]
    for one in both:
        one.start()
    site.silence.set()
    for one in both:
        one.join()
    assert len(site.asked) == 1
    assert (tmp_path / FILE.file).read_bytes() == CONTENT


def test_the_sum_that_the_server_tells_must_hold(site, tmp_path):
    site.md5 = md5_base64(b"something else")
    with pytest.raises(InputError, match=r"must have the checksum .* was removed; run again"):
        bring(site, tmp_path)
    assert left_in(tmp_path) == [f"{FILE.file}.part.json"]
    site.md5 = md5_base64(CONTENT)
    bring(site, tmp_path)
    assert left_in(tmp_path) == [RECORD, FILE.file]


def test_a_known_sum_must_hold(site, tmp_path):
    known = Published("sample", FILE.file, len(CONTENT), "0" * 64)
    with pytest.raises(InputError, match=r"must have the checksum 0{64}, but the downloaded file has [0-9a-f]{64}"):
        bring(site, tmp_path, known)
    assert not (tmp_path / FILE.file).exists()


def test_a_file_of_another_size_is_refused_before_it_is_read(site, tmp_path):
    with pytest.raises(InputError, match="must have 7 bytes, as published, but has 5120; another file is in its place"):
        bring(site, tmp_path, Published("sample", FILE.file, 7))
    assert left_in(tmp_path) == []


def test_a_log_in_page_is_not_taken_for_a_file(site, tmp_path):
    site.redirect[PLACE] = "/login"
    site.files["/login"] = b"<html>"
    site.kind = "text/html; charset=utf-8"
    with pytest.raises(InputError, match=r"must be a file, but http://.*/login answered with a web page"):
        bring(site, tmp_path)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("status", "error", "match"),
    [
        (404, InputNotFoundError, r"there is no http://.* \(HTTP 404\); list the published files"),
        (410, InputNotFoundError, r"HTTP 410"),
        (401, InputError, r"is refused \(HTTP 401 .*login"),
        (403, InputError, r"is refused \(HTTP 403"),
        (407, InputError, r"is refused \(HTTP 407 .*proxy"),
    ],
)
def test_a_refusal_is_told_at_once_and_the_part_is_kept(site, tmp_path, status, error, match):
    give_up(site, tmp_path, 1234)
    site.statuses.append(status)
    with pytest.raises(error, match=match) as caught:
        bring(site, tmp_path)
    assert type(caught.value) is error
    assert len(site.asked) == 1
    assert (tmp_path / f"{FILE.file}.part").read_bytes() == CONTENT[:1234]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_in_trouble_is_asked_again(site, tmp_path, status):
    site.statuses.extend([status] * 3)
    bring(site, tmp_path)
    assert (tmp_path / FILE.file).read_bytes() == CONTENT


def test_a_server_that_stays_in_trouble_is_given_up(site, tmp_path):
    site.statuses.extend([503] * 4)
    with pytest.raises(InputError, match=r"4 attempts: HTTP 503 .*login node or copy from a folder with --mirror"):
        bring(site, tmp_path)


def test_without_network_the_error_says_what_to_do(tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as gone:
        address = f"http://127.0.0.1:{gone.server_address[1]}"
    with pytest.raises(InputError, match=r"no connection: .*refused.*fetch on a login node"):
        fetch(FILE, tmp_path, lambda here, of: None, address)


def test_a_silent_server_is_given_up(site, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "_TIMEOUT_SECONDS", 0.05)
    site.silence = threading.Event()
    with pytest.raises(InputError, match=r"4 attempts: no connection: .*timed out"):
        bring(site, tmp_path)
    site.silence.set()


def test_a_server_that_does_not_tell_the_size_is_refused(site, tmp_path):
    site.tells_size = False
    with pytest.raises(InputError, match="Content-Length"):
        bring(site, tmp_path)


@pytest.fixture
def quota():
    """A function that limits the size of files, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_and_what_arrived_is_taken_up_again(site, tmp_path, quota):
    quota(3000)
    with pytest.raises(InputError, match=r"cannot be downloaded into .*too large.*check space.*is kept") as caught:
        bring(site, tmp_path)
    assert isinstance(caught.value.__cause__, OSError)
    quota(resource.RLIM_INFINITY)
    bring(site, tmp_path)
    assert site.asked == [None, "bytes=3000-"]
    assert (tmp_path / FILE.file).read_bytes() == CONTENT


def test_a_folder_that_is_a_file_is_told(site, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be downloaded into .*file.*File exists"):
        bring(site, tmp_path / "file")
    assert site.asked == []


def test_a_damaged_record_is_told(site, tmp_path):
    (tmp_path / RECORD).write_text('{"file": 1}')
    with pytest.raises(InputError, match=r"fetched\.json must be as this program writes it, but is not; delete it"):
        bring(site, tmp_path)


@pytest.fixture
def mirror(tmp_path):
    folder = tmp_path / "a mirror"
    (folder / "dataset").mkdir(parents=True)
    (folder / "dataset" / FILE.file).write_bytes(CONTENT)
    return folder


@pytest.mark.parametrize("form", [str, Path.as_uri])
def test_a_folder_serves_as_mirror(mirror, tmp_path, form):
    fetched = fetch(FILE, tmp_path / "to", lambda here, of: None, form(mirror))
    assert (tmp_path / "to" / FILE.file).read_bytes() == CONTENT
    assert fetched.url == (mirror / "dataset" / FILE.file).as_uri()


@pytest.mark.parametrize("changes", [False, True])
def test_a_copy_from_a_folder_goes_on_unless_the_file_changed(mirror, tmp_path, changes):
    def stop(here, of):
        raise KeyboardInterrupt

    told = []
    content = CONTENT * 1000
    (mirror / "dataset" / FILE.file).write_bytes(content)
    with pytest.raises(KeyboardInterrupt):
        fetch(FILE, tmp_path, stop, str(mirror))
    kept = (tmp_path / f"{FILE.file}.part").stat().st_size
    assert 0 < kept < len(content)
    if changes:
        content = content[::-1]
        (mirror / "dataset" / FILE.file).write_bytes(content)
    fetch(FILE, tmp_path, lambda here, of: told.append(here), str(mirror))
    assert (told[0] > kept) is not changes
    assert (tmp_path / FILE.file).read_bytes() == content


def test_a_mirror_that_lacks_the_file_is_told(mirror, tmp_path):
    lacking = Published("stats", "mean_by_level.nc")
    with pytest.raises(InputNotFoundError, match=r"must hold .*a mirror/stats/mean_by_level\.nc, but does not"):
        fetch(lacking, tmp_path, lambda here, of: None, str(mirror))


def test_a_mirror_of_another_protocol_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"must be a folder or begin with .*, not 's3://bucket'"):
        fetch(FILE, tmp_path, lambda here, of: None, "s3://bucket")


@pytest.mark.parametrize("name", ["../up.nc", "/etc/x.npz", "a/b.nc", ".hidden.nc", "x.sh", "x.nc\n", "", "a\0.nc"])
def test_no_name_leaves_the_folder(name):
    with pytest.raises(InputError, match="must have a plain name"):
        Published("sample", name)


@pytest.mark.parametrize(
    ("kind", "name", "begins"),
    [
        ("checkpoint", "GraphCast", "GraphCast - ERA5 1979-2017"),
        ("checkpoint", "graphcast_SMALL", "GraphCast_small - ERA5 1979-2015"),
        ("checkpoint", "GraphCast_operational", "GraphCast_operational - ERA5-HRES 1979-2021"),
        ("checkpoint", KNOWN[2].file, "GraphCast_small"),
        ("stats", "mean_by_level", "mean_by_level.nc"),
        ("sample", FILE.file, FILE.file),
        ("sample", "source-hres_steps-04", "source-hres_date-2022-01-01_res-0.25_levels-13_steps-04.nc"),
        ("sample", "era5 res-1 levels-37 steps-4", "source-era5_date-2022-01-01_res-1.0_levels-37_steps-04.nc"),
        ("sample", "era5 1.0 37 01", "source-era5_date-2022-01-01_res-1.0_levels-37_steps-01.nc"),
        ("sample", "era5,0.25,37,12", "source-era5_date-2022-01-01_res-0.25_levels-37_steps-12.nc"),
        (
            "sample",
            "date-2000-01-01_levels-13_steps-40.nc",
            "source-fake_date-2000-01-01_res-6.0_levels-13_steps-40.nc",
        ),
    ],
)
def test_a_name_means_one_file(kind, name, begins):
    (file,) = find(kind, name)
    assert file.kind == kind
    assert file.file.startswith(begins)


def test_every_file_is_found_by_what_it_is_called():
    assert all(find(file.kind, name) == (file,) for file in KNOWN for name in (file.name, file.file))


def test_all_statistics_are_the_three_files():
    assert [file.file for file in find("stats")] == [
        "diffs_stddev_by_level.nc",
        "mean_by_level.nc",
        "stddev_by_level.nc",
    ]


def test_a_name_that_means_several_samples_is_refused_with_their_names():
    with pytest.raises(InputError, match=r"must match one sample, but matches 3; .*:\n  source-hres.*01\n.*\n.*12$"):
        find("sample", "hres")


def test_an_unknown_name_is_told_with_the_nearest_and_all(mirror):
    with pytest.raises(InputNotFoundError) as caught:
        find("checkpoint", "GraphCast_smal", str(mirror))
    assert "no published checkpoint 'GraphCast_smal'; the nearest is 'GraphCast_small'" in str(caught.value)


def test_an_unknown_name_is_told_without_network_too(monkeypatch):
    monkeypatch.setattr(published, "_LISTING", "http://127.0.0.1:9/none")
    with pytest.raises(InputNotFoundError, match=r"no published sample 'nothing'; .* names are:\n  source-era5"):
        find("sample", "nothing")


def bucket_lists(site, monkeypatch, body):
    site.files["/list"] = body
    monkeypatch.setattr(published, "_LISTING", f"{site.address}/list")


def test_the_bucket_is_asked_for_what_is_new(site, monkeypatch):
    new = "source-era5_date-2023-07-01_res-1.0_levels-13_steps-08.nc"
    names = [f"graphcast/dataset/{new}", "graphcast/dataset/", "graphcast/dataset/../../x.nc", "graphcast/LICENSE"]
    names += ["graphcast/stats/mean_by_level.nc", "gencast/dataset/y.nc"]
    items = [{"name": name, "size": "123"} for name in names]
    bucket_lists(site, monkeypatch, json.dumps({"items": items}).encode())
    mean = next(file for file in KNOWN if file.file == "mean_by_level.nc")
    assert listing() == (Published("sample", new, 123), mean)
    assert find("sample", "date-2023-07-01") == (Published("sample", new, 123),)


@pytest.mark.parametrize("body", [b"<xml/>", b'{"items": [{"name": 1}]}'])
def test_a_listing_that_cannot_be_read_is_told(site, monkeypatch, body):
    bucket_lists(site, monkeypatch, body)
    with pytest.raises(InputError, match="must be JSON with names and sizes, but is not"):
        listing()


def test_a_bucket_out_of_reach_is_told(site, monkeypatch):
    monkeypatch.setattr(published, "_LISTING", f"{site.address}/nowhere")
    site.statuses.append(503)
    with pytest.raises(InputError, match=r"the listing of https://.* could not be downloaded: HTTP 503 .*login node"):
        listing()


def test_a_mirror_lists_what_it_holds_of_the_published_files(mirror, site):
    (mirror / "params").mkdir()
    (mirror / "params" / KNOWN[0].file).touch()
    (mirror / "params" / "Mine - small.npz").touch()
    assert listing(str(mirror)) == (KNOWN[0], FILE)
    assert listing(site.address) == KNOWN


def test_the_known_sums_of_the_statistics_are_those_of_the_repository():
    table = (ROOT / "stats" / "README.md").read_text()
    assert dict(re.findall(r"`(\w+\.nc)` \| `(\w{64})`", table)) == {
        file.file: file.sha256 for file in KNOWN if file.kind == "stats"
    }


def test_the_published_statistics_are_taken_from_a_mirror(shared_data, tmp_path):
    (tmp_path / "stats").symlink_to(shared_data / "stats_era5_levels-37")
    for file in find("stats"):
        fetch(file, tmp_path / "to", lambda here, of: None, str(tmp_path))
    assert len(left_in(tmp_path / "to")) == 4


@pytest.mark.parametrize("kind", ["checkpoint", "stats", "sample"])
def test_the_terms_name_the_license_and_who_grants_it(kind):
    assert "Google LLC, CC BY 4.0, https://creativecommons.org/licenses/by/4.0/" in license(kind)
