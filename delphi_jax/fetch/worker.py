"""The process in which a client works: a request on standard input, messages as JSON lines on standard output."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

__all__ = ["Failure", "main", "without_secrets"]

Message = dict[str, Any]


class Failure(Exception):
    """What a client could not do: an HTTP status or a word that ``client.refuse`` knows, and what the server said."""

    def __init__(self, failure: int | str, said: str = "", waited: float | None = None) -> None:
        super().__init__(failure)
        self.message = {"failed": failure, "said": said, "waited": waited}


def main() -> NoReturn:
    """Answer one request, then end at once."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # What a client prints is no message.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_caller, args=(request["scratch"],), daemon=True).start()
    try:
        for message in _answer(request["client"])(request):
            print(json.dumps(message), file=out, flush=True)
        last: Message = {"finished": True}
    except Failure as failure:
        last = failure.message
    except BaseException as error:
        # Its text may hold anything, a token in a URL included: the type says enough.
        last = {"failed": f"its client failed ({type(error).__name__}); nothing was changed, try again"}
    print(json.dumps(last), file=out, flush=True)
    # Not by way of the client's exit hooks: they may wait for a server.
    os._exit(0)


def without_secrets(text: str, *secrets: str | None) -> str:
    """``text`` without ``secrets``, credentials in URLs and the queries of URLs."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return re.sub(r"(\w+://)[^\s/@]*@", r"\1", re.sub(r"(\w+://[^\s?]*)\?\S*", r"\1", text))


def _answer(client: str) -> Callable[[Message], Iterator[Message]]:
    if client == "wandb":
        from delphi_jax.fetch.wandb_client import answer
    else:
        from delphi_jax.fetch.hf_client import answer
    return answer


def _end_with_caller(scratch: str) -> None:
    """Wait until the caller is gone, then tidy up in its place and end, with all that was started from here."""
    sys.stdin.buffer.read()
    shutil.rmtree(scratch, ignore_errors=True)
    if hasattr(os, "killpg"):
        os.killpg(os.getpgid(0), signal.SIGKILL)
    os._exit(1)
