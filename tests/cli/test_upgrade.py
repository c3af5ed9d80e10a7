"""netrun upgrade: nets, solvers and binary models of every age; and the flags that say how weights are loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases.recorded import GOLDEN

from netrun.config import schema, weights
from netrun.config.upgrade import read_net, read_solver
from netrun.config.weights import read_weights, write_weights
from netrun.net import Net

Run = Callable[..., Any]
"""The fixture of conftest.py: one command inside this process."""
UPGRADE = GOLDEN / "upgrade"
OLD = sorted(UPGRADE.glob("*.old.prototxt"))


@pytest.mark.parametrize("path", OLD, ids=lambda p: p.name)
def test_texts_become_what_caffe_makes_of_them(path: Path, run: Run, folder: Path) -> None:
    wanted = path.with_name(path.name.replace(".old.", ".new."))
    found = run("upgrade", str(path), "new.prototxt")
    assert (found.code, found.err) == (0, "")
    read = read_solver if "solver" in path.name else read_net
    message, source = read(folder / "new.prototxt")
    assert message == read(wanted)[0]
    assert [n for n in source.notices if "not read" not in n] == []
    *changes, last = found.out.splitlines()
    if path.name == "solver_default.old.prototxt":  # Caffe writes the default type into it; nothing in it is old
        assert (changes, last) == ([], "new.prototxt: solver was in the current form already, written again")
    else:
        assert last == f"new.prototxt: {'solver' if 'solver' in path.name else 'net'} upgraded"
        assert changes, "it tells what it changed"


def test_what_is_current_stays_as_it_is(run: Run, folder: Path) -> None:
    found = run("upgrade", "net.prototxt", "new.prototxt")
    assert found.out == "new.prototxt: net was in the current form already, written again\n"
    assert read_net(folder / "new.prototxt")[0] == read_net(folder / "net.prototxt")[0]
    run("upgrade", "new.prototxt", "newer.prototxt")
    assert (folder / "newer.prototxt").read_bytes() == (folder / "new.prototxt").read_bytes()


def test_it_replaces_a_file_only_if_told(run: Run, folder: Path) -> None:
    (folder / "new.prototxt").write_text("precious")
    found = run("upgrade", "net.prototxt", "new.prototxt")
    assert (found.code, found.err) == (2, "new.prototxt is there already\n    --force replaces it\n")
    assert (folder / "new.prototxt").read_text() == "precious"
    assert run("upgrade", "net.prototxt", "new.prototxt", "--force").code == 0
    assert read_net(folder / "new.prototxt")[0].name == "tiny"
    # In place, too.
    assert run("upgrade", "new.prototxt", "new.prototxt", "--force").code == 0
    assert read_net(folder / "new.prototxt")[0].name == "tiny"


def test_a_broken_file_leaves_nothing_behind(run: Run, folder: Path) -> None:
    (folder / "old.prototxt").write_text("layers { type: RELU } layer { }")
    assert run("upgrade", "old.prototxt", "new.prototxt").code == 2
    (folder / "old.caffemodel").write_bytes((GOLDEN / "weights" / "v1_legacy.caffemodel").read_bytes()[:-9])
    found = run("upgrade", "old.caffemodel", "new.caffemodel")
    assert found.code == 3
    assert "damaged" in found.err
    assert run("upgrade", "absent", "new").err == "there is no file absent\n"
    assert run("upgrade", "net.prototxt", str(folder)).code == 2
    assert sorted(p.name for p in folder.iterdir()) == [
        "net.prototxt", "old.caffemodel", "old.prototxt", "solver.prototxt"
    ]  # fmt: skip


def same(old: Path, new: Path) -> None:
    """Both files hold the same blobs, gradients and shapes for the same layers."""
    a = [x for x in read_weights(old) if x.blobs]
    b = [x for x in read_weights(new) if x.blobs]
    assert [(x.name, x.type, x.legacy) for x in a] == [(x.name, x.type, x.legacy) for x in b]
    for one, two in zip(a, b, strict=True):
        for x, y in zip([*one.blobs, *one.diffs], [*two.blobs, *two.diffs], strict=True):
            assert (x is None) == (y is None)
            if x is not None and y is not None:
                assert x.dtype == y.dtype
                np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("path", sorted((GOLDEN / "weights").glob("*.caffemodel")), ids=lambda p: p.name)
def test_binary_models(path: Path, run: Run, folder: Path) -> None:
    found = run("upgrade", str(path), "new.caffemodel")
    assert (found.code, found.err) == (0, "")
    new = folder / "new.caffemodel"
    message = schema.NetParameter.FromString(new.read_bytes())
    assert message.layer
    assert not message.layers
    assert ("V1" in found.out) == (path.name == "v1_legacy.caffemodel")
    same(path, new)
    one, two = (Net(GOLDEN / "weights" / "net.prototxt", weights=w) for w in (path, new))
    for layer, blobs in one.params.items():
        for x, y in zip(blobs, two.params[layer], strict=True):
            np.testing.assert_array_equal(x.data, y.data)
    run("upgrade", "new.caffemodel", "newer.caffemodel")
    assert (folder / "newer.caffemodel").read_bytes() == new.read_bytes()


def test_a_v0_model(run: Run, folder: Path) -> None:
    """Padding layers vanish, inputs become a layer, and every blob stays with its layer."""
    old = schema.NetParameter(name="v0", input=["data"], input_dim=[1, 2, 5, 5], force_backward=True)
    pad = old.layers.add(bottom=["data"], top=["pad"])
    pad.layer.name, pad.layer.type, pad.layer.pad = "pad", "padding", 1
    conv = old.layers.add(bottom=["pad"], top=["conv"])
    conv.layer.name, conv.layer.type, conv.layer.num_output, conv.layer.kernelsize = "conv", "conv", 3, 3
    for i, dims in enumerate([(3, 2, 3, 3), (1, 1, 1, 3)]):
        count = int(np.prod(dims))
        blob = conv.layer.blobs.add(num=dims[0], channels=dims[1], height=dims[2], width=dims[3])
        blob.data.extend(np.arange(count, dtype=np.float32) + i)
    (folder / "v0.caffemodel").write_bytes(old.SerializeToString())
    found = run("upgrade", "v0.caffemodel", "new.caffemodel")
    assert "oldest form (V0" in found.out
    new = schema.NetParameter.FromString((folder / "new.caffemodel").read_bytes())
    assert [(x.name, x.type, len(x.blobs)) for x in new.layer] == [("input", "Input", 0), ("conv", "Convolution", 2)]
    assert (new.name, new.force_backward, new.layer[1].convolution_param.pad) == ("v0", True, [1])
    same(folder / "v0.caffemodel", folder / "new.caffemodel")
    net = Net(new, weights=folder / "new.caffemodel")
    np.testing.assert_array_equal(net.params["conv"][1].data, [1, 2, 3])


def test_hdf5_has_one_form_only(run: Run) -> None:
    found = run("upgrade", str(GOLDEN / "weights" / "plain.caffemodel.h5"), "new.h5")
    assert found.code == 2
    assert "nothing to upgrade" in found.err


def test_as_json(run: Run) -> None:
    found = json.loads(run("upgrade", str(UPGRADE / "v1_mlp.old.prototxt"), "new.prototxt", "--json").out)
    assert (found["new"], found["kind"], len(found["changes"])) == ("new.prototxt", "net", 2)


@pytest.mark.parametrize("path", [p for p in OLD if "default" not in p.name], ids=lambda p: p.name)
def test_check_shows_the_notices(path: Path, run: Run) -> None:
    read = read_solver if "solver" in path.name else read_net
    notices = read(path)[1].notices
    assert notices
    err = run("check", str(path)).err
    assert [n for n in notices if f"warning: {n}\n" not in err] == []


# ----------------------------------------------------------------------------------------------- loading, from outside


def stored(folder: Path) -> None:
    """Weights for the net of the folder, under another name for ip."""
    layers = [schema.LayerParameter(name="conv"), schema.LayerParameter(name="old")]
    blobs = {
        0: [np.ones((5, 3, 3, 3), np.float32), np.ones(5, np.float32)],
        1: [np.ones((3, 80), np.float32), np.ones(3, np.float32)],
    }
    write_weights(folder / "w.caffemodel", "w", layers, blobs)


def test_train_and_test_take_the_flags(run: Run, folder: Path) -> None:
    stored(folder)
    train = ("train", "solver.prototxt", "--weights", "w.caffemodel", "--set", "max_iter=1", "--log", "caffe")
    found = run(*train)
    assert "old of the file has the shapes of ip: --rename old=ip would load it" in found.err
    found = run(*train, "--strict")
    assert found.code == 3
    assert "strict loading, but not in the net: old" in found.err
    assert run(*train, "--strict", "--rename", "old=ip").code == 0
    assert run(*train, "--strict", "--rename", "old=conv").code == 3
    found = run(*train, "--reinit", "conv,i*")
    assert "left as their fillers made them, as reinit says: conv, ip" in found.err
    test = ("test", "net.prototxt", "--weights", "w.caffemodel", "--iterations", "1")
    assert run(*test, "--strict").code == 3
    assert run(*test, "--strict", "--rename", "old=ip").code == 0
    assert 'no layer "ipp"; did you mean "ip"?' in run(*test, "--rename", "old=ipp").err


def test_the_flag_weights_goes_before_the_field(run: Run, folder: Path) -> None:
    stored(folder)
    found = run(
        "train", "solver.prototxt", "--weights", "w.caffemodel", "--set", "weights=absent", "--set", "max_iter=1"
    )
    assert found.code == 0


def test_lenient_is_a_flag_of_every_command_that_reads_nets(run: Run, folder: Path) -> None:
    text = (folder / "net.prototxt").read_text()
    (folder / "net.prototxt").write_text("default_forward_math: FLOAT\n" + text)
    stored(folder)
    for command in (
        ("check", "net.prototxt"),
        ("check", "solver.prototxt"),
        ("summary", "net.prototxt"),
        ("plan", "solver.prototxt"),
        ("train", "solver.prototxt", "--set", "max_iter=1"),
        ("test", "net.prototxt", "--weights", "w.caffemodel", "--iterations", "1"),
        ("upgrade", "net.prototxt", "new.prototxt"),
    ):
        found = run(*command)
        assert found.code == 2, command
        assert "it is of NVIDIA's Caffe (the precision it computes in); --lenient goes on without it" in found.err
        assert run(*command, "--lenient").code == 0, command
    assert "net: default_forward_math is left out" in run("check", "solver.prototxt", "--lenient").err


def test_the_limit_of_protobuf_is_two_gigabytes() -> None:
    assert weights.LIMIT == 2**31 - 1
    assert weights.exceeds_limit(2**31)
    assert not weights.exceeds_limit(2_100_000_000)
