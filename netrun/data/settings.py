"""What every kind of data layer is opened with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..config import schema
from ..errors import ConfigError, DataError, Where
from ..random import stream_of
from .order import Order, Words, random_words


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

    @property
    def forces_colour(self) -> bool:
        """Whether encoded images are decoded to three channels, as the field or its older form says."""
        return self.layer.transform_param.force_color or self.layer.data_param.force_encoded_color

    def wrong(self, what: str) -> ConfigError:
        """An error of the configuration."""
        return ConfigError(f"{self.title}: {what}", self.where)

    def bad(self, error: DataError) -> DataError:
        """The same error, with the name and place of the layer."""
        problem = error.problems[0]
        return DataError(f"{self.title}: {problem.what}", self.where, problem.notes)

    def check_transform(self) -> None:
        """Raises ConfigError if transform_param contradicts itself, whatever the data."""
        transform = self.layer.transform_param
        if transform.mean_file and transform.mean_value:
            raise self.wrong("transform_param has both mean_file and mean_value; it can use one")
        if self.forces_colour and transform.force_gray:
            raise self.wrong("transform_param has both force_color and force_gray")

    def order(self, count: int, *, shuffle: bool, rand_skip: int) -> Order:
        """The order of the layer's records: it starts at a random one of the first ``rand_skip`` (0: at the first)."""
        skip = 0
        if rand_skip:
            stream = stream_of(self.stream, self.layer.name, "skip")
            skip = int(random_words(0, 1, seed=self.seed, stream=stream)[0, 0]) % rand_skip
        return Order(count, seed=self.seed, stream=f"{self.stream}/{self.layer.name}", shuffle=shuffle, skip=skip)

    def words(self, draws: int, count: int) -> Words:
        """The random words of the records number ``draws`` .. ``draws + count - 1``; see order.random_words."""
        return random_words(draws, count, seed=self.seed, stream=stream_of(self.stream, self.layer.name))
