"""Tables of a study from a dataset on Hugging Face, by its own client."""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from delphi_jax.checked import has_suffix
from delphi_jax.definition import Definition
from delphi_jax.fetch.addresses import public_url
from delphi_jax.fetch.client import RETRIES, TIMEOUT, Progress, ask, no_progress, refuse, require
from delphi_jax.fetch.columns import ColumnMap, quoted, schemas, table_from_file, table_type
from delphi_jax.fetch.snapshot import Check, Fetched, Snapshot, Source, StudyFile, check_local, open_folder
from delphi_jax.io.definition import STUDY_FILE, read_shipped, shipped_studies, study_bytes
from delphi_jax.io.study import find_definition
from delphi_jax.status import InputError

__all__ = ["check_hf", "fetch_hf"]

_NAMES_SHOWN = 10


@dataclass(frozen=True)
class _File:
    """One file of a dataset at one commit."""

    path: str
    size: int
    blob: str
    """Git's name for the content, or for its pointer where ``sha256`` is given."""
    sha256: str | None

    @property
    def checksum(self) -> str:
        return f"sha256:{self.sha256}" if self.sha256 else f"git:{self.blob}"

    def holds(self, content: bytes) -> bool:
        """Whether ``content`` is this file's, by its checksum."""
        if self.sha256:
            return hashlib.sha256(content).hexdigest() == self.sha256
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == self.blob


@dataclass(frozen=True)
class _Listing:
    server: str
    commit: str
    modified: str | None
    files: Mapping[str, _File]


def fetch_hf(
    dataset: str,
    out: Path,
    *,
    revision: str | None = None,
    files: Mapping[str, str] | None = None,
    columns: Sequence[ColumnMap] = (),
    all_columns: bool = False,
    study: Path | Definition | None = None,
    timeout: float = TIMEOUT,
    progress: Progress = no_progress,
) -> Snapshot:
    """Fetch a study's tables from the dataset ``OWNER/DATASET`` into the folder ``out``, all from one commit.

    Taken are the files that a table's name, with its folders, ends (``runs.parquet``, in any folder) as .json, .jsonl,
    .csv or .parquet, or as what the name says, and the ``files`` (path by table). ``study``, a study file or the name
    of a shipped study, says which tables there are, and is put beside them as ``study.toml``: by default that of
    ``out``, else the Delphi study. ``progress`` gets bytes. Raises ValueError for a name that is none, InputError where
    the dataset cannot be had, holds no table or one twice, a table cannot be used, or another ``study.toml`` is there;
    ``out`` is then as it was.
    """
    source = _source(dataset)
    definition = find_definition(Path(out), study)
    asked = _asked(files or {}, definition)
    maps = _maps(columns, definition)
    require("huggingface_hub", "hf", "from Hugging Face")
    study_file = _study_file(Path(out), study)
    with open_folder(Path(out)) as folder:
        folder.new_study(study_file)
        listing = _list(source, revision, timeout)
        chosen = _choose(source, listing, asked, schemas(definition))
        if unused := set(maps) - set(chosen):
            raise InputError(f"{source}: has no {sorted(unused)[0]}, of which columns are named; leave them out")
        contents = _download(source, listing, chosen, timeout, progress)
        tables = []
        for table, file in chosen.items():
            where = f"{source}, {quoted(file.path)}"
            content = contents[file.path]
            file_type = table_type(file.path) or "json"
            column_map = maps.get(table, ColumnMap(table))
            query = {"server": listing.server, "revision": revision, "columns": dict(column_map.sources)}
            read_as = column_map.schemas(definition)
            fetched = table_from_file(content, file_type, column_map, read_as, where, all_columns=all_columns)
            kept = {"commit": listing.commit, "modified": listing.modified, "checksum": file.checksum}
            tables.append(Fetched(fetched, file.path, query, kept))
        client = f"huggingface_hub {importlib.metadata.version('huggingface_hub')}"
        absent = [table for table in schemas(definition) if table not in chosen]
        return folder.replace(source, tables, client, study_file, absent)


def check_hf(dataset: str, out: Path, *, study: Path | Definition | None = None, timeout: float = TIMEOUT) -> Check:
    """Whether the dataset has other tables now than the snapshot in ``out``: commit first, then files' checksums.

    ``study`` is that of :func:`fetch_hf`, which says what tables may be new.
    Raises InputError where ``out`` holds no such snapshot, or not as it was fetched, and as :func:`fetch_hf`.
    """
    source = _source(dataset)
    records = check_local(Path(out), source)
    require("huggingface_hub", "hf", "from Hugging Face")
    first = next(iter(records.values()))
    listing = _list(source, first["query"]["revision"], timeout)
    then = first["revision"]["commit"]
    if listing.commit == then:
        return Check(Path(out), source, (), f"commit {then}")
    asked = {table: record["item"] for table, record in records.items()}
    tables = dict.fromkeys([*records, *schemas(find_definition(Path(out), study))])
    now = _choose(source, listing, asked, tables, strict=False)
    changes = [f"{table} is new" for table in now if table not in records]
    for table, record in records.items():
        if table not in now:
            changes.append(f"{table} is gone")
        elif now[table].checksum != record["revision"]["checksum"]:
            changes.append(f"{table} has changed")
    compared = f"commit {then} then, {listing.commit} now; its tables have the same checksums"
    return Check(Path(out), source, tuple(changes), f"commit {listing.commit}" if changes else compared)


def _source(dataset: str) -> Source:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", dataset):
        raise ValueError(f"{dataset!r} is no dataset: expected OWNER/DATASET, such as marin-community/delphi-blog-data")
    return Source("hf", dataset)


