"""Replace the secrets in addresses and storage options by references such as ${NAME}, and resolve such references.

Files, logs and messages hold references only. The process that read a secret from its config keeps it in memory; any
other process reads it from the environment variable of that name. A config may hold such references itself.
"""

import os
import re
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from pydantic import JsonValue

from graphcast_batch.errors import ConfigError

_REFERENCE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_ADDRESS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>|\\]*")
_PARTS: Final = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]*://)"
    r"(?:([^/?#@]*(?:@[^/?#@]*)*|[^/?#@:]*:(?![0-9]+[/?#])[^@]*)@)?"  # the second for a slash that should be %2F
    r"([^?#]*)(?:\?([^#]*))?(?:#(.*))?",
    re.DOTALL,
)
"""Parts of an address: scheme, user with password, host with path, query, fragment."""
_WEB: Final = ("http://", "https://")
_SIGNING: Final = re.compile(
    r"x-(amz|goog|ms|oss|cos)-.*|awsaccesskeyid|googleaccessid|key-pair-id|policy|expires|jwt|sid|sas|pwd|session.*"
    r"|access|code|pin|otp|bearer|ticket"
    r"|.*(signature|token|secret|passw|credential).*|.*(sig|key|auth)",
    re.IGNORECASE,
)
"""Query parameters that give or limit access: tokens, and those of AWS Signature Version 4, Google and CloudFront."""
_SHARED_ACCESS: Final = frozenset(
    (
        *("se", "sig", "sip", "ske", "skoid", "sks", "skt", "sktid", "skv", "sp", "spr", "sr", "srt", "ss", "st", "sv"),
        *("saoid", "scid", "sdd", "ses", "si", "suoid", "tn"),
    )
)
"""Query parameters of Azure's shared access signatures, which are secret if ``sig`` is among the parameters."""
_OPEN_OPTIONS: Final = frozenset(
    (
        *("region", "default_region", "endpoint", "endpoint_url", "bucket", "bucket_name", "account_name", "host"),
        *("container_name", "project", "protocol", "port", "anon", "requester_pays", "request_payer", "user_agent"),
        *("allow_http", "allow_invalid_certificates", "connect_timeout", "http1_only", "http2_only", "timeout"),
        *("pool_idle_timeout", "proxy_excludes", "proxy_url", "proxy_ca_certificate", "read_timeout"),
        *("root_certificate", "virtual_hosted_style_request", "unsigned_payload", "checksum_algorithm", "s3_express"),
        *("metadata_endpoint", "imdsv1_fallback", "skip_signature", "disable_tagging", "conditional_put"),
        *("copy_if_not_exists", "use_emulator", "use_fabric_endpoint", "use_azure_cli", "msi_endpoint"),
    )
)
"""Options of remote stores, named as in obstore and fsspec, that are not secret; all others are treated as secrets."""
_SWITCHES: Final = ("", "true", "false")
"""Values that are not secret in any option."""
_SHORTEST: Final = 4
"""Least length of a secret that `scrubbed` replaces; a shorter one would be found in ordinary text."""
_Refer = Callable[[str, str], str]
"""Returns the replacement of a secret in an address, given the kind of the secret and the secret itself."""
_known: Final[dict[str, str]] = {}
"""Secrets that this process knows, by the names of their references."""


def without_secrets(address: str) -> str:
    """Return an address with references in place of user, password and secret query parameters; paths are unchanged."""
    return "::".join(_apart(part, keep=True) for part in address.split("::"))


def options_without_secrets(options: Mapping[str, str], addresses: Iterable[str]) -> dict[str, str]:
    """Return the options of a remote store with references in place of all values that may be secret.

    Args:
        options: values of the options by their names.
        addresses: addresses of the store; the host of the first one is in the names of the references.
    """
    host = next((_host(address) for address in addresses if "://" in address), "")
    return {
        name: without_secrets(value)
        if _is_open(name) or _REFERENCE.fullmatch(value) or value.lower() in _SWITCHES
        else _refer(host, name, value)
        for name, value in options.items()
    }


def references(text: str) -> list[str]:
    """Return the names of the references in a text, sorted."""
    return sorted(set(_REFERENCE.findall(text)))


def secrets_of(texts: Iterable[str]) -> dict[str, str]:
    """Return the secrets that texts refer to, by the names of the references.

    Raises:
        ConfigError: a secret is neither known to this process nor in the environment.
    """
    found = {name: _known.get(name, os.environ.get(name)) for text in texts for name in references(text)}
    absent = [name for name, value in found.items() if value is None]
    if absent:
        raise ConfigError(
            f"the environment must hold {', '.join(absent)}, which the inputs refer to, but does not; set "
            f"{'it' if len(absent) == 1 else 'them'}, or name the run's config in place of its store, which keeps no "
            "secrets"
        )
    return {name: value for name, value in found.items() if value is not None}


