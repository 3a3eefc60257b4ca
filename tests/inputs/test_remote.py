"""What lies on other machines is read as if it were here, in pieces, and an error says what to do."""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.errors import InputError, InputNotFoundError
from graphcast_batch.inputs.formats.opening import load, open_data
from graphcast_batch.inputs.formats.remote import Access

pytest.importorskip("obstore", reason="the extra remote is not installed")

IMPATIENT = Access(options=(("read_timeout", "200ms"),))
CHUNK = (1, 1, 6, 12)


@dataclass
class Web:
    """A folder on a server, which counts, waits and fails."""

    folder: Path
    server: ThreadingHTTPServer
    requests: list[tuple[str, int]] = field(default_factory=list)
    """Path and bytes sent."""
    latency: float = 0
    broken: Callable[[str], str] = lambda path: ""
    """For a path: "refused", "cut", "stalled" or nothing."""
    pending: set["Handler"] = field(default_factory=set)
    most_at_once: int = 0
    authorised: list[bool] = field(default_factory=list)
    """Whether each request came with credentials."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, web: Web, *arguments: object) -> None:
        self.web = web
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self.web.authorised.append("Authorization" in self.headers)
        self.web.pending.add(self)
        self.web.most_at_once = max(self.web.most_at_once, len(self.web.pending))
        time.sleep(self.web.latency)
        self.web.pending.discard(self)
        self._answer(self.web.broken(self.path))

    def do_PUT(self) -> None:
        self._send(404, b"")

    do_HEAD = do_GET  # noqa: N815  # the name that http.server calls

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, fault: str) -> None:
        path = self.web.folder / unquote(self.path).lstrip("/")
        if fault == "stalled":
            time.sleep(1)
            self.close_connection = True
        elif fault == "refused":
            self._send(403, b"<html>no</html>")
        elif not path.is_file():
            self._send(404, b"<html>none</html>")
        else:
            self._send_part(path.read_bytes(), fault == "cut")

    def _send_part(self, content: bytes, cut: bool) -> None:
        wanted = self.headers.get("Range", "")
        if not wanted:
            return self._send(200, content, cut=cut)
        first, last = map(int, wanted.removeprefix("bytes=").split("-"))
        part = content[first : last + 1]
        return self._send(206, part, f"bytes {first}-{first + len(part) - 1}/{len(content)}", cut)

    def _send(self, status: int, content: bytes, span: str = "", cut: bool = False) -> None:
        self.web.requests.append((self.path, len(content) if self.command == "GET" else 0))
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT")
        self.send_header("ETag", '"1"')
        if span:
            self.send_header("Content-Range", span)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = self.close_connection or cut


@pytest.fixture
def web(tmp_path):
    served = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *arguments: Handler(served[0], *arguments))
    served.append(Web(tmp_path, server))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield served[0]
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def fields():
    draw = np.random.default_rng(0)
    dims = ("time", "level", "latitude", "longitude")
    times = np.datetime64("2020-01-01", "ns") + np.arange(4) * np.timedelta64(6, "h")
    return xr.Dataset(
        {name: (dims, draw.normal(size=(4, 3, 6, 12)).astype(np.float32)) for name in ("t", "u", "v")},
        {"time": times, "level": [300, 500, 850]},
    )


def write_zarr(fields, path, **options):
    fields.to_zarr(path, zarr_format=2, encoding={name: {"chunks": CHUNK} for name in fields}, **options)


def read(address, access=IMPATIENT, **places):
    with open_data(address, access) as dataset:
        return load(dataset.isel(places), address)


def test_a_zarr_store_is_read_over_http(web, fields):
    write_zarr(fields, web.folder / "a.zarr")
    xr.testing.assert_identical(read(f"{web.url}/a.zarr"), fields)


def test_one_time_of_one_variable_costs_one_request(web, fields):
    write_zarr(fields, web.folder / "a.zarr")
    with open_data(f"{web.url}/a.zarr") as dataset:
        web.requests.clear()
        found = load(dataset[["t"]].isel(time=[2], level=[1]), web.url)
    xr.testing.assert_identical(found, fields[["t"]].isel(time=[2], level=[1]))
    chunk = web.folder / "a.zarr" / "t" / "2.1.0.0"
    assert web.requests == [("/a.zarr/t/2.1.0.0", chunk.stat().st_size)]


def test_variables_are_fetched_at_the_same_time(web, fields):
    write_zarr(fields, web.folder / "a.zarr")
    with open_data(f"{web.url}/a.zarr") as dataset:
        web.latency, web.most_at_once = 0.2, 0
        load(dataset.isel(time=[0], level=[0]), web.url)
    assert web.most_at_once == 3


def test_a_thread_may_load_again_and_again(web, fields):
    write_zarr(fields, web.folder / "a.zarr")
    found = []
    thread = threading.Thread(target=lambda: found.extend(read(f"{web.url}/a.zarr", time=n) for n in (0, 1, 2)))
    thread.start()
    thread.join()
    assert [one.identical(fields.isel(time=n)) for n, one in enumerate(found)] == [True] * 3


def test_a_store_that_would_need_listing_is_refused_over_http(web, fields):
    write_zarr(fields, web.folder / "a.zarr", consolidated=False)
    with pytest.raises(InputError, match=r"a\.zarr must have consolidated metadata, because HTTP servers do not list"):
        read(f"{web.url}/a.zarr")


@pytest.mark.parametrize(("name", "what"), [("a.zarr", "a zarr store"), ("a.nc", "a complete netCDF file")])
def test_what_is_not_there_is_not_found(web, name, what):
    with pytest.raises(InputNotFoundError, match=rf"{name} must be {what}, but there is none; give the path"):
        read(f"{web.url}/{name}")


@pytest.mark.parametrize("name", ["a.zarr", "a.nc"])
def test_a_refusal_says_what_to_do_and_no_more(web, name):
    web.broken = lambda path: "refused"
    with pytest.raises(InputError, match=r"403 Forbidden; .* set inputs\.anonymous: true for public data$") as caught:
        read(f"{web.url}/{name}")
    assert "html" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_down_is_named():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/a.zarr"
        with pytest.raises(InputError, match=rf"{address} must be a zarr store.* check the address and the network"):
            read(address)


@pytest.mark.parametrize("fault", ["refused", "cut", "stalled"])
def test_a_chunk_that_does_not_come_whole_is_an_error(web, fields, fault):
    write_zarr(fields, web.folder / "a.zarr")
    web.broken = lambda path: fault if path.endswith("/u/0.0.0.0") else ""
    with pytest.raises(InputError, match=rf"{web.url}/a\.zarr must be complete, but cannot be read") as caught:
        read(f"{web.url}/a.zarr")
    assert "Debug" not in str(caught.value)


def test_a_damaged_chunk_is_an_error(web, fields):
    write_zarr(fields, web.folder / "a.zarr")
    (web.folder / "a.zarr" / "u" / "0.0.0.0").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"a\.zarr must be complete, but cannot be read"):
        read(f"{web.url}/a.zarr")


@pytest.fixture(scope="module")
def large():
    """A megabyte for each time, that no compression shrinks."""
    draw = np.random.default_rng(0)
    times = np.datetime64("2020-01-01", "ns") + np.arange(8) * np.timedelta64(6, "h")
    return xr.Dataset({"t": (("time", "point"), draw.integers(0, 2**31, (8, 2**18)).astype(np.int32))}, {"time": times})


def test_of_a_netcdf_file_only_what_is_needed_is_read(web, large):
    large.to_netcdf(web.folder / "a.nc", engine="netcdf4", encoding={"t": {"chunksizes": (1, 2**18)}})
    xr.testing.assert_identical(read(f"{web.url}/a.nc", time=[3]), large.isel(time=[3]))
    assert sum(size for _, size in web.requests) < (web.folder / "a.nc").stat().st_size / 2


def test_a_classic_netcdf_file_is_read(web, fields):
    fields.to_netcdf(web.folder / "a.nc", engine="netcdf4", format="NETCDF3_64BIT")
    xr.testing.assert_equal(read(f"{web.url}/a.nc"), fields)


@pytest.mark.parametrize("layout", ["NETCDF3_64BIT", "NETCDF4"])
@pytest.mark.parametrize("kept", [0.9, 0.1])
def test_a_netcdf_file_that_was_cut_off_is_refused(web, fields, layout, kept):
    path = web.folder / "a.nc"
    fields.to_netcdf(path, engine="netcdf4", format=layout)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(InputError, match=r"a\.nc must be a? ?complete"):
        read(f"{web.url}/a.nc")


@pytest.mark.parametrize("content", [b"", b"hello"])
def test_a_foreign_file_is_refused(web, content):
    (web.folder / "a.nc").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.nc must be a complete netCDF file"):
        read(f"{web.url}/a.nc")


@pytest.mark.parametrize("name", ["a.grib", "a.grb2", "a.zarr.zip"])
def test_what_must_be_copied_first_is_told(name):
    with pytest.raises(
        InputError, match=rf"http://host/{name} must be zarr or netCDF .* copy it to this machine first"
    ):
        read(f"http://host/{name}")


@pytest.mark.parametrize(
    ("address", "module", "extra"),
    [
        ("http://host/a.zarr", "obstore.store", "remote"),
        ("http://host/a.nc", "h5netcdf", "remote"),
        ("a.grib", "cfgrib", "grib"),
    ],
)
def test_a_missing_package_is_named_with_its_remedy(tmp_path, monkeypatch, address, module, extra):
    monkeypatch.chdir(tmp_path)
    Path("a.grib").write_bytes(b"GRIB")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"{module.split('.')[0]} must be installed.*graphcast-batch\[{extra}\]'"):
        read(address)


@pytest.fixture(scope="module")
def bucket(fields, tmp_path_factory):
    """Access to Amazon's storage as moto plays it, with an own and a public bucket."""
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    boto3 = pytest.importorskip("boto3")
    server = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    where = (("endpoint", "http://{}:{}".format(*server.get_host_and_port())), ("region", "us-east-1"))
    keys = (("access_key_id", "a"), ("secret_access_key", "b"))
    client = boto3.client(
        "s3", region_name="us-east-1", endpoint_url=where[0][1], aws_access_key_id="a", aws_secret_access_key="b"
    )
    folder = tmp_path_factory.mktemp("bucket")
    write_zarr(fields, folder / "a.zarr", consolidated=False)
    fields.to_netcdf(folder / "a.nc", engine="netcdf4")
    for name, rights in (("own", "private"), ("public", "public-read")):
        client.create_bucket(Bucket=name, ACL=rights)
        for path in filter(Path.is_file, folder.rglob("*")):
            client.put_object(Bucket=name, Key=str(path.relative_to(folder)), Body=path.read_bytes(), ACL=rights)
    yield where, keys
    server.stop()


