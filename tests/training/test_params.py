import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from training import params
from training.data.params import MaskedFolderSource, SkimageSource
from training.reading import ParamsError

SHIPPED = Path(__file__).parents[2] / "params.yaml"
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    return loaded


def test_the_shipped_file_is_valid_and_builds_what_is_bundled() -> None:
    shipped = params.load(SHIPPED)
    assert shipped.run.datasets == ["ihc", "retina"]
    assert all(isinstance(shipped.dataset(name).prepare.source, SkimageSource) for name in shipped.run.datasets)
    assert set(shipped.datasets) == {
        *("ihc", "retina", "blood", "derma", "nuclei_fluo", "nuclei_stained", "chase", "pneumonia")
    }
    chase = shipped.dataset("chase").prepare
    assert isinstance(chase.source, MaskedFolderSource)
    assert chase.image.tile_side == 128


def test_a_dataset_lays_its_own_settings_over_the_recipe(document: dict[str, Any], tmp_path: Path) -> None:
    changed = copy.deepcopy(document)
    changed["datasets"]["ihc"]["train_gan"]["width"] = 48
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(changed, sort_keys=False))
    assert params.load(path).gan("ihc", "dcgan").width == 48
    assert params.load(path).gan("retina", "dcgan").width == changed["recipes"]["dcgan"]["width"]


def test_datasets_with_masks_may_have_pairs_given_or_drawn(document: dict[str, Any], tmp_path: Path) -> None:
    changed = copy.deepcopy(document)
    changed["run"] |= {"datasets": ["ihc", "retina", "chase"], "pairs": ["retina", "chase"]}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(changed))
    found = params.load(path)
    assert [found.recipes_of(name) for name in ("ihc", "chase")] == [["dcgan_grain"], ["dcgan_grain", "dual"]]


def prepare(name: str, **changes: object) -> Change:
    return lambda document: document["datasets"][name]["prepare"].update(changes)


