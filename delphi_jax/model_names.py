"""Names of external models: from an evaluation run's name to the name that readers know from a model card."""

from __future__ import annotations

import re

from delphi_jax.labels import budget_name

__all__ = ["model_name"]

# A run name is [region and mount] + [organisation--]model id + [--hash] + [_harness suffix].
_REGION = re.compile(r"^marin-(?:us|eu|europe|asia|me|sa|africa|australia|northamerica)-[a-z]+\d+(?:-[a-z])?-")
_MOUNT = re.compile(r"^gcsfuse_mount-(?:models-)?")
_HARNESS = re.compile(r"_?_lmeval.*$|_(?:mmlu|humaneval|gsm8k)_\d+shot.*$", re.IGNORECASE)
_HASH = re.compile(r"--[0-9a-f]{6,}$")

_COMMA_RUN = re.compile(r"isoflop-(?P<budget>\d+(?:\.\d+)?e\+?\d+)-.*comma", re.IGNORECASE)

# Words behind the size; "hf" among them says how a checkpoint is stored, not which model it is.
_REST = r"(?P<rest>(?:-[a-z]+)*)$"
_FAMILIES = (
    # Version, training date (month and day), size: OLMo-2-1124-7B, Olmo-3-1025-7B.
    (
        re.compile(r"^olmo-(?P<version>\d)-\d{4}-(?P<size>\d+(?:[.-]\d+)?b)" + _REST, re.I),
        "OLMo {version} {size}{rest}",
    ),
    # The first OLMo has no version, and its date behind the size: OLMo-7B-0724-hf.
    (re.compile(r"^olmo-(?P<size>\d+b)(?:-\d{4})?" + _REST, re.I), "OLMo {size}{rest}"),
    # Llama-2-7b-hf, Meta-Llama-3-8B, Llama-3-2-1B.
    (
        re.compile(r"^(?:meta-)?llama-(?P<version>\d(?:[.-]\d)?)-(?P<size>\d+b)" + _REST, re.I),
        "Llama {version} {size}{rest}",
    ),
    # Qwen has two versions with a decimal point; every other point belongs to the size: Qwen2-1-5B is 1.5B.
    (
        re.compile(
            r"^qwen-?(?P<version>1[.-]5(?=-\d)|2[.-]5(?=-\d)|\d)-(?P<size>\d+(?:[.-]\d+)?b(?:-a\d+(?:[.-]\d+)?b)?)"
            + _REST,
            re.I,
        ),
        "Qwen {version}{rest} {size}",
    ),
    (re.compile(r"^marin-(?P<size>\d+b)" + _REST, re.I), "Marin {size}{rest}"),
)


def model_name(run_name: str) -> str:
    """Display name of the model behind an evaluation run: "...Qwen--Qwen3-0-6B-Base--a541fe_lmeval..." is
    "Qwen 3 Base 0.6B".

    A comma-mix IsoFLOP run is named by its budget; what matches no family keeps its model id.
    """
    if comma := _COMMA_RUN.search(run_name):
        return f"Comma mix {budget_name(float(comma['budget']))}"
    model = _MOUNT.sub("", _REGION.sub("", run_name.strip()))
    model = _HASH.sub("", _HARNESS.sub("", model))
    model = re.split(r"--|/", model)[-1]
    for pattern, template in _FAMILIES:
        if found := pattern.match(model):
            parts = found.groupdict()
            return template.format(
                version=_decimal(parts.get("version", "")),
                size=_size(parts["size"]),
                rest=_rest(parts["rest"]),
            )
    return model or run_name


def _decimal(number: str) -> str:
    return number.replace("-", ".")


def _size(size: str) -> str:
    """ "0-6B" -> "0.6B", "30b-a3b" -> "30B-A3B"."""
    return re.sub(r"(\d)-(\d)", r"\1.\2", size).upper()


def _rest(words: str) -> str:
    return "".join(f" {word.capitalize()}" for word in words.split("-") if word and word.lower() != "hf")
