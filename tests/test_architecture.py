"""The structure that docs/architecture.md promises, held against the imports themselves."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.services import ROOT

ROOMS = ("contracts", "training", "serving", "monitoring")
ALLOWED = {
    "contracts": {"contracts"},
    "training": {"contracts", "training"},
    "serving": {"contracts", "serving", "monitoring"},
    "monitoring": {"contracts", "monitoring"},
}
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_rooms_import_only_what_they_may(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    rooms = {name.split(".")[0] for name in imports(path)} & set(ROOMS)
    assert rooms <= ALLOWED[room]


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_every_module_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not text.strip() or ast.get_docstring(ast.parse(text))


def test_there_are_no_import_cycles() -> None:
    names = {module_name(path): path for path in MODULES}
    graph = {name: {found for found in imports(path) if found in names} - {name} for name, path in names.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for needed in graph[name]:
                visit(needed, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("heavy", ["torch", "mlflow", "sklearn", "training", "sqlalchemy", "c2pa"])
def test_the_service_never_loads_what_training_or_an_extra_needs(heavy: str) -> None:
    program = f"import serving.runtime, serving.routes, sys; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


UNWATCHED = {
    *("training.border", "training.progress", "training.interruption", "training.device", "training.checkpoints"),
    *("training.folders", "training.params", "training.reading", "training.tracking"),
    *("contracts.errors", "contracts.header", "contracts.reader"),
    *("contracts.dicom", "contracts.dicom_elements", "contracts.dicom_frame"),
}
"""What a stage may use without re-running when it changes: how things are said and found, not their values.

`training.data` is watched by `prepare`, whose output all others watch; `training.params` by its sections."""


PAIRS_ALONE = {"training.gans.dual", "training.gans.geometry"}
"""`recipes.py` names the recipe with masks, too; who trains or samples another runs nothing of it."""


def reached(path: Path, names: dict[str, Path], seen: set[str]) -> set[str]:
    """All modules of ours that a file needs, through those it needs."""
    for name in imports(path) & names.keys() - seen:
        seen.add(name)
        if name not in UNWATCHED and not name.startswith("training.data."):
            reached(names[name], names, seen)
    return seen


def module_of(stage: dict) -> str:
    """The module in `training/stages/` that a stage of the graph runs."""
    words = stage["cmd"].split()
    assert words[:2] == ["python", "-m"]
    return words[2].removeprefix("training.stages.")


def test_every_stage_watches_the_code_its_values_come_from() -> None:
    names = {module_name(path): path for path in MODULES if path.name != "__init__.py"}
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for stage, entry in stages.items():
        watched = [dep for dep in entry["deps"] if dep.startswith(("training", "contracts"))]
        needed = reached(ROOT / "training" / "stages" / f"{module_of(entry)}.py", names, set())
        missing = [
            name
            for name in sorted(needed - UNWATCHED)
            if not any(names[name].relative_to(ROOT).as_posix().startswith(dep) for dep in watched)
            and (stage == "prepare" or not name.startswith("training.data."))
            and not (stage in ("train_gan", "sample") and name in PAIRS_ALONE)
        ]
        assert missing == [], stage


def test_what_only_pairs_need_reruns_no_other_training_and_no_evaluation() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]

    def watching(file: str) -> set[str]:
        return {
            stage for stage, entry in stages.items() if any(Path(file).is_relative_to(dep) for dep in entry["deps"])
        }

    for name in ("dual", "geometry"):
        assert not watching(f"training/gans/{name}.py") & {
            "train_gan",
            "sample",
            "train_detector",
            "register",
            "across",
        }
    for path in (ROOT / "training" / "pairs").glob("[a-z]*.py"):
        assert watching(path.relative_to(ROOT).as_posix()) == {"pairs"}


def test_stages_that_ask_for_the_recipes_of_a_dataset_watch_all_that_names_them() -> None:
    """`Params.recipes_of` reads `run.recipes` and `run.pairs`."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    asking = set()
    for stage, entry in stages.items():
        text = (ROOT / "training" / "stages" / f"{module_of(entry)}.py").read_text(encoding="utf-8")
        if "recipes_of(" in text:
            asking.add(stage)
            assert {"run.recipes", "run.pairs"} <= set(entry["params"]), stage
    assert asking >= {"train_detector", "evaluate", "study", "across", "register"}


def test_every_stage_is_a_module_and_watches_it() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for name, stage in stages.items():
        assert module_of(stage) == {"train_dual": "train_gan", "sample_dual": "sample"}.get(name, name)
        assert f"training/stages/{module_of(stage)}.py" in stage["deps"]
        assert all((ROOT / dep).exists() for dep in stage["deps"] if "$" not in dep and not dep.startswith("data/"))
    files = {path.stem for path in (ROOT / "training" / "stages").glob("*.py")} - {"__init__"}
    assert files == {module_of(stage) for stage in stages.values()}


def test_the_readme_has_a_line_for_every_file() -> None:
    room, told = "", set()
    for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines():
        heading = re.match(r"\| \*\*(\w+(?:/\w+)*)/\*\*", line)
        room = heading.group(1) if heading else room
        told |= {f"{room}/{name}" for name in re.findall(r"`(\w+\.py)`", line)}
    files = {path.relative_to(ROOT).as_posix() for path in MODULES if path.name != "__init__.py"}
    assert files - told == set()
    assert {name for name in told if name.startswith(ROOMS)} - files == set()
