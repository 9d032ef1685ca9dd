from training.evaluation import summary


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.01, "high": value}


def detectors(auc: float) -> summary.Numbers:
    """An evaluation with one kind, known and, of two generators, unknown."""
    numbers = {"auc": estimate(auc), "tpr_at_1_percent_fpr": estimate(0.9), "calibration_error": estimate(0.04)}
    kind = numbers | {
        "unseen": {"generators": {"dcgan": numbers, "dcgan_ada": {"auc": estimate(0.75)}}},
        "auc_after": {"jpeg_75": 0.96, "blur_1.2": 0.9, "resize_0.75": 0.97, "blur_2": 0.6},
        "auc_loss_after": {"jpeg_75": auc - 0.96, "blur_1.2": auc - 0.9, "resize_0.75": auc - 0.97},
        "verdicts": {
            "real": {"real": 0.95, "uncertain": 0.05, "synthetic": 0.0, "out_of_scope": 0.001},
            "dcgan": {"real": 0.0, "uncertain": 0.0, "synthetic": 1.0, "out_of_scope": 0.0},
        },
    }
    return {
        "images": {"real": 50, "dcgan": 40},
        "intervals_resample": {"unit": "patients", "count": 12},
        "champion": "ensemble",
        "kinds": {"ensemble": kind, "linear_evidence": {}},
        "typicality_auc_against": {"noise": 1.0, "pages": 0.97},
    }


def test_every_dataset_is_a_column_of_what_its_released_detector_does() -> None:
    rows = {
        cells[0]: cells[1:]
        for line in summary.table({"blood": detectors(0.98), "derma": detectors(0.99)}).splitlines()
        for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
    }
    assert rows[""] == ["`blood`", "`derma`"]
    assert rows["AUC, generators known"] == ["0.980 (0.970 to 0.980)", "0.990 (0.980 to 0.990)"]
    assert rows["AUC, generator never seen"][0] == "dcgan 0.980 (0.970 to 0.980); dcgan_ada 0.750 (0.740 to 0.750)"
    # A number that one generator lacks is left out for it alone.
    assert rows["calibration error, never seen"][0] == "dcgan 0.040 (0.030 to 0.040)"
    assert rows["AUC lost after `jpeg_75`"] == ["0.020", "0.030"]
    assert rows["worst AUC after any corruption"][0] == "0.600 (`blur_2`)"
    assert rows["verdicts on real images"][0] == "95% real, 5% uncertain"
    assert rows["verdicts on samples"][0] == "dcgan: 100% synthetic"
    assert rows["typicality against strangers, lowest AUC"][0] == "0.970 (pages)"
