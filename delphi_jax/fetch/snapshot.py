"""Fetched tables in a data folder: replaced together or not at all, with a record of where each came from.

``provenance.json`` names the source, query, revision, time, rows and SHA-256 of every table. A fetch stages the new
files beside the old ones, keeps the old ones until the record is in place, and so can be undone: by itself where it
fails, by the next fetch where it was killed. In between the checksums tell.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from delphi_jax.fetch.columns import Table
from delphi_jax.io.files import READERS
from delphi_jax.simulate import is_simulated
from delphi_jax.status import InputError

__all__ = [
    "Check",
    "Fetched",
    "Folder",
    "Snapshot",
    "Source",
    "changed_files",
    "check_local",
    "open_folder",
    "read_records",
]

PROVENANCE = "provenance.json"
_WHAT = "tables fetched by delphi-jax fetch"
_FORMAT = 1
_STAGE = ".delphi-fetch-"
_SWAPPING = "swapping.json"

Record = dict[str, Any]
"""What provenance says of one table."""


@dataclass(frozen=True)
class Source:
    """Where tables come from, as it may be printed and recorded: without credentials."""

    kind: str
    """"wandb", "hf" or "file"."""
    name: str

    def __str__(self) -> str:
        return self.name if self.kind == "file" else f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Fetched:
    """One table from a source, and what of the source identifies it later."""

    table: Table
    item: str
    """What of the source it is: a file of a dataset, a project's runs."""
    query: Mapping[str, Any]
    """What was asked: filter, columns, revision."""
    revision: Mapping[str, Any]
    """What was there: commit, checksum, ETag, number of runs and last update."""


@dataclass(frozen=True)
class Snapshot:
    """What a fetch left in the folder."""

    folder: Path
    source: Source
    tables: tuple[Fetched, ...]
    removed: tuple[str, ...]
    """Tables of the same source that it has no longer."""
    displaced: tuple[str, ...]
    """Tables that stood for another source until now, each with that source."""

    @property
    def revision(self) -> str | None:
        """The source's own name for the version, if it has one."""
        return next((part.revision["commit"] for part in self.tables if "commit" in part.revision), None)


@dataclass(frozen=True)
class Check:
    """Whether a snapshot is as it was fetched, and its source as it was then."""

    folder: Path
    source: Source
    changes: tuple[str, ...]
    """What has changed in the source, one sentence each."""
    compared: str
    """What was compared, in words."""

    @property
    def moved_on(self) -> bool:
        return bool(self.changes)


@dataclass(frozen=True)
class Folder:
    """A data folder that is open for one fetch."""

    path: Path
    stage: Path
    records: Mapping[str, Record]

    def replace(self, source: Source, tables: Sequence[Fetched], client: str) -> Snapshot:
        """Put ``tables`` in the place of what the same source left here; other sources' tables stay.

        Raises InputError where a file that no fetch wrote, or that was edited since, is in the way.
        """
        recorded = _recorded(source)
        names = [part.table.name for part in tables]
        # A dataset is fetched whole; a project or a file is one table of several.
        removed = [name for name, record in self.records.items() if record["source"] == recorded and name not in names]
        removed = removed if source.kind == "hf" else []
        for name in names:
            self._require_free(name)
        others = {name: record["source"] for name, record in self.records.items() if name in names}
        displaced = [
            f"{name} of {other['kind']} {other['name']}" for name, other in others.items() if other != recorded
        ]
        now = datetime.now(UTC).isoformat(timespec="seconds")
        records = {name: record for name, record in self.records.items() if name not in removed}
        for part in tables:
            records[part.table.name] = {
                "file": part.table.file,
                "sha256": hashlib.sha256(part.table.content).hexdigest(),
                "rows": part.table.rows,
                "missing": dict(part.table.missing),
                "source": recorded,
                "item": part.item,
                "query": dict(part.query),
                "revision": dict(part.revision),
                "fetched": now,
                "client": client,
            }
        stale = {self.records[name]["file"] for name in [*removed, *records] if name in self.records}
        stale -= {record["file"] for record in records.values()}
        files = {part.table.file: part.table.content for part in tables}
        provenance = {"what": _WHAT, "format": _FORMAT, "tables": records}
        files[PROVENANCE] = (json.dumps(provenance, indent=2, ensure_ascii=True) + "\n").encode()
        with _writing(self.path):
            self._swap(files, stale)
        return Snapshot(self.path, source, tuple(tables), tuple(removed), tuple(displaced))

    def _require_free(self, table: str) -> None:
        ours = self.records.get(table)
        for suffix in READERS:
            path = self.path / f"{table}{suffix}"
            if not os.path.lexists(path):
                continue
            if ours is None or path.name != ours["file"]:
                raise InputError(f"{path}: was not written by a fetch; choose another folder, or move it away")
            if _sha256(path) != ours["sha256"]:
                raise InputError(f"{path}: was changed since it was fetched; move it away, then fetch again")

    def _swap(self, files: Mapping[str, bytes], stale: set[str]) -> None:
        """Write ``files``, the record last, and remove the ``stale`` ones, or leave everything as it was."""
        new, old = self.stage / "new", self.stage / "old"
        new.mkdir()
        old.mkdir()
        for name, content in files.items():
            (new / name).write_bytes(content)
        for name in {*files, *stale}:
            with contextlib.suppress(FileNotFoundError):
                shutil.copy2(self.path / name, old / name, follow_symlinks=False)
        # From here on a kill leaves something to undo: the marker says what.
        (self.stage / _SWAPPING).write_text(json.dumps({"written": sorted(files)}))
        for name in stale:
            (self.path / name).unlink(missing_ok=True)
        for name in files:
            if name != PROVENANCE:
                os.replace(new / name, self.path / name)
        os.replace(new / PROVENANCE, self.path / PROVENANCE)
        (self.stage / _SWAPPING).unlink()


