"""What the Hugging Face client is asked for, in the process where it works."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from delphi_jax import __version__
from delphi_jax.fetch.worker import Failure, Message, without_secrets

__all__ = ["answer"]

_T = TypeVar("_T")

_LONGEST_WAIT = 60.0
_PASSING = (408, 429, 500, 502, 503, 504)
"""HTTP status of failures that may pass."""


def answer(request: Message) -> Iterator[Message]:
    """The commit and files of a dataset; then, for each path asked for, where its file lies in the client's cache."""
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RevisionNotFoundError

    api = HfApi(library_name="delphi_jax", library_version=__version__)
    repo = {"repo_id": request["dataset"], "repo_type": "dataset"}
    try:
        if "paths" not in request:
            asked = {"revision": request["revision"], "timeout": request["timeout"]}
            info = _retried(functools.partial(api.dataset_info, request["dataset"], **asked), request["retries"])
            if not re.fullmatch(r"[0-9a-f]{40,64}", str(info.sha)):
                raise Failure("its answer names no commit; try again")
            yield {
                "server": api.endpoint,
                "commit": info.sha,
                "modified": info.last_modified and info.last_modified.isoformat(),
            }
            for entry in api.list_repo_tree(**repo, revision=info.sha, recursive=True):
                if (size := getattr(entry, "size", None)) is not None:
                    sha256 = entry.lfs.sha256 if entry.lfs else None
                    yield {"path": entry.path, "size": size, "blob": entry.blob_id, "sha256": sha256}
            return
        for path in request["paths"]:
            yield {"path": path, "file": api.hf_hub_download(**repo, filename=path, revision=request["commit"])}
    except GatedRepoError:
        raise Failure(403, "the dataset is gated") from None
    except RevisionNotFoundError:
        raise Failure(404) from None
    except HfHubHTTPError as error:
        raise Failure(error.response.status_code, _said(error)) from None
    except httpx2.TimeoutException:
        raise Failure("timeout", waited=request["timeout"]) from None
    except httpx2.ConnectError:
        raise Failure("unreachable") from None
    except httpx2.TransportError:
        raise Failure("broken") from None
    except LocalEntryNotFoundError as error:
        _refuse_head(error, request["timeout"])
    except OSError as error:
        # The client's own check of a file's size.
        raise Failure("broken" if "Consistency" in str(error) else f"cannot be kept ({error.strerror})") from None


def _retried(ask: Callable[[], _T], retries: int) -> _T:
    """The answer to a question that the client itself asks but once."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    for attempt in range(retries):
        wait: float = 2**attempt
        try:
            return ask()
        except HfHubHTTPError as error:
            if error.response.status_code not in _PASSING:
                raise
            asked = error.response.headers.get("Retry-After", "")
            wait = float(asked) if asked.isdigit() else wait
        except (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError):
            pass
        time.sleep(min(wait, _LONGEST_WAIT))
    return ask()


def _refuse_head(error: Exception, timeout: float) -> None:
    """A file's description could not be had: for the reason that the client keeps as the cause."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    cause: Any = error.__cause__
    if isinstance(cause, HfHubHTTPError):
        raise Failure(cause.response.status_code, _said(cause)) from None
    if isinstance(cause, httpx2.TimeoutException):
        raise Failure("timeout", waited=timeout) from None
    raise Failure("unreachable") from None


def _said(error: Any) -> str:
    from huggingface_hub import get_token

    return without_secrets(error.server_message or "", get_token())
