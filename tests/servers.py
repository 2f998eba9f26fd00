"""Servers on the loopback that speak what the clients of W&B and Hugging Face speak, and that fail when told to."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}


@dataclass(frozen=True)
class Answer:
    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    """Bytes after which the connection is closed, though all were announced."""
    delay: float = 0.0
    """Seconds before the answer, or until the server ends."""


class Server:
    """Answers as it is told, after the faults that were ordered; keeps every request."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._faults: list[list[Any]] = []
        self._ended = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = Request(self.command, self.path, dict(self.headers), body)
                outer.requests.append(request)
                self._send(outer._fault(request) or outer.answer(request))

            do_POST = do_HEAD = do_GET

            def _send(self, answer: Answer) -> None:
                outer._ended.wait(answer.delay)
                try:
                    self.send_response(answer.status)
                    for name, value in answer.headers.items():
                        self.send_header(name, value)
                    if "Content-Length" not in answer.headers:
                        self.send_header("Content-Length", str(len(answer.body)))
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(answer.body[: answer.cut])
                except OSError:
                    return
                if answer.cut is not None:
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                # A client that was killed.
                pass

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, request: Request) -> Answer:
        raise NotImplementedError

    def fail(self, where: str, answer: Answer, times: int | None = None, after: int = 0) -> None:
        """Give ``answer`` to requests whose method, target and body hold ``where``, ``times`` times (None: always)."""
        self._faults.append([where, answer, times, after])

    def heal(self) -> None:
        self._faults.clear()

    def _fault(self, request: Request) -> Answer | None:
        text = f"{request.method} {request.target} {request.body.decode('utf-8', 'replace')}"
        for fault in self._faults:
            where, answer, times, after = fault
            if not re.search(where, text):
                continue
            if after:
                fault[3] -= 1
            elif times is None or times:
                fault[2] = None if times is None else times - 1
                return answer
        return None

    @contextmanager
    def running(self) -> Iterator[Server]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()


class Files(Server):
    """Files by path, with an ETag each; for ``user`` and ``password`` where they are given."""

    def __init__(self, files: dict[str, bytes], authorization: str | None = None) -> None:
        super().__init__()
        self.files = files
        self.authorization = authorization

    def answer(self, request: Request) -> Answer:
        if self.authorization and request.headers.get("Authorization") != self.authorization:
            return Answer(status=401)
        if request.path not in self.files:
            return Answer(status=404)
        body = self.files[request.path]
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        if request.headers.get("If-None-Match") == etag:
            return Answer(status=304, headers={"ETag": etag, "Content-Length": "0"})
        return Answer(body, headers={"ETag": etag})


class Hub(Server):
    """One dataset as the Hugging Face Hub serves it: a revision, a listing in pages, files with their checksums."""

    def __init__(self, dataset: str, files: dict[str, bytes], *, token: str | None = None, page: int = 3) -> None:
        super().__init__()
        self.dataset = dataset
        self.files = files
        self.token = token
        self.page = page
        self.listed: list[dict[str, Any]] | None = None
        """What the listing says, where it is not the truth."""

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()

    def answer(self, request: Request) -> Answer:
        if self.token and request.headers.get("authorization", request.headers.get("Authorization")) != (
            f"Bearer {self.token}"
        ):
            return Answer(b'{"error":"Invalid credentials"}', 401, {"Content-Type": "application/json"})
        api = f"/api/datasets/{self.dataset}"
        if request.path == api or request.path.startswith(f"{api}/revision/"):
            if request.path != api and request.path.rpartition("/")[2] not in ("main", self.commit):
                return Answer(status=404, headers={"X-Error-Code": "RevisionNotFound"})
            info = {"id": self.dataset, "sha": self.commit, "lastModified": "2026-01-02T03:04:05.000Z", "siblings": []}
            return _json(info)
        if request.path == f"{api}/tree/{self.commit}":
            return self._tree(request)
        found = re.fullmatch(f"/datasets/{self.dataset}/resolve/([0-9a-f]+)/(.+)", request.path)
        if not found or found[1] != self.commit or found[2] not in self.files:
            code = "EntryNotFound" if found else "RepoNotFound"
            return Answer(status=404, headers={"X-Error-Code": code, "X-Repo-Commit": self.commit})
        body = self.files[found[2]]
        headers = {"ETag": f'"{_blob(body)}"', "X-Repo-Commit": self.commit, "Accept-Ranges": "bytes"}
        if resumed := re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", request.headers.get("range", ""))):
            start = int(resumed[1])
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            return Answer(body[start:], 206, headers)
        return Answer(body, headers=headers)

    def _tree(self, request: Request) -> Answer:
        entries: list[dict[str, Any]] = [{"type": "directory", "path": "data", "oid": "0" * 40, "size": 0}]
        for path, body in self.files.items():
            entries.append({"type": "file", "path": path, "oid": _blob(body), "size": len(body)})
            if path.endswith(".parquet"):
                sha256 = hashlib.sha256(body).hexdigest()
                entries[-1]["lfs"] = {"oid": sha256, "size": len(body), "pointerSize": 130}
        entries = self.listed if self.listed is not None else entries
        start = int(request.query.get("cursor", "0"))
        more = start + self.page < len(entries)
        target = f"{self.url}{request.path}?recursive=True&cursor={start + self.page}"
        return _json(entries[start : start + self.page], {"Link": f'<{target}>; rel="next"'} if more else {})