@contextlib.contextmanager
def open_folder(out: Path) -> Iterator[Folder]:
    """Open ``out`` for one fetch, made if it is not there; what a killed fetch left in it is undone and removed.

    Raises InputError where another fetch is at work in it, it holds a simulated study or another kind of provenance,
    or it cannot be written. Whatever happens inside, a fetch that does not finish leaves the folder as it was.
    """
    made = not os.path.lexists(out)
    try:
        with _writing(out):
            out.mkdir(parents=True, exist_ok=True)
        with _locked(out):
            with _writing(out):
                for leftover in _leftovers(out):
                    _undo(out, leftover)
                records = read_records(out)
                stage = Path(tempfile.mkdtemp(prefix=_STAGE, dir=out))
            try:
                yield Folder(out, stage, records)
            finally:
                _undo(out, stage)
    finally:
        if made:
            # Only where nothing was fetched: a folder that is not empty stays.
            with contextlib.suppress(OSError):
                out.rmdir()


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror or error}); choose another folder") from None


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """One fetch at a time: the lock goes with the process. Where folders cannot be locked, there is none."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{out}: another fetch is writing here; wait for it, or choose another folder") from None
        yield
    finally:
        os.close(handle)


def _leftovers(out: Path) -> list[Path]:
    """What killed fetches left in ``out``."""
    return [stage for stage in out.glob(f"{_STAGE}*") if stage.is_dir() and not stage.is_symlink()]


def _undo(out: Path, stage: Path) -> None:
    """Put back what a swap that did not finish has moved, if there was one, and remove its files."""
    marker = stage / _SWAPPING
    if marker.exists():
        with contextlib.suppress(ValueError):
            for name in json.loads(marker.read_text())["written"]:
                # A plain name: the folder may have been another's.
                if name == os.path.basename(name) and not (stage / "new" / name).exists():
                    (out / name).unlink(missing_ok=True)
        for kept in (stage / "old").iterdir():
            os.replace(kept, out / kept.name)
        marker.unlink()
    shutil.rmtree(stage, ignore_errors=True)


def read_records(out: Path) -> dict[str, Record]:
    """What the provenance of ``out`` says of each table; empty where there is no provenance.

    Raises InputError for a simulated study, and for a provenance that no fetch wrote.
    """
    path = out / PROVENANCE
    if not os.path.lexists(path):
        return {}
    if is_simulated(out):
        raise InputError(f"{out}: holds a simulated study, which is not to be mixed with runs; choose another folder")
    try:
        provenance = json.loads(path.read_bytes())
        if provenance["what"] != _WHAT or provenance["format"] != _FORMAT:
            raise ValueError
        records = provenance["tables"]
        for table, record in records.items():
            # Names of files come from here: nothing but a table's own is taken.
            names = {f"{table}{suffix}" for suffix in READERS}
            if record["file"] not in names or record["file"] != os.path.basename(record["file"]):
                raise ValueError
            _ = record["sha256"], record["source"]["kind"], record["source"]["name"], record["query"]
            _ = record["revision"], record["rows"], record["item"]
    except (AttributeError, KeyError, TypeError, ValueError, OSError):
        raise InputError(f"{path}: was not written by this version's fetch; choose another folder") from None
    return records


def changed_files(out: Path) -> list[str]:
    """Files of the snapshot in ``out`` that are not as they were fetched; empty where there is no snapshot."""
    try:
        records = read_records(out)
    except InputError:
        return []
    return [record["file"] for record in records.values() if _sha256(out / record["file"]) != record["sha256"]]


def check_local(out: Path, source: Source) -> dict[str, Record]:
    """The records of the tables in ``out`` that came from ``source``, checked against the files.

    Raises InputError where there is no such snapshot, or a file is not as it was fetched.
    """
    records = read_records(out)
    ours = {table: record for table, record in records.items() if record["source"] == _recorded(source)}
    if not ours:
        others = sorted({f"{record['source']['kind']} {record['source']['name']}" for record in records.values()})
        there = f"; it holds {', '.join(others)}" if others else ""
        raise InputError(f"{out}: holds no snapshot of {source}{there}. Leave out --check to fetch it")
    if changed := changed_files(out):
        if any((stage / _SWAPPING).exists() for stage in _leftovers(out)):
            raise InputError(f"{out}: a fetch was killed while it replaced {', '.join(changed)}; fetch again")
        raise InputError(f"{out}: not as fetched: {', '.join(changed)}; move them away, then fetch again")
    return ours


def _recorded(source: Source) -> dict[str, str]:
    return {"kind": source.kind, "name": source.name}


def _sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
