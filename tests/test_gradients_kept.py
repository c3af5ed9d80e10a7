"""What training on the CPU does not compute and has no memory for: gradients nobody asks for."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

import netrun
from netrun.compiler.graph import build
from netrun.compiler.rules import State
from netrun.config import schema
from netrun.config.upgrade import parse_solver
from netrun.device import open_device
from netrun.params import initialise
from netrun.session import Memory, Session
from netrun.training import compile_training

NET = """
HEAD
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 16 dim: 16 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 4 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" PARAM1
  convolution_param { num_output: 16 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2" PARAM2
  convolution_param { num_output: 16 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }
layer { name: "ip" type: "InnerProduct" bottom: "conv2" top: "ip"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
FROZEN = "param { lr_mult: 0 } param { lr_mult: 0 }"


def message(param1: str = "", param2: str = "", head: str = "") -> schema.NetParameter:
    found = schema.NetParameter()
    text_format.Parse(NET.replace("PARAM1", param1).replace("PARAM2", param2).replace("HEAD", head), found)
    return found


def trained(param1: str = "", param2: str = "", head: str = "") -> Session:
    """A session that trains the net on the CPU."""
    solver = parse_solver('net: "x" base_lr: 0.1 momentum: 0.9')[0]
    training = compile_training(build(message(param1, param2, head), None, State(schema.TRAIN, 0, ())), solver)
    device = open_device("cpu")
    memory = Memory(device)
    initialise(training.recording, memory, 0)
    return Session(training.step, device, memory)


def held(session: Session) -> set[str]:
    """Names of everything that has memory of any kind."""
    return {t.name for t in session.program.tensors()} | {t.name for t in session.plan.offsets}


def runs(session: Session) -> set[tuple[str, str]]:
    return {(str(call.origin), call.op.name.rstrip("b")) for call in session.program.calls}


def test_no_gradient_of_the_input_unless_asked() -> None:
    usual = trained()
    assert runs(usual) >= {("conv1'", "conv_grad_w"), ("conv2'", "conv_grad_x")}
    for session in (usual, trained(head="force_backward: true")):  # a trainer has nobody who could look at it
        assert ("conv1'", "conv_grad_x") not in runs(session)
        assert "data'" not in held(session)


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [({}, False), ({"head": "force_backward: true"}, True), ({"param1": "propagate_down: true"}, True)],
)
def test_a_net_in_python_has_it_where_it_is_asked_for(asked: dict[str, str], wanted: bool) -> None:
    net = netrun.Net(message(**asked), "TRAIN")
    assert (("conv1'", "conv_grad_x") in runs(net.session)) == wanted
    net.forward()
    assert bool(net.backward()) == wanted


@pytest.mark.parametrize("both", [False, True])
def test_frozen_layers_keep_no_gradients(both: bool) -> None:
    usual, frozen = trained(), trained(FROZEN, FROZEN if both else "")
    layers = ("conv1", "conv2") if both else ("conv1",)
    for layer in layers:
        assert f"{layer}.weight'" in held(usual)
        names = {name for name in held(frozen) if name.startswith((f"{layer}.", f"{layer}'")) and "'" in name}
        assert not names, f"{layer} is frozen: nothing has a gradient, and no memory for one"
        assert not [call for call in frozen.program.calls if str(call.origin) == f"{layer}'"]
    # backward ends above the last frozen layer: what is below it is not even kept for it
    assert "conv1'" not in held(frozen)
    assert frozen.plan.total < usual.plan.total
    frozen.run()


def test_a_frozen_layer_in_the_middle_passes_on_and_keeps_none_of_its_own() -> None:
    session = trained("", FROZEN)
    assert ("conv2'", "conv_grad_x") in runs(session)
    assert ("conv2'", "conv_grad_w") not in runs(session)
    assert not {"conv2.weight'", "conv2.bias'"} & held(session)
    assert "conv1.weight'" in held(session)
    before = session.shared.read(next(t for t in session.program.tensors() if t.name == "conv2.weight")).copy()
    session.run()
    after = session.shared.read(next(t for t in session.program.tensors() if t.name == "conv2.weight"))
    assert (before == after).all()
