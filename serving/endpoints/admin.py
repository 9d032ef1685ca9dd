"""`/v1/admin/`: what this worker serves, a reload now, and the way back to the release before.

The gate asks for a key of scope `admin` here, on this machine's own addresses too. A page of another site has none, and
could not send one: a browser asks the service first whether it may, and is never told that it may.
"""

import os
from datetime import datetime
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from contracts import ledger
from contracts.errors import ReleaseError
from contracts.ledger import LedgerError
from serving.access.audit import work_of
from serving.models_folder import Change
from serving.refusals import Refusal
from serving.runtime import Model
from serving.worker import Worker


async def show_models(worker: Worker, _: Request) -> Response:
    """What this worker serves, since when, what it refuses, and what its last reload did."""
    catalogue = worker.catalogue
    recorded = {name: await anyio.to_thread.run_sync(_recorded, worker, name) for name in catalogue.models}
    models = [
        {
            "name": name,
            "version": model.version,
            "provider": model.provider,
            "since": _text(model.loaded_at),
            "previous": recorded[name].previous,
        }
        for name, model in catalogue.models.items()
    ]
    return JSONResponse(
        {
            "worker": os.getpid(),
            "models": models,
            "refused": catalogue.refused,
            "unreadable": catalogue.unreadable,
            "last_reload": None if worker.last_change is None else _document(worker.last_change),
        }
    )


async def reload(worker: Worker, _: Request) -> Response:
    """Verify every release again, take up what changed, and have the other workers do so, too."""
    change, asked = await anyio.to_thread.run_sync(lambda: worker.follow(everything=True, signal=True))
    return JSONResponse(_document(change) | {"other_workers_asked": asked})


async def roll_back(worker: Worker, request: Request) -> Response:
    """The previous release of a model in the place of its champion, as `make rollback` does it."""
    name = request.path_params["name"]
    if name not in {**worker.catalogue.models, **worker.catalogue.refused}:
        # Names what is served; never a path that a client made up.
        worker.model(name)
    work_of(request.scope).model = name
    return JSONResponse(await anyio.to_thread.run_sync(_roll_back, worker, name))


def _roll_back(worker: Worker, name: str) -> dict[str, Any]:
    models = worker.settings.models_folder
    try:
        with ledger.held(models, name):
            previous = ledger.load(models, name).previous
            if previous is not None:
                # Before anything is moved: what does not run is not gone back to.
                Model.open(ledger.archived(models, name, previous), worker.settings.require_gpu)
            after = ledger.roll_back(models, name)
    except ReleaseError as error:
        raise Refusal("model_refused", f"the previous release of {name} is refused: {error}") from error
    except LedgerError as error:
        raise Refusal("rollback_refused", str(error)) from error
    except OSError as error:
        raise Refusal(
            "rollback_refused", f"{models} cannot be changed: {error}; roll back where it can be, `make rollback`"
        ) from error
    change, _ = worker.follow(everything=True)
    return {"name": name, "version": after.champion, "withdrawn": list(after.withdrawn)} | _document(change)


def _recorded(worker: Worker, name: str) -> ledger.Ledger:
    try:
        return ledger.recorded(worker.settings.models_folder, name)
    except (LedgerError, OSError):
        # Whoever rolls back is told.
        return ledger.Ledger()


def _document(change: Change) -> dict[str, Any]:
    return {
        "at": _text(change.at),
        "loaded": change.loaded,
        "unchanged": change.unchanged,
        "removed": change.removed,
        "refused": change.refused,
    }


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
