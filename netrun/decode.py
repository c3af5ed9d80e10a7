"""Decoding: the tokens a trained net writes one after another, by the best one each time or by beam search.

    with Net("configs/attention/reverse_infer.prototxt", weights="reverse_iter_2000.caffemodel") as net:
        decoder = Decoder(net, tokens="target", scores="scores", start=1, stop=0, time_major=True)
        for found in decoder({"source": source, "length": length}, beam=4):
            print(found[0].tokens, found[0].score)

The net has an input of tokens, N T, or T N with ``time_major``, and a blob of scores with one more axis, the
vocabulary. Its own shape says how it is driven:

- T > 1: all tokens so far, at every step. The net is the one that was trained; no score may depend on later tokens.
- T = 1, or N alone: the newest token. The net carries what it has seen in its states (a ``cache`` of attention, the
  state of a recurrent layer without expose_hidden, a Recurrent with ``carry``); rows of states go with their beams.

Layers in front of the first one that the tokens reach, such as an encoder, run once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .beam import Beam, Hypothesis, Search
from .compiler.nodes import Node
from .errors import UsageError, nearest
from .net import Net

Array = npt.NDArray[Any]


class Decoder:
    """Decodes with one net.

    Args:
        net: in the TEST phase, with its weights. It is reshaped, and its recurrent states are reset.
        tokens: the input of what was written so far.
        scores: the blob of scores of the next token, before or behind a Softmax.
        start: the token in front of the first one; not needed where every input brings a prompt.
        stop: the token that ends a sequence.
        time_major: tokens and all other inputs with an axis of time are T N; else N T.

    Raises:
        UsageError: there is no such blob, or it has other axes.
    """

    def __init__(
        self, net: Net, *, tokens: str = "target", scores: str = "scores", start: int | None = None, stop: int = 0,
        time_major: bool = False,
    ) -> None:  # fmt: skip
        self.net, self.tokens, self.scores = net, tokens, scores
        self.start, self.stop, self.time_major = start, stop, time_major
        if tokens not in net.inputs:
            listed = ", ".join(net.inputs) or "none: it reads a data layer"
            hint = f"its inputs: {listed}"
            raise UsageError(
                f'the net has no input "{tokens}" for the tokens{nearest(tokens, net.inputs)}', None, [hint]
            )
        if scores not in net.blobs:
            names = list(net.blobs)
            raise UsageError(
                f'the net has no blob "{scores}"{nearest(scores, names)}', None, [f"blobs: {', '.join(names)}"]
            )
        shape = tuple(net.blobs[tokens].shape)
        if len(shape) not in (1, 2):
            axes = "T N" if time_major else "N T"
            raise UsageError(f'the input "{tokens}" wants tokens {axes} or N, and has {len(shape)} axes')
        self.length = 1 if len(shape) == 1 else shape[0 if time_major else 1]
        """Tokens of one forward."""
        self._flat = len(shape) == 1
        score_shape = tuple(net.blobs[scores].shape)
        self.vocabulary = score_shape[-1] if score_shape else 1
        """How many tokens there are."""
        if math.prod(score_shape) != math.prod(shape) * self.vocabulary:
            got, wanted = (" ".join(map(str, s)) for s in (score_shape, shape))
            what = f'the blob "{scores}" has the shape {got}, and should have a score for each token behind the axes'
            raise UsageError(f'{what} {wanted} of "{tokens}"')
        for name, token in (("start", start), ("stop", stop)):
            if token is not None and not 0 <= token < self.vocabulary:
                raise UsageError(f"{name} is token {token}, and the net knows 0..{self.vocabulary - 1}")
        nodes = net.graph.nodes
        self._from = nodes[_first_reached(nodes, tokens)].name
        self._logs = any(n.layer.type == "Softmax" and scores in n.message.top for n in nodes)
        self._carried = _carried(net)
        self.others = [name for name in net.inputs if name != tokens]
        """The inputs besides the tokens."""
        self.limit = self._limit(nodes)
        """At most so many tokens, given and written ones, fit; 0: no limit."""
        if self.length == 1 and not self._carried:
            what = (
                f'the input "{tokens}" has one token, and no layer of the net carries anything from forward to forward'
            )
            axes = "T N" if time_major else "N T"
            hint = f"it is taken as {axes}: give it as many tokens as there may be, or let the net carry (cache, carry)"
            raise UsageError(what, None, [hint, "time_major (--time-major) says which axis is time"])

    def _limit(self, nodes: Sequence[Node]) -> int:
        if self.length > 1:
            return self.length
        found = []
        for node in nodes:
            p = node.layer.p
            if node.layer.type == "MultiHeadAttention" and p.cache:
                found.append(int(p.cache))
            if node.layer.type == "PositionEncoding" and p.learned:
                found.append(int(p.max_length or self.length))
        return min(found, default=0)

    def __call__(
        self,
        inputs: Mapping[str, npt.ArrayLike] | None = None,
        prompts: Sequence[Sequence[int]] | None = None,
        *,
        beam: int = 1,
        n_best: int = 1,
        max_length: int | None = None,
        length_penalty: float = 0.0,
    ) -> list[list[Hypothesis]]:
        """The best hypotheses of every input, the best first.

        Args:
            inputs: the net's other inputs by name, N (or T N with time_major) of them.
            prompts: tokens that every hypothesis begins with; the start token by default.
            beam: hypotheses followed side by side. 1 takes the best token each time.
            n_best: at most so many of them are given back.
            max_length: tokens written at most; as many as fit by default, 100 where there is no limit.
            length_penalty: alpha of score = log p / ((5 + length) / 6)^alpha, the length including the stop: above 0
                favours longer ones. (Wu et al., "Google's neural machine translation system", 2016.)

        Raises:
            UsageError: an input is missing, unknown or of another number; more tokens are asked for than fit.
        """
        if beam < 1 or n_best < 1 or n_best > beam:
            raise UsageError(f"beam is {beam} and n_best {n_best}: both are at least 1, and n_best at most beam")
        given = {name: np.asarray(value) for name, value in (inputs or {}).items()}
        count = self._count(given, prompts)
        starts = [tuple(map(int, p)) for p in prompts] if prompts is not None else [self._start()] * count
        longest = max((len(p) for p in starts), default=1)
        if not all(starts):
            raise UsageError("a prompt is empty: it has at least the start token")
        bad = next((t for p in starts for t in p if not 0 <= t < self.vocabulary), None)
        if bad is not None:
            raise UsageError(f"a prompt holds the token {bad}, and the net knows 0..{self.vocabulary - 1}")
        room = self.limit - longest + 1 if self.limit else 100
        if max_length is None:
            max_length = room
        if max_length < 1 or (self.limit and max_length > room):
            what = f"the net has room for {self.limit} tokens, {longest} of them given: {max(room, 0)} can be written"
            raise UsageError(
                f"max_length is {max_length}; {what}" if max_length > 0 else f"nothing can be written: {what}"
            )
        if not count:
            return []
        searches = [Search(p, [(p, 0.0)]) for p in starts]
        rule = Beam(beam, max_length, length_penalty, self.stop)
        self._shape(given, count * beam, beam)
        self.net.reset_states()
        rows = np.zeros((count * beam, max(self.length, 1)), np.int64)
        for step in range(longest + max_length - 1):
            for i, search in enumerate(searches):
                for j in range(beam):
                    known = search.live[min(j, len(search.live) - 1)][0]
                    if self.length > 1:
                        rows[i * beam + j, : len(known)] = known
                    else:
                        rows[i * beam + j, 0] = known[min(step, len(known) - 1)]
            logs = self._next(rows, step, first=step == 0)
            order = np.arange(len(rows))
            for i, search in enumerate(searches):
                if not search.over:
                    own = slice(i * beam, (i + 1) * beam)
                    order[own] = i * beam + rule.advance(search, logs[own], step)
            if all(search.over for search in searches):
                break
            self._exchange(order)
        return [search.done[:n_best] for search in searches]

    # ------------------------------------------------------------------------------------------------------- the inputs
    def _start(self) -> tuple[int, ...]:
        if self.start is None:
            raise UsageError("no start token is given, and no prompts")
        return (self.start,)

    def _axis(self, name: str) -> int:
        """The axis of an input that counts the sequences."""
        return 1 if self.time_major and len(self.net.blobs[name].shape) > 1 else 0

    def _count(self, given: Mapping[str, Array], prompts: Sequence[Sequence[int]] | None) -> int:
        for name in given:
            if name not in self.others:
                listed = ", ".join(self.others) or "no others"
                hint = f'besides "{self.tokens}" the net has the inputs: {listed}'
                raise UsageError(f'the net has no input "{name}"{nearest(name, self.others)}', None, [hint])
        for name in self.others:
            if name not in given:
                raise UsageError(f'nothing is given for the input "{name}"')
        counts: dict[str, int] = {} if prompts is None else {"the prompts": len(prompts)}
        for name, value in given.items():
            wanted = self.net.blobs[name].shape
            if value.ndim != len(wanted):
                raise UsageError(f'the input "{name}" has {len(wanted)} axes, what is given for it has {value.ndim}')
            counts[f'"{name}"'] = value.shape[self._axis(name)]
        if not counts:
            raise UsageError("nothing says how many sequences are wanted: give inputs or prompts")
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name} {n}" for name, n in counts.items())
            raise UsageError(f"the inputs hold different numbers of sequences: {listed}")
        return next(iter(counts.values()))

    def _shape(self, given: Mapping[str, Array], rows: int, beam: int) -> None:
        """Bring all inputs to that many rows, each sequence ``beam`` times."""
        shape: tuple[int, ...] = (rows,) if self._flat else (rows, self.length)
        shapes = {self.tokens: shape[::-1] if self.time_major else shape}
        self._feed: dict[str, Any] = {
            name: np.repeat(value, beam, axis=self._axis(name)) for name, value in given.items()
        }
        shapes.update({name: value.shape for name, value in self._feed.items()})
        if any(tuple(self.net.blobs[name].shape) != wanted for name, wanted in shapes.items()):
            self.net.reshape(**shapes)

    # ---------------------------------------------------------------------------------------------------------- the net
    def _next(self, rows: Array, step: int, *, first: bool) -> Array:
        """Logs of the probabilities of the next token for every row."""
        tokens = rows[:, 0] if self._flat else rows.T if self.time_major else rows
        feed: dict[str, Any] = {self.tokens: tokens}
        if self.length > 1 and self._carried:
            self.net.reset_states()  # all tokens come again
        if first:
            self.net.forward(None, None, **self._feed, **feed)
        else:
            self.net.forward(self._from, None, **feed)
        axes = (self.length, len(rows)) if self.time_major else (len(rows), self.length)
        scores: Array = np.array(self.net.blobs[self.scores].data, np.float64).reshape(*axes, self.vocabulary)
        at = step if self.length > 1 else 0
        values: Array = scores[at] if self.time_major else scores[:, at]
        if self._logs:
            logs: Array = np.log(np.maximum(values, np.finfo(np.float64).tiny))
            return logs
        values = values - values.max(axis=1, keepdims=True)
        total: Array = np.log(np.exp(values).sum(axis=1, keepdims=True))
        return values - total

    def _exchange(self, order: Array) -> None:
        """Let row i of every state go on from what row order[i] holds."""
        if self.length > 1 or (order == np.arange(len(order))).all():
            return
        for name, axis in self._carried.items():
            tensor = self.net.recording.states[name]
            self.net.session.write(tensor, np.take(self.net.session.read(tensor), order, axis=axis))


def _first_reached(nodes: Sequence[Node], tokens: str) -> int:
    """The number of the first layer that depends on the tokens."""
    for i, node in enumerate(nodes):
        if any(value.blob == tokens for value in node.bottoms):
            return i
    raise UsageError(f'no layer reads the input "{tokens}"')


def _carried(net: Net) -> dict[str, int]:
    """States that live on, with the axis of the streams."""
    return {
        f"{node.key}.{declared.name}": declared.streams
        for node in net.graph.nodes
        for declared in node.layer.declared
        if declared.role == "state" and declared.streams is not None
    }


__all__ = ["Decoder"]