def revealed(text: str, secrets: Mapping[str, str]) -> str:
    """Return a text with secrets in place of its references; from now on `scrubbed` replaces these secrets."""
    _known.update(secrets)
    return _REFERENCE.sub(lambda found: secrets.get(found[1], found[0]), text)


def scrubbed(text: str) -> str:
    """Return a text, such as the error message of a library, with all known secrets and those of addresses replaced."""
    for name, secret in sorted(_known.items(), key=lambda known: -len(known[1])):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, f"${{{name}}}")
    return _ADDRESS.sub(lambda found: _apart(found[0], keep=False), text) if "://" in text else text


def printable_cause(error: Exception) -> Exception | None:
    """Return an error for use as the cause of another; None if its traceback contains secrets."""
    text = "".join(traceback.format_exception(error))
    return error if scrubbed(text) == text else None


def bare(value: JsonValue) -> JsonValue:
    """Return a section ``inputs`` without secrets and references to them, by which two archives can be compared."""
    if isinstance(value, dict):
        return {
            key: _open_of(part) if key == "storage" and isinstance(part, dict) else bare(part)
            for key, part in value.items()
        }
    if isinstance(value, list):
        return [bare(part) for part in value]
    return "::".join(map(_stripped, value.split("::"))) if isinstance(value, str) else value


def _open_of(options: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: bare(value) for name, value in options.items() if _is_open(name)}


def _is_open(name: str) -> bool:
    return re.sub(r"^(aws|azure|google)_", "", name.lower()) in _OPEN_OPTIONS


def _apart(address: str, *, keep: bool) -> str:
    """Return an address with its secrets replaced: by references, which are kept in memory, or by stars."""

    def refer(what: str, secret: str) -> str:
        return secret if _is_reference(secret) else _refer(_host(address), what, secret) if keep else "***"

    return _rewritten(address, refer)


def _stripped(address: str) -> str:
    return _rewritten(address, lambda _what, _secret: "")


def _rewritten(address: str, refer: _Refer) -> str:
    parts = _PARTS.match(address)
    if parts is None:
        return address
    scheme, user, rest, *tails = parts.groups()
    if user is not None:
        # The user of abfss:// is a container and that of sftp:// is not secret; that of a web address may be a token.
        shown = refer("userinfo", user) if ":" in user or scheme in _WEB or _REFERENCE.fullmatch(user) else user
        user = f"{shown}@" if shown else ""
    query, fragment = (_query(tail, refer) if tail else "" for tail in tails)
    return f"{scheme}{user or ''}{rest}{query and f'?{query}'}{fragment and f'#{fragment}'}"


def _query(query: str, refer: _Refer) -> str:
    """Replace all secret parameters together, so that the reference holds for a renewed signature with others too."""
    fields = query.split("&")
    names = [field.partition("=")[0].lower() for field in fields]
    shared = _SHARED_ACCESS if "sig" in names else frozenset()
    signing = [
        field
        for field, name in zip(fields, names, strict=True)
        if name in shared or _SIGNING.fullmatch(name) or _is_reference(field)
    ]
    if not signing:
        return query
    referring = [field for field in signing if _is_reference(field)]
    literal = "&".join(field for field in signing if field not in referring)
    replaced = [refer("query", part) for part in (*referring, literal) if part]
    return "&".join(part for part in (*(field for field in fields if field not in signing), *replaced) if part)


def _is_reference(text: str) -> bool:
    """Return whether the secret part of a user or a query parameter is a reference."""
    return bool(_REFERENCE.fullmatch(re.split("[:=]", text, maxsplit=1)[-1]))


def _refer(host: str, what: str, secret: str) -> str:
    """Return the reference to a secret, named by its host and kind, and numbered if the name stands for another one."""
    base = re.sub(r"[^A-Z0-9]+", "_", f"GRAPHCAST_BATCH_{host}_{what}".upper()).replace("__", "_")
    number = 1
    while (name := base if number == 1 else f"{base}_{number}") in _known and _known[name] != secret:
        number += 1
    _known[name] = secret
    return f"${{{name}}}"


def _host(address: str) -> str:
    """Return the host or bucket of an address."""
    parts = _PARTS.match(address)
    return re.split("[/:?#]", parts[3], maxsplit=1)[0] if parts else ""
