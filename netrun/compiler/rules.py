"""Which layers belong to a net in a state: phase, level and stages against include and exclude rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..config import schema
from ..errors import ConfigError, Where


@dataclass(frozen=True)
class State:
    """What a net is built for. ``level`` and ``stages`` are free choices of whoever writes the rules."""

    phase: int = schema.TEST
    level: int = 0
    stages: tuple[str, ...] = ()

    @classmethod
    def of(cls, message: schema.NetState) -> State:
        """From its message."""
        return cls(message.phase, message.level, tuple(message.stage))

    def inside(self, net: schema.NetParameter) -> State:
        """The same with the stages that the net itself names in ``state``. As in Caffe its phase and level give way."""
        more = tuple(stage for stage in net.state.stage if stage not in self.stages)
        return replace(self, stages=(*self.stages, *more))

    def __str__(self) -> str:
        text = f"phase {schema.Phase.Name(self.phase)}"
        if self.level:
            text += f", level {self.level}"
        if self.stages:
            text += f", stages {' '.join(self.stages)}"
        return text


def meets(rule: schema.NetStateRule, state: State) -> bool:
    """True if the state satisfies every condition the rule states."""
    return (
        (not rule.HasField("phase") or rule.phase == state.phase)
        and (not rule.HasField("min_level") or state.level >= rule.min_level)
        and (not rule.HasField("max_level") or state.level <= rule.max_level)
        and all(stage in state.stages for stage in rule.stage)
        and not any(stage in state.stages for stage in rule.not_stage)
    )


def is_included(message: schema.LayerParameter, state: State, where: Callable[..., Where | None]) -> bool:
    """True if the layer is part of the net: some ``include`` rule is met, or no ``exclude`` rule is.

    Raises:
        ConfigError: the layer has rules of both kinds.
    """
    if message.include and message.exclude:
        raise ConfigError(
            f"layer {message.name}: include and exclude rules in one layer exclude each other",
            where("exclude", 0),
            ["keep the include rules: a layer with them is in the net only where one of them is met"],
        )
    if message.include:
        return any(meets(rule, state) for rule in message.include)
    return not any(meets(rule, state) for rule in message.exclude)
