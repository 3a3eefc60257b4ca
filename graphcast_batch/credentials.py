"""Keep secrets of configs apart from their text, where a reference such as ${NAME} stands for each.

Whatever is written or printed holds references only. What one stands for is known to the process whose config named the
secret; any other has it from the environment variable of that name. A config may itself refer to variables so.
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
"""Scheme, user with password, the rest, query, fragment."""
_WEB: Final = ("http://", "https://")
_SIGNING: Final = re.compile(
    r"x-(amz|goog|ms|oss|cos)-.*|awsaccesskeyid|googleaccessid|key-pair-id|policy|expires|jwt|sid|sas|pwd|session.*"
    r"|access|code|pin|otp|bearer|ticket"
    r"|.*(signature|token|secret|passw|credential).*|.*(sig|key|auth)",
    re.IGNORECASE,
)
"""Parameters of an address that give or limit access: AWS Signature Version 4, Google's V4, CloudFront's, tokens."""
_SHARED_ACCESS: Final = frozenset(
    (
        *("se", "sig", "sip", "ske", "skoid", "sks", "skt", "sktid", "skv", "sp", "spr", "sr", "srt", "ss", "st", "sv"),
        *("saoid", "scid", "sdd", "ses", "si", "suoid", "tn"),
    )
)
"""Those of Azure's shared access signatures, which are secret together with ``sig``."""
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
"""Options of remote stores that are no secrets, by obstore's and fsspec's names; any other may be one."""
_SWITCHES: Final = ("", "true", "false")
"""Values that are no secret, whatever the option."""
_SHORTEST: Final = 4
"""Characters of a secret that is looked for in other text; a shorter one would be found in any."""
_Refer = Callable[[str, str], str]
"""What stands for a secret in an address, by what it is and the secret."""
_known: Final[dict[str, str]] = {}
"""What references of this process stand for."""


def without_secrets(address: str) -> str:
    """An address with references in place of user and password, and of what signs its query; a path as it is."""
    return "::".join(_apart(part, keep=True) for part in address.split("::"))


def options_without_secrets(options: Mapping[str, str], addresses: Iterable[str]) -> dict[str, str]:
    """Options of a remote store with references in place of all that may be secret.

    Args:
        options: names and values.
        addresses: of the store, after which references are named.
    """
    host = next((_host(address) for address in addresses if "://" in address), "")
    return {
        name: without_secrets(value)
        if _is_open(name) or _REFERENCE.fullmatch(value) or value.lower() in _SWITCHES
        else _refer(host, name, value)
        for name, value in options.items()
    }


def references(text: str) -> list[str]:
    """Names that a text refers to."""
    return sorted(set(_REFERENCE.findall(text)))


def secrets_of(texts: Iterable[str]) -> dict[str, str]:
    """What references in texts stand for, by their names.

    Raises:
        ConfigError: one is neither known to this process nor in the environment.
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
    """A text with what its references stand for; from now on `scrubbed` knows them."""
    _known.update(secrets)
    return _REFERENCE.sub(lambda found: secrets.get(found[1], found[0]), text)


def scrubbed(text: str) -> str:
    """A text of whatever origin, such as an error of a library, without secrets."""
    for name, secret in sorted(_known.items(), key=lambda known: -len(known[1])):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, f"${{{name}}}")
    return _ADDRESS.sub(lambda found: _apart(found[0], keep=False), text) if "://" in text else text


def telling(error: Exception) -> Exception | None:
    """The error as the cause of another; none if it, or what caused it, would tell secrets."""
    text = "".join(traceback.format_exception(error))
    return error if scrubbed(text) == text else None


def bare(value: JsonValue) -> JsonValue:
    """A section ``inputs`` as it is with any secrets and with none: what tells one archive from another."""
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
    """An address with references in place of secrets; without keeping them with stars."""

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
        # The user of abfss:// is a container, that of sftp:// no secret; that of a web address may be a token.
        told = refer("userinfo", user) if ":" in user or scheme in _WEB or _REFERENCE.fullmatch(user) else user
        user = f"{told}@" if told else ""
    query, fragment = (_query(tail, refer) if tail else "" for tail in tails)
    return f"{scheme}{user or ''}{rest}{query and f'?{query}'}{fragment and f'#{fragment}'}"


def _query(query: str, refer: _Refer) -> str:
    """All parameters that give access as one, so that a renewed signature may have others."""
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
    told = [refer("query", part) for part in (*referring, literal) if part]
    return "&".join(part for part in (*(field for field in fields if field not in signing), *told) if part)


def _is_reference(text: str) -> bool:
    """Whether what may be secret of a user, or of a parameter, refers to the environment."""
    return bool(_REFERENCE.fullmatch(re.split("[:=]", text, maxsplit=1)[-1]))


def _refer(host: str, what: str, secret: str) -> str:
    """The reference to a secret, by where it is used and what it is; another one there has another number."""
    base = re.sub(r"[^A-Z0-9]+", "_", f"GRAPHCAST_BATCH_{host}_{what}".upper()).replace("__", "_")
    number = 1
    while (name := base if number == 1 else f"{base}_{number}") in _known and _known[name] != secret:
        number += 1
    _known[name] = secret
    return f"${{{name}}}"


def _host(address: str) -> str:
    """Of a server, or bucket."""
    parts = _PARTS.match(address)
    return re.split("[/:?#]", parts[3], maxsplit=1)[0] if parts else ""
