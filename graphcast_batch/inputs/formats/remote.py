"""Open zarr stores and netCDF files on other machines, of which only the bytes that are needed are transferred."""

import io
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from zarr.abc.store import Store
from zarr.storage import FsspecStore, ObjectStore

from graphcast_batch.credentials import revealed, scrubbed
from graphcast_batch.inputs.formats.extras import extra_module

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from obstore.store import ObjectStore as FarStore

_OBJECT_SCHEMES: Final = ("s3", "gs", "az", "http", "https")
_HEADER_BYTES: Final = 2**18
"""Buffer size for remote netCDF files, since the HDF5 library reads their headers in small pieces."""
_CLIENT_LIMITS: Final = {"connect_timeout": "10s", "read_timeout": "15s", "timeout": "10m"}
_RETRIES: Final = {"max_retries": 2, "retry_timeout": timedelta(minutes=1)}
_CLIENT_OPTIONS: Final = (
    *("allow_http", "allow_invalid_certificates", "connect_timeout", "http1_only", "http2_only", "pool_idle_timeout"),
    *("proxy_ca_certificate", "proxy_excludes", "proxy_url", "read_timeout", "root_certificate", "timeout"),
    "user_agent",
)
"""Options of obstore's HTTP client; all other options are those of the kind of store."""


@dataclass(frozen=True)
class Access:
    """Credentials and options for data on other machines.

    Attributes:
        anonymous: send no credentials, as public buckets require; otherwise those of the environment are sent.
        options: names and values of the options of obstore for the scheme or its HTTP client, such as
            ``("region", "eu-west-1")``, ``("endpoint", "http://host:9000")`` or ``("read_timeout", "60s")``;
            for schemes other than s3, gs, az and http(s), storage options of fsspec.
        secrets: names and values of the secrets that options and addresses refer to as ``${NAME}``; see `secrets_of`.
    """

    anonymous: bool = False
    options: tuple[tuple[str, str], ...] = ()
    secrets: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def revealed(self, text: str) -> str:
        """Return an address or option with its secrets, as a library needs it."""
        return revealed(text, dict(self.secrets))

    @property
    def revealed_options(self) -> dict[str, str]:
        """Options with their secrets, as a library needs them."""
        return {name: self.revealed(value) for name, value in self.options}


DEFAULT: Final = Access()
"""Access with the credentials of the environment."""


def zarr_store(address: str, access: Access) -> Store:
    """Return a zarr store that reads from an address; no request is sent yet."""
    if address.partition("://")[0] in _OBJECT_SCHEMES:
        return ObjectStore(_object_store(address, access), read_only=True)
    extra_module("fsspec", "remote")
    return FsspecStore.from_url(access.revealed(address), storage_options=dict(access.revealed_options), read_only=True)


def netcdf_file(address: str, access: Access) -> io.BufferedReader:
    """Return a file at an address, of which only the parts that are read are transferred."""
    path, mark, query = address.partition("?")
    folder, _, name = path.rpartition("/")
    return io.BufferedReader(_FarFile(_object_store(f"{folder}{mark}{query}", access), name), _HEADER_BYTES)


_REMEDIES: Final = {
    "/latest/api/token": "log in, or set inputs.anonymous: true for public data",
    "token request": "log in, or set inputs.anonymous: true for public data",
    "401 Unauthorized": "check the credentials, or set inputs.anonymous: true for public data",
    "403 Forbidden": "check the credentials, or set inputs.anonymous: true for public data",
    "redirect": "give the bucket's region in inputs.storage",
    "onfiguration": "correct inputs.storage",
    "Invalid key": "correct inputs.storage",
    "Error performing": "check the address and the network, and try again",
}
"""Remedies for errors of obstore, by a part of their texts; the first match counts."""


def remedy(origin: str, error: Exception) -> str:
    """Return what a user can do about an error of reading."""
    fitting = (remedy for sign, remedy in _REMEDIES.items() if sign in str(error))
    return next(fitting, "copy or download it again") if "://" in origin else "copy or download it again"


def brief(error: Exception) -> str:
    """Return the message of an error without the debug output of obstore, web pages of the server, and secrets."""
    text = scrubbed(str(error)).partition("\n\nDebug source")[0].partition(": <")[0].rstrip(": ")
    return text if len(text) < 400 else f"{text[:400]} ..."


def _object_store(address: str, access: Access) -> "FarStore":
    stores = extra_module("obstore.store", "remote")
    options = access.revealed_options
    client = _CLIENT_LIMITS | {key: value for key, value in options.items() if key in _CLIENT_OPTIONS}
    store = {key: value for key, value in options.items() if key not in _CLIENT_OPTIONS}
    client.setdefault("allow_http", "true")  # an address or endpoint with the scheme http is meant
    if access.anonymous and not address.startswith("http"):
        store["skip_signature"] = "true"
    far: FarStore = stores.from_url(
        access.revealed(address), config=store or None, client_options=client, retry_config=_RETRIES
    )
    return far


class _FarFile(io.RawIOBase):
    """An object of a store as a file; each read is one request for the bytes that are read."""

    def __init__(self, store: "FarStore", name: str) -> None:
        self._obstore, self._store, self._name = extra_module("obstore", "remote"), store, name
        self._size = int(self._obstore.head(store, name)["size"])
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer)
        count = max(0, min(len(view), self._size - self._place))
        if count:
            view[:count] = memoryview(self._obstore.get_range(self._store, self._name, start=self._place, length=count))
        self._place += count
        return count
