"""Fetched tables in a data folder: replaced together or not at all, with a record of where each came from.

``provenance.json`` names the source, query, revision, time, rows and SHA-256 of every table, and of the study file
where that was given with them. A fetch stages the new
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
from pathlib import Path, PurePosixPath
from typing import Any

from delphi_jax.checked import has_suffix, stays
from delphi_jax.fetch.columns import Table
from delphi_jax.io.definition import STUDY_FILE
from delphi_jax.io.files import READERS
from delphi_jax.simulate import is_simulated
from delphi_jax.status import InputError

__all__ = [
    "Check",
    "Fetched",
    "Folder",
    "Snapshot",
    "Source",
    "StudyFile",
    "changed_files",
    "check_local",
    "open_folder",
    "read_records",
    "recorded_files",
]

PROVENANCE = "provenance.json"
_WHAT = "tables fetched by delphi-jax fetch"
_FORMAT = 1
_STAGE = ".delphi-fetch-"
_SWAPPING = "swapping.json"

Record = dict[str, Any]
"""What provenance says of one table, or of the study file."""


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
class StudyFile:
    """The study file that tables are fetched for."""

    name: str
    """Of a shipped study, or the path of the file."""
    content: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class Snapshot:
    """What a fetch left in the folder."""

    folder: Path
    source: Source
    tables: tuple[Fetched, ...]
    removed: tuple[str, ...]
    """Tables of the same source that it has no longer."""
    displaced: tuple[str, ...]
    """Tables that stood for another source until now, each with that source, and a study file for another study."""
    study: str = ""
    """Name of the study of which the study file was written; empty where none was."""
    absent: tuple[str, ...] = ()
    """Tables of the study that the source does not hold."""

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
    study: Record | None = None

    def replace(
        self,
        source: Source,
        tables: Sequence[Fetched],
        client: str,
        study: StudyFile | None = None,
        absent: Sequence[str] = (),
    ) -> Snapshot:
        """Put ``tables`` in the place of what the same source left here, and ``study`` beside them.

        Other sources' tables stay, and so does a study file where none is given, or it is the same. Raises InputError
        where a file that no fetch wrote, or that was edited since, is in the way.
        """
        recorded = _recorded(source)
        names = [part.table.name for part in tables]
        # A dataset is fetched whole; a project or a file is one table of several.
        removed = [name for name, record in self.records.items() if record["source"] == recorded and name not in names]
        removed = removed if source.kind == "hf" else []
        for name in names:
            self._require_free(name)
        study = self.new_study(study)
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
        # A study file that was edited since is the user's own.
        told = self.study if self.study and _sha256(self.path / STUDY_FILE) == self.study["sha256"] else None
        if study is not None:
            told = {"file": STUDY_FILE, "sha256": study.sha256, "study": study.name, "fetched": now}
            if self.study is not None and self.study["study"] != study.name:
                displaced.append(f"{STUDY_FILE} of {self.study['study']}")
        stale = {self.records[name]["file"] for name in [*removed, *records] if name in self.records}
        stale -= {record["file"] for record in records.values()}
        files = {part.table.file: part.table.content for part in tables}
        provenance = {"what": _WHAT, "format": _FORMAT, "tables": records}
        if told is not None:
            provenance["study"] = told
        if study is not None:
            files[STUDY_FILE] = study.content
        files[PROVENANCE] = (json.dumps(provenance, indent=2, ensure_ascii=True) + "\n").encode()
        with _writing(self.path):
            self._swap(files, stale)
        name = "" if study is None else study.name
        return Snapshot(self.path, source, tuple(tables), tuple(removed), tuple(displaced), name, tuple(absent))

    def new_study(self, study: StudyFile | None) -> StudyFile | None:
        """``study`` where it is to be written: not where the folder's own study file is the same.

        Raises InputError where another one, which no fetch wrote or which was edited since, is in the way.
        """
        path = self.path / STUDY_FILE
        if study is None or not os.path.lexists(path):
            return study
        there = _sha256(path)
        if self.study is not None and there in (self.study["sha256"], study.sha256):
            return study
        if there == study.sha256:
            return None
        why = "was not written by a fetch" if self.study is None else "was changed since it was fetched"
        raise InputError(
            f"{path}: {why}, and says something else than the study {study.name}; choose another folder, move it away, "
            "or leave out --study to keep it"
        )

    def _require_free(self, table: str) -> None:
        ours = self.records.get(table)
        if not _inside(self.path, table):
            raise InputError(f"{self.path / table}: leads out of the folder by a link; choose another folder")
        for file in _files(table):
            path = self.path / file
            if not os.path.lexists(path):
                continue
            if ours is None or file != ours["file"]:
                raise InputError(f"{path}: was not written by a fetch; choose another folder, or move it away")
            if _sha256(path) != ours["sha256"]:
                raise InputError(f"{path}: was changed since it was fetched; move it away, then fetch again")

    def _swap(self, files: Mapping[str, bytes], stale: set[str]) -> None:
        """Write ``files``, the record last, and remove the ``stale`` ones, or leave everything as it was."""
        new, old = self.stage / "new", self.stage / "old"
        new.mkdir()
        old.mkdir()
        for name, content in files.items():
            _with_folder(new / name).write_bytes(content)
        for name in {*files, *stale}:
            with contextlib.suppress(FileNotFoundError):
                shutil.copy2(self.path / name, _with_folder(old / name), follow_symlinks=False)
        folders = dict.fromkeys(folder for name in files for folder in reversed(_folders(name)))
        made = [folder for folder in folders if not os.path.lexists(self.path / folder)]
        # From here on a kill leaves something to undo: the marker says what.
        (self.stage / _SWAPPING).write_text(json.dumps({"written": sorted(files), "made": made}))
        for name in stale:
            (self.path / name).unlink(missing_ok=True)
        for name in files:
            if name != PROVENANCE:
                os.replace(new / name, _with_folder(self.path / name))
        os.replace(new / PROVENANCE, self.path / PROVENANCE)
        (self.stage / _SWAPPING).unlink()
        _remove_empty(self.path, [folder for name in stale for folder in _folders(name)])


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
                records, study = _read_provenance(out)
                stage = Path(tempfile.mkdtemp(prefix=_STAGE, dir=out))
            try:
                yield Folder(out, stage, records, study)
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
            told = json.loads(marker.read_text())
            for name in told["written"]:
                # Within the folder, which may have been another's.
                if _inside(out, name) and not (stage / "new" / name).exists():
                    (out / name).unlink(missing_ok=True)
            _remove_empty(out, [folder for folder in reversed(told.get("made", [])) if _inside(out, folder)])
        old = stage / "old"
        for kept in [path for path in old.rglob("*") if path.is_symlink() or not path.is_dir()]:
            if _inside(out, name := kept.relative_to(old).as_posix()):
                os.replace(kept, _with_folder(out / name))
        marker.unlink()
    shutil.rmtree(stage, ignore_errors=True)


def _folders(name: str) -> list[str]:
    """The folders of a file below the data folder, the innermost first."""
    return [str(folder) for folder in PurePosixPath(name).parents][:-1]


def _with_folder(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _remove_empty(out: Path, folders: Sequence[str]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            (out / folder).rmdir()


def _inside(out: Path, name: str) -> bool:
    """Whether ``name`` is below ``out``: it does not climb, and none of its folders is a link."""
    return stays(name) and "\\" not in name and not any((out / folder).is_symlink() for folder in _folders(name))


def _files(table: str) -> list[str]:
    """What the file of a table may be called."""
    return [table] if has_suffix(table) else [f"{table}{suffix}" for suffix in READERS]


def read_records(out: Path) -> dict[str, Record]:
    """What the provenance of ``out`` says of each table; empty where there is no provenance.

    Raises InputError for a simulated study, and for a provenance that no fetch wrote.
    """
    return _read_provenance(out)[0]


def _read_provenance(out: Path) -> tuple[dict[str, Record], Record | None]:
    """What the provenance of ``out`` says of each table, and of the study file if it was fetched with them."""
    path = out / PROVENANCE
    if not os.path.lexists(path):
        return {}, None
    if is_simulated(out):
        raise InputError(f"{out}: holds a simulated study, which is not to be mixed with runs; choose another folder")
    try:
        provenance = json.loads(path.read_bytes())
        if provenance["what"] != _WHAT or provenance["format"] != _FORMAT:
            raise ValueError
        records = provenance["tables"]
        for table, record in records.items():
            # Names of files come from here: nothing but a table's own is taken.
            if record["file"] not in _files(table) or not _inside(out, record["file"]):
                raise ValueError
            _ = record["sha256"], record["source"]["kind"], record["source"]["name"], record["query"]
            _ = record["revision"], record["rows"], record["item"]
        study = provenance.get("study")
        if study is not None:
            _ = study["sha256"], study["study"]
            if study["file"] != STUDY_FILE:
                raise ValueError
    except (AttributeError, KeyError, TypeError, ValueError, OSError):
        raise InputError(f"{path}: was not written by this version's fetch; choose another folder") from None
    return records, study


def changed_files(out: Path) -> list[str]:
    """Files of the snapshot in ``out`` that are not as they were fetched; empty where there is no snapshot."""
    return [file for file, sha256 in recorded_files(out).items() if _sha256(out / file) != sha256]


def recorded_files(out: Path) -> dict[str, str]:
    """The SHA-256 of each file of the snapshot in ``out`` as it was fetched; empty where there is no snapshot."""
    try:
        records, study = _read_provenance(out)
    except InputError:
        return {}
    told = [*records.values(), *([study] if study is not None else [])]
    return {record["file"]: record["sha256"] for record in told}


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