def _study_file(out: Path, study: Path | Definition | None) -> StudyFile | None:
    """The study file to put beside the tables; None where there is none, or it lies there itself."""
    if study is None or isinstance(study, Definition) or Path(study).resolve() == (out / STUDY_FILE).resolve():
        return None
    return StudyFile(str(study), study_bytes(Path(study)))


def _asked(files: Mapping[str, str], definition: Definition) -> dict[str, str]:
    for table, path in files.items():
        ColumnMap(table).schemas(definition)
        if not _plain(path):
            raise ValueError(f"{path!r} is no path in a dataset: expected folders and a name, such as data/runs.json")
        if table_type(path) is None:
            raise ValueError(f"{path!r} is no table: expected .json, .jsonl, .csv or .parquet")
    return dict(files)


def _maps(columns: Sequence[ColumnMap], definition: Definition) -> dict[str, ColumnMap]:
    for column_map in columns:
        column_map.schemas(definition)
    maps = {column_map.table: column_map for column_map in columns}
    if len(maps) != len(columns):
        raise ValueError("columns of one table are named twice: put them into one ColumnMap")
    return maps


def _plain(path: str) -> bool:
    """Whether ``path`` can only lie below its folder: relative, no "..", no character with a meaning elsewhere."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts and not re.search(r"[\\:\x00-\x1f]", path)


def _settings(timeout: float) -> dict[str, str]:
    seconds = str(max(1, round(timeout)))
    return {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_ETAG_TIMEOUT": seconds,
        "HF_HUB_DOWNLOAD_TIMEOUT": seconds,
    }


def _list(source: Source, revision: str | None, timeout: float) -> _Listing:
    request = {
        "client": "hf",
        "dataset": source.name,
        "revision": revision,
        "timeout": timeout,
        "retries": RETRIES,
    }
    head, *entries = ask(source, request, _settings(timeout))
    files = {entry["path"]: _File(**entry) for entry in entries}
    if len(files) != len(entries):
        refuse(source, "half", "a file is listed twice")
    return _Listing(public_url(head["server"]), head["commit"], head["modified"], files)


def _choose(
    source: Source, listing: _Listing, asked: Mapping[str, str], tables: Collection[str], *, strict: bool = True
) -> dict[str, _File]:
    """The file of each table. Not ``strict``, what is missing or there twice is left out."""
    chosen: dict[str, _File] = {}
    for table, path in asked.items():
        if path in listing.files:
            chosen[table] = listing.files[path]
        elif strict:
            raise InputError(f"{source}: has no {quoted(path)}; {_there(listing)}")
    for table in tables:
        if table in asked:
            continue
        found = _files_of(listing, table)
        if unsafe := [file.path for file in found if not _plain(file.path)]:
            raise InputError(f"{source}: lists a file outside of the dataset, {quoted(unsafe[0])}: do not trust it")
        if len(found) == 1:
            chosen[table] = found[0]
        elif found and strict:
            names = ", ".join(quoted(file.path) for file in found[:_NAMES_SHOWN])
            raise InputError(f"{source}: {len(found)} files for {table}: {names}; choose with --table {table}=PATH")
    if strict and not chosen:
        fitting = next((name for name in shipped_studies() if _fits(listing, name)), None)
        hint = fitting and f"They fit the shipped study {fitting}: add --study {fitting}"
        raise InputError(f"{source}: holds no table of a study ({', '.join(tables)}); {_there(listing, hint)}")
    return {table: chosen[table] for table in tables if table in chosen}


def _files_of(listing: _Listing, table: str) -> list[_File]:
    """The files that the name of a table, with its folders, ends; a suffix that it has is theirs."""
    wanted = PurePosixPath(table).parts
    found = []
    for path, file in listing.files.items():
        if table_type(path):
            named = PurePosixPath(path) if has_suffix(table) else PurePosixPath(path).with_suffix("")
            found += [file] if named.parts[-len(wanted) :] == wanted else []
    return found


def _fits(listing: _Listing, study: str) -> bool:
    """Whether the dataset holds every table of a shipped study."""
    return all(len(_files_of(listing, table)) == 1 for table in schemas(read_shipped(study)))


def _there(listing: _Listing, hint: str | None = None) -> str:
    paths = [path for path in listing.files if table_type(path)]
    names = ", ".join(quoted(path) for path in paths[:_NAMES_SHOWN])
    more = f" and {len(paths) - _NAMES_SHOWN} more" if len(paths) > _NAMES_SHOWN else ""
    return f"the files there are {names or 'none that can be read'}{more}. {hint or 'Name one with --table TABLE=PATH'}"


def _download(
    source: Source, listing: _Listing, chosen: Mapping[str, _File], timeout: float, progress: Progress
) -> dict[str, bytes]:
    """The content of each file, by path: checked against the checksum that the dataset lists."""
    files = {file.path: file for file in chosen.values()}
    total, done = sum(file.size for file in files.values()), 0
    progress(done, total)
    request: dict[str, Any] = {
        "client": "hf",
        "dataset": source.name,
        "commit": listing.commit,
        "paths": list(files),
        "timeout": timeout,
    }
    contents: dict[str, bytes] = {}
    for message in ask(source, request, _settings(timeout)):
        path = message["path"]
        content = Path(message["file"]).read_bytes()
        if not files[path].holds(content):
            raise InputError(
                f"{source}, {quoted(path)}: is not what the dataset lists (its checksum differs); "
                f"delete {message['file']}, then fetch again"
            )
        contents[path] = content
        done += files[path].size
        progress(done, total)
    return contents
