"""One table from a file or a URL, by requests."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from delphi_jax.definition import Definition
from delphi_jax.fetch.addresses import public_url
from delphi_jax.fetch.client import RETRIES, TIMEOUT, Progress, no_progress, refuse, require
from delphi_jax.fetch.columns import FILE_TYPES, ColumnMap, table_from_file
from delphi_jax.fetch.snapshot import Check, Fetched, Snapshot, Source, check_local, open_folder
from delphi_jax.io.study import find_definition
from delphi_jax.status import InputError

if TYPE_CHECKING:
    import requests

__all__ = ["check_file", "fetch_file"]

_CHUNK = 1 << 16
_BACKOFF = 0.5
"""Seconds before the second try; doubled for every further one, where the server does not say how long to wait."""
_PASSING = (408, 429, 500, 502, 503, 504)
"""HTTP status of failures that may pass."""


@dataclass(frozen=True)
class _Content:
    """What a file or URL held."""

    content: bytes
    etag: str | None = None
    modified: str | None = None

    @property
    def revision(self) -> dict[str, Any]:
        checksum = hashlib.sha256(self.content).hexdigest()
        return {"checksum": f"sha256:{checksum}", "etag": self.etag, "last_modified": self.modified}


def fetch_file(
    where: str | Path,
    out: Path,
    file_type: str,
    *,
    columns: ColumnMap | None = None,
    all_columns: bool = False,
    study: Path | Definition | None = None,
    timeout: float = TIMEOUT,
    progress: Progress = no_progress,
) -> Snapshot:
    """Fetch the table in the file or at the URL ``where``, of ``file_type`` json, jsonl, csv or parquet, into ``out``.

    ``columns`` says which table it is (default: ``runs``), and what its columns are called there, ``study`` what the
    study's tables are: by default ``study.toml`` of ``out``, else the Delphi study. User and password in
    a URL are used and nowhere kept; the values of its query are not recorded either. ``progress`` gets bytes. Raises
    ValueError for an unknown type or scheme, InputError where the content cannot be had, broke off or is no such
    table; ``out`` is then as it was.

    Examples:

    >>> import tempfile
    >>> import delphi_jax as dj
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     snapshot = dj.fetch_file("data/runs.json", folder, "json")
    ...     [part.item for part in snapshot.tables], len(dj.load_study(folder).runs)
    (['runs.json'], 235)
    """
    if file_type not in FILE_TYPES:
        raise ValueError(f"unknown file type {file_type!r}: choose from {', '.join(FILE_TYPES)}")
    columns = columns or ColumnMap()
    read_as = columns.schemas(find_definition(Path(out), study))
    source = _source(where)
    with open_folder(Path(out)) as folder:
        found = _content(str(where), source, {}, timeout, progress)
        assert found is not None
        table = table_from_file(found.content, file_type, columns, read_as, str(source), all_columns=all_columns)
        query = {"type": file_type, "columns": dict(columns.sources)}
        fetched = Fetched(table, source.name.rsplit("/", 1)[-1], query, found.revision)
        client = f"requests {importlib.metadata.version('requests')}" if _is_url(where) else "file"
        return folder.replace(source, [fetched], client)


def check_file(where: str | Path, out: Path, *, timeout: float = TIMEOUT, progress: Progress = no_progress) -> Check:
    """Whether the file or URL holds something else now than when the snapshot in ``out`` was fetched.

    A URL is asked with its ETag or date first; where it answers with content, the checksums are compared. Raises
    InputError where ``out`` holds no such snapshot, or not as it was fetched, and as :func:`fetch_file`.

    Examples:

    >>> import tempfile
    >>> import delphi_jax as dj
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = dj.fetch_file("data/runs.json", folder, "json")
    ...     check = dj.check_file("data/runs.json", folder)
    >>> check.moved_on, check.compared
    (False, 'its checksum')
    """
    source = _source(where)
    records = check_local(Path(out), source)
    changes = []
    compared = "its checksum"
    for table, record in records.items():
        then = record["revision"]
        conditions = {"If-None-Match": then["etag"], "If-Modified-Since": then["last_modified"]}
        known = {name: value for name, value in conditions.items() if value}
        now = _content(str(where), source, known, timeout, progress)
        if now is None:
            compared = "its ETag or date"
        elif now.revision["checksum"] != then["checksum"]:
            changes.append(f"{table} has changed")
    return Check(Path(out), source, tuple(changes), compared)


def _is_url(where: str | Path) -> bool:
    return bool(re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", str(where)))


def _source(where: str | Path) -> Source:
    if not _is_url(where):
        return Source("file", str(Path(where).resolve()))
    parts = urlsplit(str(where))
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{public_url(str(where))!r}: expected a path, or a URL with http or https")
    return Source("file", public_url(str(where)))


def _content(
    where: str, source: Source, conditions: Mapping[str, str], timeout: float, progress: Progress
) -> _Content | None:
    """What is there; None where the server says that it is as the ``conditions`` have it."""
    if _is_url(where):
        require("requests", "fetch", "from a URL")
        return _download(where, source, conditions, timeout, progress)
    try:
        return _Content(Path(where).read_bytes())
    except IsADirectoryError:
        raise InputError(f"{where}: is a directory, expected a file") from None
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror or error})") from None


def _download(
    url: str, source: Source, conditions: Mapping[str, str], timeout: float, progress: Progress
) -> _Content | None:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    parts = urlsplit(url)
    user = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
    retries = Retry(RETRIES, backoff_factor=_BACKOFF, status_forcelist=_PASSING, raise_on_status=False)
    with _unlogged(), requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retries))
        for attempt in range(RETRIES + 1):
            try:
                with session.get(bare, auth=user, headers=dict(conditions), timeout=timeout, stream=True) as response:
                    return _read(response, source, progress)
            except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError):
                # The session repeats what failed before the answer came, not what broke off in it.
                if attempt == RETRIES:
                    refuse(source, "broken")
            except requests.Timeout:
                refuse(source, "timeout", waited=timeout)
            except requests.RequestException as error:
                # Its text holds the URL as it was given.
                refuse(source, "timeout" if _timed_out(error) else "unreachable", waited=timeout)
    raise AssertionError("unreachable")


def _read(response: requests.Response, source: Source, progress: Progress) -> _Content | None:
    if response.status_code == 304:
        return None
    if response.status_code != 200:
        refuse(source, response.status_code)
    announced = response.headers.get("Content-Length", "")
    total = int(announced) if announced.isdigit() and "Content-Encoding" not in response.headers else 0
    chunks = []
    for chunk in response.iter_content(_CHUNK):
        chunks.append(chunk)
        if total:
            progress(min(total, sum(map(len, chunks))), total)
    return _Content(b"".join(chunks), response.headers.get("ETag"), response.headers.get("Last-Modified"))


def _timed_out(error: BaseException) -> bool:
    from urllib3.exceptions import NewConnectionError
    from urllib3.exceptions import TimeoutError as Urllib3Timeout

    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, Urllib3Timeout) and not isinstance(reason, NewConnectionError)


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """Without the log of what is tried again: it holds the query of the URL, and that may hold a key."""
    loggers = [logging.getLogger(f"urllib3.{name}") for name in ("connectionpool", "util.retry")]
    # A filter by name, of a name that no logger has.
    silent = logging.Filter("none")
    for logger in loggers:
        logger.addFilter(silent)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(silent)
