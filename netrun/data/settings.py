"""What every kind of data layer is opened with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from netrun.config import schema
from netrun.errors import ConfigError, DataError, Where


@dataclass(frozen=True)
class Settings:
    """A data layer and its surroundings; the arguments of open.open_feeder."""

    layer: schema.LayerParameter
    phase: int
    folder: str = ""
    where: Where | None = None
    seed: int = 0
    stream: str = "train"
    threads: int | None = None
    classes: Mapping[str, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """How messages call the layer."""
        return f"{self.layer.name} ({self.layer.type})"

    def wrong(self, what: str) -> ConfigError:
        """An error of the configuration."""
        return ConfigError(f"{self.title}: {what}", self.where)

    def bad(self, error: DataError) -> DataError:
        """The same error, with the name and place of the layer."""
        problem = error.problems[0]
        return DataError(f"{self.title}: {problem.what}", self.where, problem.notes)