REFUSED: dict[str, tuple[Change, str]] = {
    "unknown key, with the nearest": (
        prepare("ihc", chanels=3),
        "datasets: ihc: prepare: unknown key `chanels`; did you mean `channels`.*valid keys: source, size",
    ),
    "missing key": (lambda d: d["datasets"]["ihc"]["prepare"].pop("size"), "missing key `size`"),
    "wrong type": (prepare("ihc", size="64"), "size: '64' must be of type int"),
    "a truth value is no number": (prepare("ihc", size=True), "True must be of type int"),
    "size no power of two": (prepare("ihc", size=48), "48 must be a power of two.*32, 64, 128, 256"),
    "two channels": (prepare("ihc", channels=2), "channels 2"),
    "tile far smaller than size": (prepare("ihc", size=256), "tiles.side 64 is less than half of size 256"),
    "one image without tiles": (prepare("ihc", tiles=None), "needs tiles"),
    "tiles of whole images": (prepare("pneumonia", tiles={"side": 32, "stride": 8}), "medmnist source takes no tiles"),
    "shares that leave nothing": (prepare("ihc", split={"validation": 0.5, "test": 0.5}), "together below 0.9"),
    "nothing held out": (prepare("ihc", split={"validation": 0.2, "test": 0}), "both above 0"),
    "unknown kind": (prepare("ihc", source={"kind": "zip"}), "'zip' is unknown; valid: skimage, folder"),
    "no kind": (prepare("ihc", source={"image": "ihc"}), "needs `kind`, one of skimage"),
    "unknown bundled image": (prepare("ihc", source={"kind": "skimage", "image": "cat"}), "'cat'.*valid: ihc, retina"),
    "unknown medmnist set": (
        prepare("pneumonia", source={"kind": "medmnist", "name": "catmnist", "path": "x"}),
        "'catmnist' is unknown; valid: pathmnist, chestmnist",
    ),
    "unknown medmnist side": (
        prepare("pneumonia", source={"kind": "medmnist", "name": "bloodmnist", "path": "x", "side": 32}),
        "side: 32 is unknown; valid: 28, 64, 128, 224",
    ),
    "unknown DICOM range": (
        prepare("blood", source={"kind": "dicom", "path": "x", "range": "half"}),
        "'half' is unknown; valid: window, full",
    ),
    "pattern without group": (
        prepare("chase", source={"kind": "masked-folder", "images": "a", "masks": "b", "patient_pattern": "P"}),
        "needs a group",
    ),
    "pattern that is none": (
        prepare("chase", source={"kind": "masked-folder", "images": "a", "masks": "b", "patient_pattern": "("}),
        "no regular expression",
    ),
    "masks among the images": (
        prepare("chase", source={"kind": "masked-folder", "images": "a", "masks": "a/"}),
        "images and masks are both 'a'; move or link masks",
    ),
    "a card that says nothing": (
        lambda d: d["datasets"]["ihc"]["card"].update(limitations=[]),
        "datasets: ihc: card: limitations .* is empty",
    ),
    "a card with an empty line": (
        lambda d: d["datasets"]["ihc"]["card"].update(intended_use=" "),
        "datasets: ihc: card: intended_use ' ' is empty",
    ),
    "labels without their column": (
        prepare("blood", source={"kind": "folder", "path": "x", "labels": "metadata"}),
        "needs `metadata_label_column`",
    ),
    "unknown dataset": (lambda d: d["run"].update(datasets=["cats"]), "'cats' is unknown; valid: ihc, retina, blood"),
    "dataset twice": (lambda d: d["run"].update(datasets=["ihc", "ihc"]), "at least one dataset, each once"),
    "no dataset": (lambda d: d["run"].update(datasets=[]), "at least one dataset"),
    "a name that is no text": (lambda d: d["datasets"].update({2024: d["datasets"]["ihc"]}), "2024 must be text"),
    "a batch of one": (
        lambda d: d["datasets"]["ihc"]["train_gan"].update(batch_size=1),
        "datasets: ihc: train_gan: batch_size 1 must be at least 2",
    ),
    "images where dvc does not look": (
        prepare("blood", source={"kind": "folder", "path": "/data/blood"}),
        "datasets: blood: /data/blood must lie in data/raw/blood",
    ),
    "momentum of one": (lambda d: d["recipes"]["dcgan"].update(beta1=1), "beta1 1.0 must be"),
    "a generator kept by no rule": (
        lambda d: d["recipes"]["dcgan"].update(keep="first"),
        "'first' is unknown; valid: best",
    ),
    "a ramp of nothing": (
        lambda d: d["recipes"]["dcgan_ada"].update(augmentation_ramp_images=0),
        "augmentation_ramp_images 0 must be at least 1",
    ),
    "a single classifier": (lambda d: d["utility"].update(seeds=1), "utility: seeds 1 must be at least 2"),
    "too few blocks": (lambda d: d["evaluate"].update(jackknife_blocks=2), "jackknife_blocks 2 must be at least 4"),
    "an AUC above one": (lambda d: d["gate"].update(maximum_membership_auc=1.5), r"must lie in \[0, 1\]"),
    "every error allowed": (lambda d: d["train_detector"].update(error_share=1.0), "error_share 1.0 must be"),
    "unknown recipe": (lambda d: d["run"].update(recipes=["vae"]), "'vae' is unknown; valid: dcgan"),
    "pairs of a dataset that is not built": (
        lambda d: d["run"].update(pairs=["chase"]),
        "run.pairs: 'chase' is unknown",
    ),
    "pairs twice": (lambda d: d["run"].update(pairs=["retina", "retina"]), "run.pairs .* must name each dataset once"),
    "pairs without masks": (lambda d: d["run"].update(pairs=["ihc"]), "run.pairs: ihc has no masks; give it"),
    "pairs by label": (
        lambda d: (d["run"].update(pairs=["retina"]), d["datasets"]["retina"]["train_gan"].update(conditional=True)),
        "run.pairs: retina is `conditional`, and dual draws no labels",
    ),
    "pairs as a recipe": (lambda d: d["run"].update(recipes=["dual"]), "name its datasets.* under run.pairs"),
    "no recipe": (lambda d: d["run"].update(recipes=[]), "at least one recipe"),
    "unknown flip": (
        lambda d: d["datasets"]["ihc"]["train_gan"].update(flips=["diagonal"]),
        "'diagonal' is unknown; valid: horizontal, vertical",
    ),
    "name that is no folder name": (
        lambda d: d["datasets"].update({"My set": d["datasets"]["ihc"]}),
        "'My set' must be",
    ),
    "list for a mapping": (lambda d: d.update(recipes=[]), "must be a mapping"),
    "mapping for a list": (lambda d: d["run"].update(datasets={}), "must be a list"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_params_are_refused_by_name(case: str, document: dict[str, Any], tmp_path: Path) -> None:
    change, message = REFUSED[case]
    changed = copy.deepcopy(document)
    change(changed)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(changed, sort_keys=False))
    with pytest.raises(ParamsError, match=message):
        params.load(path)


@pytest.mark.parametrize("text", ["", "- a", "run: [", "\x00"])
def test_what_is_no_params_file_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError, match=r"params\.yaml"):
        params.load(path)
    with pytest.raises(ParamsError, match="cannot be read"):
        params.load(tmp_path / "none.yaml")


def test_names_asked_for_are_refused_with_the_valid_ones() -> None:
    shipped = params.load(SHIPPED)
    with pytest.raises(ParamsError, match="'cats' is unknown; valid: ihc"):
        shipped.dataset("cats")
    with pytest.raises(ParamsError, match="'vae' is unknown; valid: dcgan"):
        shipped.gan("ihc", "vae")


def test_a_key_named_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(SHIPPED.read_text(encoding="utf-8") + "run:\n  datasets: [ihc]\n  recipes: [dcgan]\n")
    with pytest.raises(ParamsError, match="the key `run` stands there twice"):
        params.load(path)
