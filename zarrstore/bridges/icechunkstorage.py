"""Where a repository of Icechunk is kept: its own storage for a path or URL, by the options that s3fs takes."""

from __future__ import annotations

import os
from typing import Any

from zarrstore.errors import UnsupportedOperation
from zarrstore.optional import require
from zarrstore.urls import without_secrets

require("icechunk", extra="icechunk", feature="IcechunkStore")

import icechunk  # noqa: E402

__all__ = ["local_folder", "storage_of"]


def local_folder(place: str) -> str | None:
    """Return the directory that a place names; None if it is the URL of another service.

    Examples
    --------
    >>> local_folder("file:///data/repo"), local_folder("s3://bucket/repo")
    ('/data/repo', None)
    """
    scheme, parted, rest = place.partition("://")
    if parted and scheme not in ("file", "local"):
        return None
    return os.path.abspath(os.path.expanduser(rest if parted else place))


def storage_of(place: str, options: dict[str, Any]) -> Any:
    """Return Icechunk's storage for a path or URL.

    Parameters
    ----------
    place : str
        A path, or a URL of S3 or Google Cloud.
    options : dict
        As s3fs takes them, or as Icechunk's own storage does.

    Raises
    ------
    UnsupportedOperation
        Icechunk keeps no repository there.
    """
    folder = local_folder(place)
    if folder is not None:
        return icechunk.local_filesystem_storage(folder)
    scheme, _, rest = place.partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme in ("s3", "s3a"):
        return icechunk.s3_storage(bucket=bucket, prefix=prefix.strip("/") or None, **_s3_options(options))
    if scheme in ("gs", "gcs"):
        return icechunk.gcs_storage(bucket=bucket, prefix=prefix.strip("/") or None, **({"from_env": True} | options))
    raise UnsupportedOperation(
        f"keep a repository at {without_secrets(place)!r}",
        "Icechunk",
        "pass a path, s3:// or gs://; for others make an icechunk.Repository and pass IcechunkStore(repository)",
    )


#: What s3fs calls it, and what Icechunk does.
_S3_NAMES = {
    "key": "access_key_id",
    "secret": "secret_access_key",
    "token": "session_token",
    "anon": "anonymous",
    "region_name": "region",
}


def _s3_options(given: dict[str, Any]) -> dict[str, Any]:
    options = {**dict(given.pop("client_kwargs", None) or {}), **given}
    options = {_S3_NAMES.get(name, name): value for name, value in options.items()}
    environment = os.environ.get
    options.setdefault("endpoint_url", environment("AWS_ENDPOINT_URL_S3") or environment("AWS_ENDPOINT_URL"))
    options.setdefault("region", environment("AWS_REGION") or environment("AWS_DEFAULT_REGION"))
    if options["endpoint_url"]:
        options.setdefault("allow_http", str(options["endpoint_url"]).startswith("http://"))
        options.setdefault("force_path_style", True)
    if not options.get("access_key_id") and not options.get("anonymous"):
        options.setdefault("from_env", True)
    return options
