"""The files around the code: requirements, Spaces front matter, sizes, licences, links."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
MB = 1_000_000
LARGEST_FILE = 90 * MB
ALL_ASSETS = 150 * MB
TEXT = {".py", ".md", ".toml", ".txt", ".sh", ".css", ".js", ".json", ".csv", ""}


def _requirements(name: str) -> dict[str, Requirement]:
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text("utf-8").splitlines())
    found = [Requirement(line) for line in lines if line and not line.startswith("-")]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def _tracked() -> list[Path]:
    """Files that git knows, without those deleted just now."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    listed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def _front_matter() -> dict[str, object]:
    text = (ROOT / "README.md").read_text("utf-8")
    matter = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    assert matter, "README.md does not begin with front matter"
    return yaml.safe_load(matter[1])


@pytest.mark.parametrize("version", ["2.8.0", "2.9.1", "2.10.0", "2.11.0", "2.13.0"])
def test_requirements_admit_the_torch_of_zerogpu_and_of_the_desk(version: str) -> None:
    assert _requirements("requirements.txt")["torch"].specifier.contains(version)


def test_constraints_lie_within_the_requirements() -> None:
    pins = _requirements("constraints.txt")
    wanted = _requirements("requirements.txt") | _requirements("requirements-dev.txt")
    for name, requirement in wanted.items():
        (pin,) = pins[name].specifier
        assert pin.operator == "==", name
        assert requirement.specifier.contains(pin.version), f"{requirement} against {pins[name]}"


def test_nothing_pulls_in_torchvision_or_a_local_path() -> None:
    names = _requirements("requirements.txt").keys() | _requirements("constraints.txt").keys()
    assert not names & {"torchvision", "torchaudio", "triton", "xformers"}
    assert not [name for name in names if name.startswith("nvidia")]
    for name in ("requirements.txt", "requirements-dev.txt", "constraints.txt"):
        assert not re.search(r"file:|://|\+cpu", (ROOT / name).read_text("utf-8"))


def test_every_import_of_the_program_is_required() -> None:
    """What is imported is asked for by name, not found by luck through another package."""
    required = _requirements("requirements.txt").keys()
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in _tracked()
        if _is_program(path)
        for name in _third_party(path)
        if canonicalize_name(DISTRIBUTIONS.get(name, name)) not in required | _optional(path)
        if name not in EXTRA.get(path.relative_to(ROOT).parts[0], ())
    }
    assert not missing


# Import name -> distribution, where they differ.
DISTRIBUTIONS = {"PIL": "pillow", "faiss": "faiss-cpu", "groundingdino": "groundingdino-py"}
# The one module that imports an optional extra, when asked to.
OPTIONAL = {"attribution/detection/groundingdino_py.py": "requirements-groundingdino.txt"}


def _optional(path: Path) -> set[str]:
    name = OPTIONAL.get(path.relative_to(ROOT).as_posix())
    return set(_requirements(name)) if name else set()


# starlette is gradio's own server, spaces is there on Spaces, trak is a peer to compare with;
# matplotlib and scipy serve figures, filelock the results, resvg_py remakes the data.
EXTRA = {
    "app": ("starlette", "spaces"),
    "precompute": ("matplotlib", "resvg_py"),
    "evaluation": ("filelock", "matplotlib", "scipy"),
    "benchmarks": ("trak",),
}


def _is_program(path: Path) -> bool:
    return path.suffix == ".py" and path.relative_to(ROOT).parts[0] != "tests"


def _third_party(path: Path) -> set[str]:
    own = {"app", "attribution", "precompute", "evaluation", "benchmarks"}
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names - own - sys.stdlib_module_names


def test_front_matter_is_a_space_that_can_start() -> None:
    matter = _front_matter()
    assert matter["sdk"] == "gradio"
    (pin,) = _requirements("constraints.txt")["gradio"].specifier
    assert matter["sdk_version"] == pin.version
    assert str(matter["python_version"]) == "3.12"
    assert (ROOT / str(matter["app_file"])).is_file()
    assert len(str(matter["short_description"])) <= 60  # the hub refuses longer ones
    assert matter["license"] == "apache-2.0"
    assert matter["title"] and matter["emoji"] and matter["tags"]


def test_assets_stay_small_enough_to_clone() -> None:
    sizes = {path: path.stat().st_size for path in _tracked()}
    too_large = [str(path) for path, size in sizes.items() if size >= LARGEST_FILE]
    assert not too_large
    assert sum(s for path, s in sizes.items() if "assets" in path.parts) < ALL_ASSETS


def test_no_pickles_are_shipped() -> None:
    forbidden = {".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin", ".part", ".pyc"}
    assert not [str(path) for path in _tracked() if path.suffix in forbidden]


def test_links_between_the_documents_lead_somewhere() -> None:
    broken = []
    for path in (p for p in _tracked() if p.suffix == ".md"):
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text("utf-8")):
            if "://" not in target and not (path.parent / target).exists():
                broken.append(f"{path.relative_to(ROOT)}: {target}")
    assert not broken


def test_modules_named_in_the_architecture_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    named = re.findall(
        r"`((?:app|attribution|precompute|evaluation|benchmarks|tests)/[\w/.]*)`", text
    )
    assert named
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_architecture_maps_every_module_of_the_library() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    modules = {path.name for path in (ROOT / "attribution").glob("*.py")} - {"__init__.py"}
    assert not {name for name in modules if name not in text}


def test_no_path_of_one_machine_is_in_the_text() -> None:
    home = re.compile(r"(?<![\w.])/(?:home|root|Users|mnt|workspace)/\w")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in _tracked()
        if path.suffix in TEXT and path != Path(__file__)
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1)
        if home.search(line)
    ]
    assert not found


def test_a_licence_and_a_dedication_are_there() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")
    assert "public domain" in (ROOT / "assets/openclipart/LICENCE.md").read_text("utf-8").lower()


@pytest.mark.parametrize("name", ["make demo", "make test"])
def test_the_readme_names_the_two_commands(name: str) -> None:
    target = name.removeprefix("make ")
    assert name in (ROOT / "README.md").read_text("utf-8")
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert "make test" in (ROOT / ".ci/run").read_text("utf-8")
