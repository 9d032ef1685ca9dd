"""The model card: what a release is, is for and is worth, told for people in Markdown, out of its manifest alone.

After Mitchell et al., Model Cards for Model Reporting, FAT* 2019. What was not measured is left out.
"""

import re
from typing import Any

PARTS = ("train", "validation", "test")
SPACES = {
    "encoder": "an autoencoder trained on the real training images",
    "inception": "Inception v3 trained on photographs (ImageNet)",
    "radiomics": "statistics of grey levels, texture and frequencies that need no training",
    "random_network": "a convolutional network with random weights",
}
QUALITY = {
    "kid": "KID against held-out real images",
    "kid_against_train": "KID against training images",
    "frechet_distance": "Fréchet distance",
    "precision": "Precision",
    "recall": "Recall",
    "density": "Density",
    "coverage": "Coverage",
}
MIXTURES = {
    "real": "Real images",
    "real_and_synthetic": "Real and generated images",
    "synthetic": "Generated images",
}
WORTH = {"balanced_accuracy": "Balanced accuracy", "auc": "AUC"}
DETECTION = {
    "auc": "AUC (area under the ROC curve)",
    "equal_error_rate": "Equal error rate",
    "tpr_at_0.1_percent_fpr": "Share of generated images found at 0.1 % false alarms",
    "tpr_at_1_percent_fpr": "Share of generated images found at 1 % false alarms",
    "calibration_error": "Calibration error",
    "brier_score": "Brier score",
}
CHANCE = 0.5
AS_PLANNED = "as planned"

Numbers = dict[str, Any]
"""A part of the manifest; an estimate has `value`, and `low` and `high` of its 95 % interval."""


