from pathlib import Path

import numpy as np
import pytest

from contracts.golden import FILE, Golden
from serving.runtime import Model
from tests.releases import write_small_release


@pytest.mark.parametrize("labels", [(), ("benign", "malignant")])
def test_they_are_what_a_service_draws_paints_and_judges(labels: tuple[str, ...], tmp_path: Path) -> None:
    release = write_small_release(tmp_path / "cells", labels=labels, masks=True, golden=True)
    golden = Golden.read(release.folder / FILE)
    model = Model.load(release.folder)
    np.testing.assert_array_equal(golden.images, model.generate(seed=0, start=0, count=4).images)
    judged = [model.judge(image) for image in (*golden.images, *golden.images[:, :, ::-1])]
    assert [judgement.synthetic_probability for judgement in judged] == pytest.approx(golden.probabilities.tolist())
    assert [judgement.typicality for judgement in judged] == pytest.approx(golden.typicalities.tolist())
    assert golden.painted is not None
    assert len(np.unique(golden.painted[0, :, :16])) < len(np.unique(golden.painted[0]))
