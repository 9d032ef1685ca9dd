"""MLflow tracking: every training and evaluation stage is a run, also one that DVC took from its cache.

A stage's folder carries `record.json` (stage, cell, params, lineage) beside its numbers and figures.
While the stage works its run is written live; `ensure_run` makes the run again from the folder where the
store does not have it. A run and a folder belong together by the tag `verisynth.content`.

Without mlflow installed nothing is tracked and everything else works.
"""

import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.data.prepared import DatasetInfo
from training.reading import ParamsError

RECORD = "record.json"
STATS = "stats.jsonl"
LOOKS = "looks.jsonl"
METRICS = "metrics.json"
RUN_ID = "mlflow_run_id"
CONTENT_TAG = "verisynth.content"
DEFAULT_STORE = "mlflow.db"


@dataclass(frozen=True)
class Record:
    """What a stage did: written into its folder, free of time stamps and run ids so that it can be cached."""

    stage: str
    cell: str
    """The dataset, and the recipe where there is one: `ihc-dcgan`."""
    dataset: str
    params: dict[str, Any]
    lineage: dict[str, str]
    """Source, licence and content hash of the data."""

    def write(self, folder: Path) -> None:
        (folder / RECORD).write_text(self._text(), encoding="utf-8")

    def _text(self) -> str:
        return json.dumps(self.__dict__, indent=2, sort_keys=True, default=str) + "\n"

    def is_of(self, folder: Path) -> bool:
        """Whether the folder holds just what this record would be written into: a stage writes it last."""
        return (folder / RECORD).is_file() and (folder / RECORD).read_text(encoding="utf-8") == self._text()

    @staticmethod
    def read(folder: Path) -> "Record":
        return Record(**json.loads((folder / RECORD).read_text(encoding="utf-8")))


def lineage(*datasets: DatasetInfo) -> dict[str, str]:
    """Where a dataset comes from, or several do, as a run records it; several have one hash together."""
    found = {
        name: "; ".join(dict.fromkeys(str(getattr(info, name)) for info in datasets))
        for name in ("source", "origin", "licence", "content_hash")
    }
    if len(datasets) > 1:
        found["content_hash"] = hashlib.sha256(found["content_hash"].encode()).hexdigest()
    return found


def found(folder: Path, dataset: str, asked_in: str) -> dict[str, Any]:
    """The numbers that a stage left in its folder.

    Raises:
        ParamsError: when it left none, naming `asked_in`, the list of `params.yaml` that asks for them.
    """
    path = folder / METRICS
    if not path.is_file():
        raise ParamsError(f"{path} does not exist: put {dataset} into {asked_in} of params.yaml and run `dvc repro`")
    numbers: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return numbers


class Run:
    """A live MLflow run; every method does nothing where mlflow is not installed."""

    def __init__(self, mlflow: Any | None) -> None:
        self.mlflow = mlflow

    def metrics(self, numbers: dict[str, float], step: int = 0) -> None:
        """Numbers at a step; written in the background so that training does not wait."""
        if self.mlflow is not None:
            self.mlflow.log_metrics(numbers, step=step, synchronous=False)

    def finish(self, folder: Path) -> None:
        """Log the finished folder's figures and final metrics, and tie the run to its content."""
        if self.mlflow is not None:
            _log_folder(self.mlflow, folder)


@contextmanager
def run(record: Record, work: Path | None = None, enabled: bool = True) -> Iterator[Run]:
    """A run of a stage; with `work`, a stopped stage goes on in the run it began. Of several processes one tracks."""
    mlflow = client() if enabled else None
    if mlflow is None:
        yield Run(None)
        return
    mlflow.set_experiment(f"verisynth/{record.dataset}")
    run_id = None
    if work is not None and (work / RUN_ID).is_file():
        run_id = (work / RUN_ID).read_text(encoding="utf-8")
        run_id = (
            run_id
            if mlflow.MlflowClient().search_runs(_experiments(mlflow), f"attributes.run_id = '{run_id}'")
            else None
        )
    with mlflow.start_run(run_id=run_id, run_name=None if run_id else f"{record.stage}@{record.cell}") as active:
        if run_id is None:
            _log_record(mlflow, record)
            if work is not None:
                work.mkdir(parents=True, exist_ok=True)
                (work / RUN_ID).write_text(active.info.run_id, encoding="utf-8")
        yield Run(mlflow)
        mlflow.flush_async_logging()


def ensure_run(folder: Path) -> str | None:
    """The id of the run that made a stage's folder, made again from the folder where the store lacks it.

    None where mlflow is not installed.
    """
    mlflow = client()
    if mlflow is None:
        return None
    tag = f"tags.`{CONTENT_TAG}` = '{content_hash(folder)}'"
    found = mlflow.MlflowClient().search_runs(_experiments(mlflow), tag, max_results=1)
    if found:
        return str(found[0].info.run_id)
    record = Record.read(folder)
    mlflow.set_experiment(f"verisynth/{record.dataset}")
    with mlflow.start_run(run_name=f"{record.stage}@{record.cell}") as active:
        _log_record(mlflow, record)
        mlflow.set_tag("verisynth.restored", "from the stage's cached folder")
        for path in (folder / name for name in (STATS, LOOKS)):
            for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
                row = json.loads(line)
                mlflow.log_metrics(row, step=int(row.pop("images")), synchronous=False)
        mlflow.flush_async_logging()
        _log_folder(mlflow, folder)
        return str(active.info.run_id)


def content_hash(folder: Path) -> str:
    """A hash over the names and bytes of all files of a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def client() -> Any | None:
    """The mlflow module, pointed at `MLFLOW_TRACKING_URI` or a SQLite file in the working directory."""
    if importlib.util.find_spec("mlflow") is None:
        return None
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    if "MLFLOW_TRACKING_URI" not in os.environ:
        mlflow.set_tracking_uri(f"sqlite:///{Path(DEFAULT_STORE).resolve()}")
    return mlflow


def _experiments(mlflow: Any) -> list[str]:
    return [experiment.experiment_id for experiment in mlflow.search_experiments()]


def _log_record(mlflow: Any, record: Record) -> None:
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    mlflow.set_tags({"stage": record.stage, "cell": record.cell, "dataset": record.dataset})
    mlflow.log_params(record.params)
    source = CodeDatasetSource(tags=record.lineage)
    mlflow.log_input(
        MetaDataset(source, name=record.dataset, digest=record.lineage["content_hash"][:12]), context=record.stage
    )


def _log_folder(mlflow: Any, folder: Path) -> None:
    if (folder / METRICS).is_file():
        numbers = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        mlflow.log_metrics(dict(_flatten(numbers)))
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".png", ".json", ".jsonl"):
            parent = path.relative_to(folder).parent.as_posix()
            mlflow.log_artifact(str(path), artifact_path=None if parent == "." else parent)
    mlflow.set_tag(CONTENT_TAG, content_hash(folder))


def _flatten(numbers: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in numbers.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)
