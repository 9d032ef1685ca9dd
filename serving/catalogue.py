"""What a worker serves at one moment: a snapshot that never changes, so that a request ends with what it began with."""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serving.refusals import Refusal
from serving.runtime import Model


@dataclass(frozen=True)
class Catalogue:
    """The models that are served, and why other release folders, or all of `folder`, are not.

    A name may be in both `models` and `refused`: then a newer release of it was refused, and the older one serves on.
    """

    folder: Path
    models: Mapping[str, Model] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    unreadable: str | None = None

    @property
    def obstacle(self) -> str | None:
        """Why nothing can be served; None when something can."""
        if self.models:
            return None
        if self.unreadable:
            return f"{self.folder} cannot be read: {self.unreadable}"
        if self.refused:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.refused.items())
            return f"every release in {self.folder} was refused: {reasons}"
        return f"there is no model in {self.folder}; make one with `dvc repro`"

    def all_or(self, name: str | None) -> list[Model]:
        """The model named, or all.

        Raises:
            Refusal: as `model` does.
        """
        if name is None and self.models:
            return list(self.models.values())
        return [self.model(name)]

    def model(self, name: str | None) -> Model:
        """The model named, or the only one.

        Raises:
            Refusal: `not_ready`, `model_required`, `model_refused`, `unknown_model`.
        """
        if self.obstacle:
            raise Refusal("not_ready", self.obstacle)
        if name is None:
            if len(self.models) > 1:
                raise Refusal("model_required", f"several models are served; name one of {', '.join(self.models)}")
            return next(iter(self.models.values()))
        if name in self.models:
            return self.models[name]
        if name in self.refused:
            raise Refusal("model_refused", f"{name} is not served: {self.refused[name]}")
        raise Refusal(
            "unknown_model", f"there is no model {reprlib.repr(name)}; the models are {', '.join(self.models)}"
        )
