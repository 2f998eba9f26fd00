"""Wheel and sdist: built from the checkout without a network, they hold what they should and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

import delphi_jax

pytest.importorskip("build", reason="build is not installed")
pytest.importorskip("hatchling", reason="hatchling is not installed")

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "delphi_jax"
EXTRAS = {"cuda", "docs", "fetch", "hf", "images", "parquet", "test", "wandb"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as it lies where it is installed."""
    out = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out)
    return out


@pytest.fixture(scope="module")
def metadata(unpacked: Path) -> Message:
    (found,) = unpacked.glob("*.dist-info/METADATA")
    return Parser().parsestr(found.read_text())


def files_of(folder: Path) -> set[str]:
    """The files below ``folder`` that are no caches, relative to it."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if "__pycache__" not in path.parts}


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert len(names) == len(set(names))
    info = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert set(names) - info == {f"delphi_jax/{name}" for name in files_of(PACKAGE)}
    assert {name.split("/", 1)[1] for name in info} == {"METADATA", "RECORD", "WHEEL", "entry_points.txt"} | {
        "licenses/LICENSE"
    }
    for name in ("py.typed", "__init__.pyi", "studies/delphi.toml", "report/page.html", "report/page.css"):
        assert f"delphi_jax/{name}" in names


def test_the_sdist_holds_what_building_and_testing_need(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = [name.split("/", 1)[1] for name in archive.getnames() if "/" in name]
    assert {f"delphi_jax/{name}" for name in files_of(PACKAGE)} <= set(names)
    for folder in ("tests", "data", "examples", "docs"):
        assert {f"{folder}/{name}" for name in files_of(ROOT / folder)} <= set(names)
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "PKG-INFO"} <= set(names)
    known = {"delphi_jax", "tests", "benchmarks", "data", "examples", "docs"}
    assert {name.split("/")[0] for name in names if "/" in name} == known
    stray = [name for name in names if {"__pycache__", ".pytest_cache"} & set(name.split("/")) or name.endswith(".pyc")]
    assert not stray


def test_the_metadata_says_what_the_package_is(metadata: Message) -> None:
    assert metadata["Name"] == "delphi-jax"
    assert metadata["Version"] == delphi_jax.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert set(metadata.get_all("Provides-Extra")) >= EXTRAS
    needed = metadata.get_all("Requires-Dist")
    assert any(line.startswith("jax>=") for line in needed)
    assert not [line for line in needed if "@" in line or "file:" in line]
    assert "Typing :: Typed" in metadata.get_all("Classifier")
    assert metadata.get_payload().startswith("# delphi_jax")


def test_what_was_installed_runs(unpacked: Path, tmp_path: Path) -> None:
    code = (
        "import delphi_jax as dj; print(dj.__file__); print(dj.__version__, dj.delphi().name); "
        "from delphi_jax.cli import command; command()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    where, what, *usage = done.stdout.splitlines()
    assert where == str(unpacked / "delphi_jax" / "__init__.py")
    assert what.startswith(delphi_jax.__version__)
    assert usage[0].startswith("usage:")
    (points,) = unpacked.glob("*.dist-info/entry_points.txt")
    assert "delphi-jax = delphi_jax.cli:command" in points.read_text()