class Wandb(Server):
    """One project as W&B serves it: GraphQL with the account, and runs in pages."""

    def __init__(self, project: str, runs: list[dict[str, Any]], *, key: str) -> None:
        super().__init__()
        self.project = project
        self.runs = runs
        self.key = key
        self.announced: int | None = None
        """The number of runs that it says to have, where it is not the truth."""

    def answer(self, request: Request) -> Answer:
        asked = json.loads(request.body)
        given = request.headers.get("Authorization")
        if given != "Basic " + base64.b64encode(f"api:{self.key}".encode()).decode():
            return Answer(b'{"errors":[{"message":"invalid API key"}]}', 401, {"Content-Type": "application/json"})
        if "viewer" in asked["query"]:
            viewer = {"id": "1", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}
            return _json({"data": {"viewer": viewer}})
        variables = asked["variables"]
        if f"{variables['entity']}/{variables['project']}" != self.project:
            return _json({"data": {"project": None}})
        runs = [run for run in self.runs if _passes(run, json.loads(variables["filters"]))]
        if variables["order"] == "-heartbeat_at":
            runs = sorted(runs, key=lambda run: run["heartbeatAt"], reverse=True)
        start = int(variables.get("cursor") or 0)
        stop = start + variables["perPage"]
        edges = [{"node": node(run), "cursor": str(start + i + 1)} for i, run in enumerate(runs[start:stop])]
        page = {"edges": edges, "pageInfo": {"endCursor": str(stop), "hasNextPage": stop < len(runs)}}
        count = len(runs) if self.announced is None else self.announced
        project = {"internalId": "1", "runCount": count, "readOnly": True, "runs": page}
        return _json({"data": {"project": project}})


def run(name: str, summary: Mapping[str, Any], *, state: str = "finished", **more: Any) -> dict[str, Any]:
    """A run of :class:`Wandb`."""
    identity = hashlib.md5(name.encode()).hexdigest()[:8]
    heartbeat = more.pop("heartbeatAt", "2026-01-02T03:04:05Z")
    config = more.pop("config", {})
    return {
        "name": identity,
        "displayName": name,
        "state": state,
        "summaryMetrics": dict(summary),
        "config": config,
        "heartbeatAt": heartbeat,
    } | more


def node(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run as the query that the client sends asks for it."""
    return {
        "projectId": "1",
        "id": f"storage-{run['name']}",
        "tags": [],
        "sweepName": None,
        "group": None,
        "jobType": None,
        "commit": None,
        "readOnly": True,
        "createdAt": "2026-01-01T00:00:00Z",
        "description": None,
        "notes": None,
        "systemMetrics": "{}",
        "historyLineCount": 1,
        "user": {"name": "me", "username": "me"},
        "historyKeys": None,
        **run,
        "summaryMetrics": json.dumps(run["summaryMetrics"]),
        "config": json.dumps({key: {"value": value} for key, value in run["config"].items()}),
    }


def _passes(run: Mapping[str, Any], filters: Mapping[str, Any]) -> bool:
    """As far as the tests filter."""
    for key, wanted in filters.items():
        if key == "$and":
            if not all(_passes(run, each) for each in wanted):
                return False
        elif key.startswith("config."):
            value = run["config"].get(key.removeprefix("config."))
            if isinstance(wanted, dict):
                if value is None or not value > wanted["$gt"]:
                    return False
            elif value != wanted:
                return False
        elif run[key] != wanted:
            return False
    return True


def _blob(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


def _json(value: Any, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(json.dumps(value).encode(), headers={"Content-Type": "application/json", **(headers or {})})
