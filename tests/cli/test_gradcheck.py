"""``netrun gradcheck``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

CONFIGS = Path(__file__).parents[2] / "configs"
NET = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 8 dim: 3 } } }
layer { name: "l" type: "Input" top: "l" input_param { shape { dim: 8 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 5 } }
layer { name: "bn" type: "BatchNorm" bottom: "ip" top: "ip" }
layer { name: "drop" type: "Dropout" bottom: "ip" top: "ip" }
layer { name: "gate" type: "Expr" bottom: "ip" top: "g" expr_param { expr: "ip * sigmoid(w * ip)"
  weight { name: "w" shape { dim: 5 } filler { value: 1 } } } }
layer { name: "p" type: "Python" bottom: "g" top: "p"
  python_param { module: "cases.python_layers" layer: "Square" param_str: "HOW" } }
layer { name: "unit" type: "Python" bottom: "p" top: "u"
  python_param { module: "cases.forward_layers" layer: "GatedUnit" } }
layer { name: "best" type: "ArgMax" bottom: "u" top: "best" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "u" bottom: "l" }
"""


def write(folder: Path, how: str) -> None:
    (folder / "g.prototxt").write_text(NET.replace("HOW", how))


def test_every_gradient_of_a_net_that_is_right(run: Any, folder: Path) -> None:
    write(folder, "right")
    found = run("gradcheck", "g.prototxt")
    assert found.code == 0, found.err
    rows = [re.split(r"  +", line) for line in found.out.splitlines()]
    assert rows[0] == ["layer", "type", "gradient of", "shape", "by", "error", "verdict"]
    assert [row[2] for row in rows[1:-1]] == [
        'bottom "x"', "weight 0 (weight)", "weight 1 (bias)", 'bottom "ip"', 'bottom "ip"', 'bottom "ip"',
        "weight 0 (w)", 'bottom "g"', 'bottom "p"', "weight 0 (u)", "weight 1 (v)", "weight 2 (name_)",
        'bottom "u"',
    ]  # fmt: skip
    assert {row[0]: row[-1] for row in rows[1:-1]} == {
        **dict.fromkeys(("ip", "bn", "drop", "gate", "p", "unit", "loss"), "ok"),
    }  # fmt: skip
    assert next(row for row in rows if row[0] == "p")[4] == "Square.backward"
    assert rows[-1] == ["13 gradients of 7 layers, float64 on reference: all right"]
    assert all(float(row[5]) < 1e-6 for row in rows[1:-1] if row[-1] == "ok")


@pytest.mark.parametrize("how", ["wrong", "corner"])
def test_a_wrong_backward_is_found(how: str, run: Any, folder: Path) -> None:
    write(folder, how)
    found = run("gradcheck", "g.prototxt", "--layer", "p,ip")
    assert found.code == 1
    assert "4 gradients of 2 layers, float64 on reference: 1 wrong" in found.out
    assert re.fullmatch(
        r'g.prototxt:8:1: p \(Python\): the gradient of bottom "g", Square.backward, is wrong: relative error \S+\n',
        found.err,
    )


def test_a_class_in_single_precision_is_no_mistake(run: Any, folder: Path) -> None:
    write(folder, "single")
    found = run("gradcheck", "g.prototxt", "--layer", "p", "--json")
    assert found.code == 0
    told = json.loads(found.out)
    assert told["wrong"] == 0
    assert [row["verdict"] for row in told["gradients"]] == ["rough"]


def test_on_another_device_and_with_a_solver(run: Any) -> None:
    found = run("gradcheck", "solver.prototxt", "--device", "cpu")
    assert found.code == 0, found.err
    assert "on cpu: all right" in found.out


def test_data_that_are_not_there(run: Any, folder: Path) -> None:
    (
        folder / "d.prototxt"
    ).write_text("""layer { name: "d" type: "Data" top: "x" data_param { source: "no" batch_size: 9
        record_shape { dim: 3 dim: 4 dim: 4 } } }
        layer { name: "e" type: "Expr" bottom: "x" top: "y" expr_param { expr: "x^2" } }""")
    found = run("gradcheck", "d.prototxt")
    assert found.code == 0, found.err
    assert found.err.startswith("random values in the place of data: ")
    assert "1 gradient of 1 layer, " in found.out
    assert "4 3 4 4" in found.out


def test_layers_that_pass_no_gradient(run: Any, folder: Path) -> None:
    (folder / "f.prototxt").write_text("""layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 } } }
        layer { name: "t" type: "Expr" bottom: "x" top: "t" expr_param { expr: "stop(x) * 2" } }
        layer { name: "s" type: "Silence" bottom: "t" }""")
    found = run("gradcheck", "f.prototxt")
    assert found.code == 0, found.err
    assert found.out.splitlines()[1].endswith("none")


def test_an_unknown_layer(run: Any, folder: Path) -> None:
    write(folder, "right")
    found = run("gradcheck", "g.prototxt", "--layer", "gat")
    assert (found.code, found.err) == (2, '--layer: the net has no layer "gat"; did you mean "gate"?\n')


def test_a_bottom_that_no_gradient_passes_to_is_shown_and_not_counted(run: Any) -> None:
    found = run("gradcheck", str(CONFIGS / "expr" / "net.prototxt"), "--layer", "focal")
    assert [line.split()[-1] for line in found.out.splitlines()[1:-1]] == ["ok", "none"]
    assert "1 gradient of 1 layer, " in found.out


def test_a_solver_without_a_net_is_told(run: Any, folder: Path) -> None:
    (folder / "s.prototxt").write_text('base_lr: 1 lr_policy: "fixed"')
    assert "the solver must name one training net" in run("gradcheck", "s.prototxt").err
