"""What the W&B client is asked for, in the process where it works."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from delphi_jax.fetch.worker import Failure, Message, without_secrets

__all__ = ["answer"]

_WORDS = {
    "service process is busy": "timeout",
    "deadline exceeded": "timeout",
    "Timeout": "timeout",
    "connection refused": "unreachable",
    "no such host": "unreachable",
    "EOF": "broken",
    "connection reset": "broken",
}
"""What the client says of a failure that has no HTTP status."""


def answer(request: Message) -> Iterator[Message]:
    """The number of runs that the filter holds, then one message per run; with ``latest`` only the one updated last."""
    import wandb
    from wandb.errors import AuthenticationError, UsageError

    api_key: str | None = None
    try:
        api = wandb.Api(timeout=request["patience"])
        api_key = api.api_key
        order = "-heartbeat_at" if request["latest"] else "+created_at"
        size = 1 if request["latest"] else request["per_page"]
        runs = api.runs(request["project"], filters=request["filters"], order=order, per_page=size, lazy=False)
        first = next(iter(runs), None)
        yield {"runs": len(runs), "server": api.settings["base_url"]}
        if request["latest"]:
            yield {"updated": first and first.heartbeat_at}
            return
        keys: set[str] = set()
        for position, run in enumerate(runs):
            if position < request["per_page"]:
                keys |= {f"summary:{key}" for key in run.summary_metrics} | {f"config:{key}" for key in run.config}
            values = {selector: _value(run, selector) for selector in request["selectors"]}
            yield {"id": run.id, "name": run.name, "updated": run.heartbeat_at, "values": values}
        yield {"keys": sorted(keys)}
    except UsageError:
        raise Failure("no login") from None
    except (AuthenticationError, wandb.Error) as error:
        raise _failure(error.__cause__ or error, api_key, request) from None
    except ValueError as error:
        # What the client says of a project that is not there, or is not shown to the account.
        if "Could not find project" in str(error):
            raise Failure(404) from None
        raise Failure("its answer cannot be read; try again") from None
    except Exception as error:
        raise _failure(error, api_key, request) from None


def _value(run: Any, selector: str) -> Any:
    """What ``selector`` names of a run: None where it has no such thing."""
    kind, _, key = selector.partition(":")
    if kind == "run":
        return getattr(run, key, None)
    values: Any = run.summary_metrics if kind == "summary" else run.config
    if key in values:
        return values[key]
    # Nested settings are named with dots: config:optimizer.learning_rate.
    for part in key.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return None
        values = values[part]
    return values


def _failure(error: BaseException, api_key: str | None, request: Message) -> Failure:
    """The status in what the client raised, or the word for it."""
    text = str(error)
    response = getattr(error, "response", None)
    status = getattr(response, "http_status", 0) or 0
    if found := re.search(r"HTTP (\d{3})", text):
        status = status or int(found[1])
    if status:
        return Failure(status, "" if status in (401, 404, 429) else _said(text, api_key))
    for words, failure in _WORDS.items():
        if words in text:
            return Failure(failure, waited=request["timeout"] if failure == "timeout" else None)
    if type(error).__module__.startswith("wandb"):
        return Failure("the request failed", _said(text, api_key))
    return Failure(f"its answer cannot be read ({type(error).__name__}); try again")


def _said(text: str, api_key: str | None) -> str:
    return without_secrets(" ".join(text.split()), api_key, os.environ.get("WANDB_API_KEY"))