@pytest.mark.parametrize("name", ["a.zarr", "a.nc"])
def test_a_bucket_is_read_with_credentials(bucket, fields, name):
    where, keys = bucket
    xr.testing.assert_equal(read(f"s3://own/{name}", Access(options=where + keys)), fields)


@pytest.mark.parametrize("name", ["a.zarr", "a.nc"])
def test_a_public_bucket_is_read_without(bucket, fields, name):
    where, _ = bucket
    xr.testing.assert_equal(read(f"s3://public/{name}", Access(anonymous=True, options=where)), fields)


@pytest.mark.parametrize("name", ["a.zarr", "a.nc"])
def test_a_private_bucket_wants_credentials(bucket, name):
    where, _ = bucket
    with pytest.raises(InputError, match=rf"s3://own/{name} must be .* 403 Forbidden; check the credentials"):
        read(f"s3://own/{name}", Access(anonymous=True, options=where))


def test_who_is_not_logged_in_is_told(web, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with pytest.raises(InputError, match=r"log in, or set inputs\.anonymous: true for public data$"):
        read("s3://public/a.zarr", Access(options=(("metadata_endpoint", web.url), ("region", "us-east-1"))))


@pytest.mark.parametrize("address", ["s3://nobody/a.zarr", "s3://nobody/a.nc", "s3://own/b.zarr", "s3://own/b.nc"])
def test_what_no_bucket_holds_is_not_found(bucket, address):
    where, keys = bucket
    with pytest.raises(InputNotFoundError, match=rf"{address} must be a.*, but there is none; give the path"):
        read(address, Access(options=where + keys))


@pytest.mark.parametrize("address", ["s3://bucket/a.zarr", "gs://bucket/a.zarr", "s3://bucket/a.nc"])
def test_an_unknown_option_is_named(address):
    with pytest.raises(InputError, match=rf"{address} .*'color' is not valid .*; correct inputs\.storage"):
        read(address, Access(options=(("color", "red"),)))


def test_a_plain_server_has_no_options_of_buckets():
    with pytest.raises(InputError, match=r"does not accept any configuration; correct inputs\.storage"):
        read("http://host/a.zarr", Access(options=(("region", "here"),)))


def test_a_public_google_bucket_is_read_without_credentials(web, fields):
    write_zarr(fields, web.folder / "bucket" / "a.zarr")
    access = Access(anonymous=True, options=(("base_url", web.url),))
    xr.testing.assert_identical(read("gs://bucket/a.zarr", access), fields)
    assert not any(web.authorised)


def test_other_schemes_are_read_through_fsspec(fields):
    fsspec = pytest.importorskip("fsspec")
    write_zarr(fields, fsspec.get_mapper("memory://a.zarr"), consolidated=True)
    xr.testing.assert_identical(read("memory://a.zarr", Access()), fields)
