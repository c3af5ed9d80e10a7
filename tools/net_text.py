"""A net's prototxt as text, grown layer by layer: what make_nets.py describes the large nets with."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH = 120
MADE = "# Made by tools/make_nets.py.\n"
XAVIER = 'type: "xavier"'
MSRA = 'type: "msra"'


def gaussian(std: float) -> str:
    """A weight filler: normal with mean 0 and this standard deviation."""
    return f'type: "gaussian" std: {std:g}'


class NetText:
    """The text of one net, grown layer by layer; every method returns the name of the blob it wrote.

    Args:
        name: the net's own name.
        comment: what stands above it.
        training: write fillers and learning rates, which a deploy net has no use for.
        params: write ``param`` blocks: weights 1/1, biases twice the rate and no decay.
    """

    def __init__(self, name: str, comment: str, *, training: bool = True, params: bool = True) -> None:
        self.training = training
        self.params = params and training
        head = "".join(f"# {line}".rstrip() + "\n" for line in comment.strip().split("\n"))
        self.text = f'{head}{MADE}\nname: "{name}"\n'

    def note(self, text: str) -> None:
        """A comment of one line, with a blank line above."""
        self.text += f"\n# {text}\n"

    def layer(self, name: str, kind: str, bottoms: Sequence[str], top: str, body: Sequence[str] = ()) -> str:
        """Any layer; ``body`` holds the lines inside it. Without a body it stands on one line, unless too long."""
        ends = [*(f'bottom: "{b}"' for b in bottoms), f'top: "{top}"']
        head = " ".join([f'name: "{name}" type: "{kind}"', *ends])
        if len(head) > WIDTH - 10:
            body = [*ends, *body]
            head = f'name: "{name}" type: "{kind}"'
        if body:
            self.text += "layer {\n  " + "\n  ".join([head, *body]) + "\n}\n"
        else:
            self.text += f"layer {{ {head} }}\n"
        return top

    def data(self, crop: int, train_batch: int, test_batch: int) -> str:
        """The databases of ILSVRC 2012 in both phases: 256x256 images, cropped; tops ``data`` and ``label``."""
        for phase, part, mirror, batch in (
            ("TRAIN", "train", "true", train_batch),
            ("TEST", "val", "false", test_batch),
        ):
            self.text += (
                '\nlayer {\n  name: "data" type: "Data" top: "data" top: "label"\n'
                f"  include {{ phase: {phase} }}\n"
                f"  transform_param {{ crop_size: {crop} mirror: {mirror}"
                " mean_value: 104 mean_value: 117 mean_value: 123 }  # B, G, R\n"
                f'  data_param {{ source: "ilsvrc12_{part}_lmdb" backend: LMDB batch_size: {batch} }}\n}}\n'
            )
        return "data"

    def input(self, *dims: int) -> str:
        """An Input layer ``data`` of this shape (N C H W)."""
        shape = " ".join(f"dim: {d}" for d in dims)
        self.text += "\n"
        return self.layer("data", "Input", [], "data", [f"input_param {{ shape {{ {shape} }} }}"])

    def _learned(self, block: str, fields: str, weight: str, bias: float | None) -> list[str]:
        """The lines of a layer with weights; ``bias`` is the bias's first value, None if it has no bias."""
        if bias is None:
            fields += " bias_term: false"
        if not self.training:
            return [f"{block} {{ {fields} }}"]
        rates = ["param { lr_mult: 1 decay_mult: 1 }", "param { lr_mult: 2 decay_mult: 0 }"] if self.params else []
        fillers = [f"  weight_filler {{ {weight} }}"]
        if bias is not None:
            fillers.append(f'  bias_filler {{ type: "constant" value: {bias:g} }}')
        return [*rates, f"{block} {{", f"  {fields}", *fillers, "}"]

    def conv(
        self,
        name: str,
        bottom: str,
        outputs: int,
        kernel: int,
        *,
        pad: int = 0,
        stride: int = 1,
        group: int = 1,
        weight: str = XAVIER,
        bias: float | None = 0,
    ) -> str:
        """A convolution, its blob called like the layer."""
        fields = f"num_output: {outputs} kernel_size: {kernel}"
        for field, value, default in (("pad", pad, 0), ("stride", stride, 1), ("group", group, 1)):
            if value != default:
                fields += f" {field}: {value}"
        return self.layer(name, "Convolution", [bottom], name, self._learned("convolution_param", fields, weight, bias))

    def dense(self, name: str, bottom: str, outputs: int, *, weight: str = XAVIER, bias: float = 0) -> str:
        """An inner product, its blob called like the layer."""
        body = self._learned("inner_product_param", f"num_output: {outputs}", weight, bias)
        return self.layer(name, "InnerProduct", [bottom], name, body)

    def relu(self, name: str, blob: str) -> str:
        """A ReLU in place."""
        return self.layer(name, "ReLU", [blob], blob)

    def pool(self, name: str, bottom: str, kernel: int, stride: int, *, kind: str = "MAX", pad: int = 0) -> str:
        """A pooling, its blob called like the layer."""
        fields = f"pool: {kind} kernel_size: {kernel} stride: {stride}" + (f" pad: {pad}" if pad else "")
        return self.layer(name, "Pooling", [bottom], name, [f"pooling_param {{ {fields} }}"])

    def lrn(self, name: str, bottom: str) -> str:
        """AlexNet's normalisation over five neighbouring channels."""
        return self.layer(name, "LRN", [bottom], name, ["lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }"])

    def dropout(self, name: str, blob: str, ratio: float) -> str:
        """A dropout in place."""
        return self.layer(name, "Dropout", [blob], blob, [f"dropout_param {{ dropout_ratio: {ratio:g} }}"])

    def accuracy(self, name: str, bottom: str, top_k: int = 1) -> str:
        """An accuracy over the labels, in TEST alone."""
        body = ["include { phase: TEST }"]
        if top_k != 1:
            body.append(f"accuracy_param {{ top_k: {top_k} }}")
        return self.layer(name, "Accuracy", [bottom, "label"], name, body)

    def loss(self, name: str, bottom: str, *, top: str = "", weight: float = 1) -> str:
        """A softmax loss over the labels."""
        body = [] if weight == 1 else [f"loss_weight: {weight:g}"]
        return self.layer(name, "SoftmaxWithLoss", [bottom, "label"], top or name, body)

    def finish(self, scores: str, *, top5: bool) -> str:
        """What stands behind the scores: accuracies and the loss, or in a deploy net the probabilities. The text."""
        if self.training:
            self.accuracy("accuracy", scores)
            if top5:
                self.accuracy("accuracy_top5", scores, 5)
            self.loss("loss", scores)
        else:
            self.layer("prob", "Softmax", [scores], "prob")
        return self.text
