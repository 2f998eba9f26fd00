"""Names of external models, from evaluation run names to model cards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from delphi_jax.model_names import model_name

PREFIX = "marin-us-east5-a-gcsfuse_mount-models-"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("Qwen--Qwen3-0-6B-Base", "Qwen 3 Base 0.6B"),
        ("Qwen--Qwen3-32B-Base", "Qwen 3 Base 32B"),
        ("Qwen--Qwen3-8B", "Qwen 3 8B"),
        ("Qwen--Qwen3-30B-A3B-Base", "Qwen 3 Base 30B-A3B"),
        ("Qwen--Qwen2-5-7B", "Qwen 2.5 7B"),
        ("Qwen--Qwen2-5-0-5B", "Qwen 2.5 0.5B"),
        ("Qwen--Qwen2-5-1-5B-Instruct", "Qwen 2.5 Instruct 1.5B"),
        ("Qwen--Qwen2-1-5B", "Qwen 2 1.5B"),
        ("Qwen--Qwen2-7B", "Qwen 2 7B"),
        ("Qwen--Qwen1-5-1-8B", "Qwen 1.5 1.8B"),
        ("meta-llama--Llama-2-70b-hf", "Llama 2 70B"),
        ("meta-llama--Llama-2-7b-chat-hf", "Llama 2 7B Chat"),
        ("meta-llama--Meta-Llama-3-8B", "Llama 3 8B"),
        ("meta-llama--Llama-3-1-70B-Instruct", "Llama 3.1 70B Instruct"),
        ("meta-llama--Llama-3-2-1B", "Llama 3.2 1B"),
        ("allenai--OLMo-2-0325-32B", "OLMo 2 32B"),
        ("allenai--OLMo-2-0425-1B-Instruct", "OLMo 2 1B Instruct"),
        ("allenai--Olmo-3-1025-7B", "OLMo 3 7B"),
        ("allenai--OLMo-7B-0724-hf", "OLMo 7B"),
        ("allenai--OLMo-1B-hf", "OLMo 1B"),
        ("marin-community--marin-32b-base", "Marin 32B Base"),
        ("google--gemma-3-4b-pt", "gemma-3-4b-pt"),
        ("HuggingFaceTB--SmolLM2-1-7B", "SmolLM2-1-7B"),
    ],
)
@pytest.mark.parametrize(
    "run_name",
    [
        PREFIX + "{mangled}--a541fe_lmeval_mmlu_5shot-be65b4",
        "marin-us-central2-{mangled}--000000_lmeval",
        "marin-eu-west4-a-gcsfuse_mount-models-{mangled}--c8160e_mmlu_0shot-09149c",
        "{mangled}",
        "{id}",
        "{slashed}",
    ],
)
def test_families(model: str, expected: str, run_name: str) -> None:
    filled = run_name.format(mangled=model, id=model.split("--")[-1], slashed=model.replace("--", "/"))
    assert model_name(filled) == expected


def test_points_in_plain_ids() -> None:
    assert model_name("Qwen/Qwen2.5-0.5B-Instruct") == "Qwen 2.5 Instruct 0.5B"
    assert model_name("meta-llama/Llama-3.2-1B") == "Llama 3.2 1B"


@pytest.mark.parametrize(
    ("run_name", "expected"),
    [
        ("isoflop-1e+19-d1536-L16-B32-comma-mix-4582d5", "Comma mix 1e19"),
        ("isoflop-6e+18-d1536-L16-B32-comma-mix-b6e0ca", "Comma mix 6e18"),
        ("my-own-model", "my-own-model"),
        ("--", "--"),
        ("marin-us-central2-broken--Broken-1B--000000_lmeval", "Broken-1B"),
    ],
)
def test_others(run_name: str, expected: str) -> None:
    assert model_name(run_name) == expected


def test_golden_figure_names(golden_dir: Path) -> None:
    figure = json.loads((golden_dir / "figures" / "mmlu-emergence.json").read_text())
    trace = next(t for t in figure["data"] if t.get("name") == "External Models Used for Regression")
    names = {float(logprob): name for name, logprob in trace["customdata"]}
    rows = json.loads((golden_dir / "data" / "mmlu_external.json").read_text())
    used = [row for row in rows if row["choice_logprob"] in names and "comma" not in row["run_name"].lower()]
    assert len(used) == len(names)
    for row in used:
        assert model_name(row["run_name"]) == names[row["choice_logprob"]]


def test_golden_display_names(golden_dir: Path) -> None:
    rows = json.loads((golden_dir / "data" / "gsm8k_external.json").read_text())
    kept = [row for row in rows if row["run_name"] != "broken"]
    assert len(kept) == 13
    for row in kept:
        assert model_name(row["run_name"]) == row["display_name"]
