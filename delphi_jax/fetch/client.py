"""Clients of W&B and Hugging Face at work in a process of their own, and what became of their failures.

They keep threads, a service process and settings, read environment variables on import and set some: none of that
reaches the caller. The process is ended with the fetch, whatever it is doing.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from delphi_jax.fetch.columns import quoted
from delphi_jax.fetch.snapshot import Source
from delphi_jax.status import InputError

__all__ = ["RETRIES", "TIMEOUT", "Progress", "ask", "no_progress", "refuse", "require"]

RETRIES = 5
"""Times that a request is repeated after a failure that may pass; Hugging Face's client has the same number."""
TIMEOUT = 30.0
"""Seconds to wait for an answer."""

Progress = Callable[[int, int], None]
"""Called with what is done and the total."""

_START = "import sys; sys.path[:] = sys.argv[1:]; from delphi_jax.fetch.worker import main; main()"

_LOG_IN = {
    "wandb": "log in with `wandb login`, or set WANDB_API_KEY",
    "hf": "log in with `hf auth login`, or set HF_TOKEN; a gated dataset asks for access on its page",
    "file": "put user and password into ~/.netrc, or get a URL that needs none",
}
_LOOK = {
    "wandb": "check ENTITY/PROJECT, and that your account may read it",
    "hf": "check OWNER/DATASET and --revision; a private dataset is shown to those logged in alone: " + _LOG_IN["hf"],
    "file": "check the URL",
}


def no_progress(done: int, total: int) -> None:
    pass


def require(module: str, extra: str, what: str) -> None:
    """Raise InputError where ``module``, which the ``extra`` brings, is not installed."""
    if importlib.util.find_spec(module) is None:
        raise InputError(f"fetching {what} needs {module}: install delphi-jax with its [{extra}] extra")


def ask(source: Source, request: Mapping[str, Any], settings: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The messages with which a client answers ``request``, with ``settings`` in its environment.

    ``{scratch}`` in a setting stands for a folder that is gone afterwards. Raises InputError where the client fails.
    """
    with tempfile.TemporaryDirectory(prefix="delphi-fetch-") as scratch:
        environment = os.environ | {name: value.format(scratch=scratch) for name, value in settings.items()}
        # The caller's W&B service has settings of its own.
        environment.pop("WANDB_SERVICE", None)
        with _process(environment) as process:
            assert process.stdin is not None and process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                # The pipe stays open: where it ends, this process is gone, and the other one follows.
                process.stdin.write(json.dumps({**request, "scratch": scratch}).encode() + b"\n")
                process.stdin.flush()
            for line in process.stdout:
                message = json.loads(line)
                if "failed" in message:
                    refuse(source, message["failed"], message.get("said", ""), message.get("waited"))
                if "finished" in message:
                    return
                yield message
            raise InputError(f"{source}: its client ended with code {process.wait()}; nothing was changed, try again")


@contextlib.contextmanager
def _process(environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _START, *sys.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        # A group of its own: an interrupt from the keyboard is for this process, which then ends the other.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        process.wait()


def refuse(source: Source, failure: str | int, said: str = "", waited: float | None = None) -> NoReturn:
    """Raise InputError for a ``failure``: an HTTP status, or one of "timeout", "broken", "unreachable", "no login",
    "half" (less than was announced); any other word is said as it is. ``said`` is the server's own word on it.
    """
    tries = f"after {RETRIES + 1} tries"
    word = f" ({quoted(said)})" if said else ""
    seconds = f" within {waited:g} s" if waited else ""
    text = {
        "no login": f"no credentials found: {_LOG_IN[source.kind]}",
        "timeout": f"no answer{seconds}, {tries}: try again later, or allow more with --timeout",
        "unreachable": f"cannot be reached, {tries}: check the network, the proxy and the address",
        "broken": f"the transfer broke off, {tries}: try again",
        "half": f"less came than was announced{word}: the source may be changing, try again",
        401: f"refused the credentials, or asks for some (401): {_LOG_IN[source.kind]}",
        403: f"refused access (403){word}: {_LOG_IN[source.kind]}",
        404: f"not found (404): {_LOOK[source.kind]}",
        429: f"too many requests (429), {tries} with the waits that it asked for: try again later",
    }.get(failure)
    if text is None and isinstance(failure, int):
        text = f"answered with HTTP status {failure}{f', {tries}' if failure >= 500 else ''}{word}: try again later"
    # Not chained: what a client raised may hold a URL with all that is secret in it.
    raise InputError(f"{source}: {text or f'{failure}{word}'}") from None