def card(manifest: dict[str, Any]) -> str:
    """The model card of a whole manifest (`contracts.manifest`), as Markdown with tables.

    The same manifest gives the same text, whatever the order of its keys.
    """
    metrics = manifest["metrics"]
    generator = metrics.get("generator", {})
    sections = [
        _head(manifest),
        _section("Intended use", _plain(manifest["intended_use"])),
        _section("Limitations", _list([_plain(text) for text in manifest["limitations"]])),
        _section("Data", *_data(manifest["data"])),
        _section("Generator", *_generator(manifest["generator"], generator.get("training", {}))),
        _section("How near its images come to real ones", *_quality(generator)),
        _section("Privacy", *_privacy(manifest["privacy"], generator.get("privacy", {}))),
        _section("Worth of its images as training data", *_utility(generator.get("utility") or {})),
        _section("Detector", *_detector(manifest["detector"], metrics.get("detector", {}))),
        _section("How the numbers were made", *_method(metrics)),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(manifest: dict[str, Any]) -> str:
    image = manifest["image"]
    blocks = [
        f"# Model card: {_plain(manifest['data'].get('title', manifest['name']))}",
        f"`{manifest['name']}`, version `{manifest['version']}`. It draws images of {image['size']} x {image['size']} "
        f"pixels in {'colour' if image['channels'] == 3 else 'grey'}, and tells such images from real ones.",
    ]
    if not manifest["privacy"]["passed"]:
        blocks.append(
            "> **This model failed its privacy checks.** Its images may give away training images; "
            "read the section Privacy before you use or share any."
        )
    return "\n\n".join(blocks)


def _data(data: dict[str, Any]) -> list[str]:
    facts = {
        "Origin": data.get("origin", data["source"]),
        "Licence": data["licence"],
        "Classes": ", ".join(data.get("labels", [])),
        "Split": data["split"],
    }
    patients = data.get("patients", {})
    rows = [
        [part, f"{data['counts'][part]:,}"] + ([f"{patients[part]:,}"] if patients else [])
        for part in PARTS
        if part in data["counts"]
    ]
    return [
        _list([f"{name}: {_plain(text)}" for name, text in facts.items() if text]),
        _table(["Part", "Images"] + (["Patients"] if patients else []), rows),
    ]


def _generator(generator: dict[str, Any], training: Numbers) -> list[str]:
    shares = zip(generator["labels"], generator["label_shares"], strict=True)
    classes = ", ".join(f"{_plain(label)} ({_percent(share)} of the training images)" for label, share in shares)
    facts = [
        f"Recipe: {_plain(generator['recipe'])}, from {generator['latent_size']} random numbers per image.",
        f"Classes that can be asked for: {classes or 'none, it is not conditional'}.",
    ]
    if "recipe_settings" in training:
        settings = [f"{name} {value}" for name, value in sorted(training["recipe_settings"].items())]
        facts.append(f"Settings: {_plain(', '.join(settings))}.")
    if "images_seen" in training:
        facts.append(
            f"Training showed it {training['images_seen']:,} images, repeats counted; "
            f"the weights kept are those after {training['kept_at_images']:,}."
        )
    ended = training.get("ended", AS_PLANNED)
    early = f"**Training ended before its time**: {_plain(ended)}. The weights kept are the best until then."
    return [_list(facts), "" if ended == AS_PLANNED else early]


def _quality(generator: Numbers) -> list[str]:
    spaces, floor = generator.get("spaces", {}), generator.get("floor", {})
    if not spaces:
        return []
    rows = [
        [_plain(space), title, _value(spaces[space], name), _value(floor.get(space, {}), name)]
        for space in sorted(spaces)
        for name, title in QUALITY.items()
        if name in spaces[space]
    ]
    return [
        _table(["Space", "Measure", "Generated images", "Floor"], rows),
        "The floor is what real training images get in the place of the generated ones: KID is read beside it, not "
        "against 0. Fréchet distances are biased upwards on few images, so they too are read beside their floor, which "
        "has the same number of images, and never beside those of other reports. Precision and density tell how many "
        "generated images lie among real ones; recall and coverage how much of the real images' variety is there.",
        _list([_beside_floor(space, spaces[space], floor[space]) for space in sorted(spaces) if space in floor]),
    ]


def _beside_floor(space: str, found: Numbers, floor: Numbers) -> str:
    if found["kid"]["low"] > floor["kid"]["high"]:
        return f"In {_plain(space)} the KID is above the floor: the images as a whole differ from real ones."
    return f"In {_plain(space)} the KID cannot be told from the floor."


def _privacy(privacy: dict[str, Any], found: Numbers) -> list[str]:
    checks = [
        f"{_plain(check['name'])}: {'passed' if check['passed'] else '**failed**'}. {_plain(check['detail'])}"
        for check in privacy["checks"]
    ]
    if not privacy["passed"]:
        verdict = "**The model failed**: take its images for as confidential as the images it was trained on."
    elif checks:
        verdict = "The model passed. That is no proof of anonymity: only what these checks look for was looked for."
    else:
        verdict = "No check was made: nothing is known of what its images give away."
    facts = []
    if "exact_copies" in found:
        facts.append(
            f"Among {found['samples']:,} generated images, {found['exact_copies']:,} are exact copies of training "
            f"images and {found['near_duplicates']:,} are near-duplicates."
        )
    if "authenticity" in found:
        share = found["authenticity"]
        facts.append(
            "Authenticity (share of images farther from their nearest training image than that is from its own nearest "
            "of another group): "
            f"{_percent(share['fake'])} of generated images, {_percent(share['held_out'])} of held-out real ones."
        )
    if "nearest_training_neighbour" in found:
        distance = found["nearest_training_neighbour"]
        facts.append(
            f"Median distance to the nearest training image: {distance['fake_median_distance']:.1f} grey levels for "
            f"generated images, {distance['held_out_median_distance']:.1f} for held-out real ones."
        )
    if "membership_inference" in found:
        facts += _membership(found["membership_inference"])
    return [verdict, _list(checks + facts)]


def _membership(found: Numbers) -> list[str]:
    auc = found["auc"]
    if auc["low"] > CHANCE:
        meaning = "**The interval excludes guessing**: the generated images tell something of who was in the training."
    elif auc["high"] < CHANCE:
        meaning = "The interval lies below guessing: held-out images are the nearer ones, which tells of the split."
    else:
        meaning = "The interval contains guessing: no leak is shown."
    control = found["control_auc"]
    if control["low"] <= CHANCE <= control["high"]:
        caution = "It finds nothing, as it should."
    else:
        caution = "It should find nothing and does: images differ by more than membership, which the attack may see."
    return [
        f"Membership inference from the images alone: AUC {_interval(auc)}; guessing gives {CHANCE}. {meaning}",
        f"The same attack among training images alone: AUC {_interval(control)}. {caution}",
    ]


def _utility(utility: Numbers) -> list[str]:
    if not utility:
        return []
    mixtures = utility["mixtures"]
    rows = [
        [title, *(_value(mixtures[name], measure) for measure in WORTH)]
        for name, title in MIXTURES.items()
        if name in mixtures
    ]
    gain = utility["gain_of_synthetic"]
    return [
        f"Classifiers trained on each, tested on {utility['test_images']:,} held-out real images:",
        _table(["Trained on", *WORTH.values()], rows),
        _list([_gain(title, gain[measure]) for measure, title in WORTH.items() if measure in gain]),
    ]


def _gain(measure: str, gain: Numbers) -> str:
    change = f"{measure} changed by {_interval(gain)} where generated images stood beside the real ones"
    if gain["verdict"] == "helps":
        return f"{change}: they helped."
    if gain["verdict"] == "hurts":
        return f"{change}: **they did harm**."
    return f"{change}: they did not help, as the interval contains 0."


def _detector(detector: dict[str, Any], found: Numbers) -> list[str]:
    limits = detector["thresholds"]
    facts = [
        f"Kind: {_plain(detector['kind'])}.",
        f"Verdicts: real at or below a probability of {limits['real']:g}, synthetic at or above "
        f"{limits['synthetic']:g}, uncertain between; out of scope below a typicality of {limits['typicality']:g}.",
    ]
    if "promise" in detector:
        promise = detector["promise"]
        facts.append(
            f"Of further images of the {promise['held_out_groups']:,} patients, places or images behind the "
            f"{promise['held_out_images']:,} held-out real ones, at most {_percent(promise['false_alarm_share'])} are "
            "called synthetic on average (split conformal prediction)."
        )
    if "auc_after" in found:
        altered = ", ".join(f"{_plain(name)} {area:.3f}" for name, area in sorted(found["auc_after"].items()))
        facts.append(f"AUC on altered images: {altered}.")
    attacked = found.get("attacked", {})
    if "pgd" in attacked:
        facts.append(_attacked(attacked["pgd"]))
    unseen = found.get("unseen", {}).get("generators", {})
    columns = {"Known generators": found} | {f"{_plain(name)}, never seen": unseen[name] for name in sorted(unseen)}
    rows = [
        [title, *(_value(numbers, name) for numbers in columns.values())]
        for name, title in DETECTION.items()
        if name in found
    ]
    return [
        _list(facts),
        _table(["Measure, on held-out images", *columns], rows),
        "A generator is never seen where the detector was trained without any of its images. Generators of another "
        "family than these may be harder."
        if unseen
        else "It knows the generators it was trained on: images of others may pass for real.",
    ]


def _attacked(by_budget: Numbers) -> str:
    shares = [
        f"{_percent(found['synthetic_as_real']['called_real'])} at {budget.removeprefix('epsilon_')}"
        for budget, found in sorted(by_budget.items(), key=lambda entry: int(entry[0].removeprefix("epsilon_")))
    ]
    return (
        "Share of generated images that are called real after an attack by somebody who has this detector (projected "
        f"gradient descent), by the grey levels that a pixel may change: {', '.join(shares)}."
    )


def _method(metrics: Numbers) -> list[str]:
    generator = metrics.get("generator", {})
    facts = []
    if metrics:
        facts.append(
            "Real images behind the numbers are of the test split, which neither generator nor detector has seen, "
            "where the text does not say otherwise. Parentheses hold 95 % intervals."
        )
    if "intervals_resample" in metrics:
        resampled = metrics["intervals_resample"]
        facts.append(f"Intervals of the detector resample {resampled['count']:,} {_plain(resampled['unit'])}.")
    spaces = sorted(generator.get("spaces", {}))
    if spaces:
        facts.append("KID: Bińkowski et al., ICLR 2018, unbiased, its intervals from a jackknife over blocks.")
        facts.append("Precision and recall: Kynkäänniemi et al., NeurIPS 2019.")
        facts.append("Density and coverage: Naeem et al., ICML 2020.")
    facts += [f"Space {_plain(space)}: {SPACES[space]}." for space in spaces if space in SPACES]
    if "privacy" in generator:
        facts.append("Authenticity: Alaa et al., ICML 2022. Distances of images are root mean squares.")
    if "export_difference" in metrics:
        difference = metrics["export_difference"]
        facts.append(
            f"The ONNX graphs differ from the trained networks by at most {difference['generator_grey_levels']:g} of "
            f"255 grey levels, and {difference['detector']:.1e} in the detector's outputs."
        )
    return [_list(facts)]


def _value(numbers: Numbers, name: str) -> str:
    """A number or an estimate with its interval; empty where there is none."""
    if name not in numbers:
        return ""
    found = numbers[name]
    return _interval(found) if isinstance(found, dict) else f"{found:z.3f}"


def _interval(estimate: Numbers) -> str:
    # z: no minus before a zero.
    return f"{estimate['value']:z.3f} ({estimate['low']:z.3f} to {estimate['high']:z.3f})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _plain(text: str) -> str:
    """Text that is not ours, on one line, without what Markdown would take for its own."""
    escaped = re.sub(r"([\\`*_\[\]<>|~&#])", r"\\\1", " ".join(text.split()))
    # What makes a list or a rule at the start of a block.
    return re.sub(r"^(\d*)([+=.)-])", r"\1\\\2", escaped)


def _section(title: str, *blocks: str) -> str:
    """A heading and its blocks, those that are empty left out; empty where all are."""
    there = [block for block in blocks if block]
    return "\n\n".join([f"## {title}", *there]) if there else ""


def _list(items: list[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _table(header: list[str], rows: list[list[str]]) -> str:
    """A table, empty without rows."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else ""
