"""Results of a study that no model had to be fitted for."""

from training.study.detectability import DESCRIPTOR_SETS, METRICS, Detectability, Estimate

MODELS = ("decision_tree", "naive_bayes")


def estimate(value: float) -> Estimate:
    return {"value": value, "low": value - 0.03, "high": min(1.0, value + 0.02)}


def result(
    f_measure: float, recipe: str = "dcgan", images_seen: int = 100, descriptors: str = "all", model: str = MODELS[0]
) -> Detectability:
    """A result whose metrics are all the same."""
    metrics = {name: estimate(f_measure) for name in METRICS}
    return Detectability(recipe, images_seen, images_seen / 50, descriptors, model, **metrics)


def results(appearance: tuple[float, float], everything: tuple[float, float], recipe: str) -> list[Detectability]:
    """Of two looks and both models; the second model is a tenth worse. Two F-measures of each set of descriptors."""
    return [
        result(values[look] - 0.1 * number, recipe, 100 * (look + 1), seen, model)
        for look in (0, 1)
        for seen, values in zip(DESCRIPTOR_SETS, (appearance, everything), strict=True)
        for number, model in enumerate(MODELS)
    ]
