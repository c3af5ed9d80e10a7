"""`netrun explain NAME`: what is found under a name, and how it is shown."""

from __future__ import annotations

from functools import cache

import pytest

from netrun.config.explain import explain, index
from netrun.errors import UsageError


def test_a_field_shows_type_default_number_and_comment() -> None:
    head, *comment = explain("PoolingParameter.stride").splitlines()
    assert head == "PoolingParameter.stride: uint32 = 1, number 3"
    assert comment == ["    Step of the window in both directions, in pixels, at least 1."]


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("SolverParameter.base_lr", "SolverParameter.base_lr: float, no default, number 5"),
        ("base_lr", "SolverParameter.base_lr: float, no default, number 5"),
        ("convolution_param.pad", "ConvolutionParameter.pad: repeated uint32, number 3"),
        ("Convolution.pad", "ConvolutionParameter.pad: repeated uint32, number 3"),
        ("layer.convolution_param.pad", "ConvolutionParameter.pad: repeated uint32, number 3"),
        ("convolution_param.weight_filler.type", 'FillerParameter.type: string = "constant", number 1'),
        ("clip_param.min", "ClipParameter.min: required float, number 1"),
        ("BatchNorm.eps", "BatchNormParameter.eps: float = 1e-05, number 3"),
        ("pooling_param.pool", "PoolingParameter.pool: PoolMethod = MAX, number 1"),
        (
            "SolverParameter.device",
            'SolverParameter.device: string = "auto", number 10000 (netrun\'s own, not in Caffe)',
        ),
        ("NetParameter.state", "NetParameter.state: NetState, number 6"),
        ("LMDB", "DataParameter.DB.LMDB = 1"),
        ("PoolingParameter.AVE", "PoolingParameter.PoolMethod.AVE = 1"),
        ("PoolingParameter.PoolMethod.AVE", "PoolingParameter.PoolMethod.AVE = 1"),
        ("pooling_param.pool.AVE", "PoolingParameter.PoolMethod.AVE = 1"),
        ("Phase.TRAIN", "Phase.TRAIN = 0"),
        ("DataParameter.DB", "DataParameter.DB"),
        ("ReLU", "ReLUParameter"),
        (" Datum ", "Datum"),
    ],
)
def test_what_a_name_leads_to(name: str, head: str) -> None:
    assert explain(name).splitlines()[0] == head


def test_a_message_lists_its_fields_with_one_sentence_each() -> None:
    lines = explain("InnerProductParameter").splitlines()
    assert lines[0] == "InnerProductParameter"
    assert lines[1].startswith("    InnerProduct: a fully connected layer;")
    rows = [line.split() for line in lines[3:]]
    names = ["num_output", "bias_term", "weight_filler", "bias_filler", "axis", "transpose"]
    assert [row[0] for row in rows] == names
    assert "    bias_term      bool = true      Add a learned value to each output" in lines


def test_a_field_that_is_a_message_shows_it_too() -> None:
    text = explain("convolution_param")
    assert text.startswith("LayerParameter.convolution_param: ConvolutionParameter, number 106\n")
    assert "\nConvolutionParameter\n" in text
    assert "\n    kernel_size " in text


def test_a_field_of_several_messages_shows_all_of_them_briefly() -> None:
    blocks = explain("weight_filler").split("\n\n")
    owners = sorted(block.partition(".")[0] for block in blocks)
    assert {"ConvolutionParameter", "EmbedParameter", "InnerProductParameter", "RecurrentParameter"} <= {*owners}
    assert len(blocks) == len({*owners})
    assert all(block.endswith("Its fields: netrun explain FillerParameter") for block in blocks)


def test_old_forms_are_shown_only_if_nothing_else_has_the_name() -> None:
    assert "V1LayerParameter" not in explain("convolution_param")
    assert explain("blobs_lr").startswith("V1LayerParameter.blobs_lr: repeated float, number 7\n")
    assert explain("det_crop_mode").startswith("V0LayerParameter.det_crop_mode: ")


def test_an_enum_lists_its_values() -> None:
    rows = explain("RoundMode").splitlines()[-2:]
    assert [row.split()[:3] for row in rows] == [["CEIL", "=", "0"], ["FLOOR", "=", "1"]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("convolution_param.padd", 'ConvolutionParameter has no "padd"; did you mean "pad"?'),
        ("ConvolutionParamater", 'the schema has nothing called "ConvolutionParamater"; did you mean "Convolution'),
        ("kernelsiz", 'the schema has nothing called "kernelsiz"; did you mean "kernel'),
        ("SolverParameter.base_lr.x", 'SolverParameter.base_lr has no "x"'),
        ("convolution_param.", 'ConvolutionParameter has no ""'),
        ("Phase.TRAINING", 'Phase has no "TRAINING"; did you mean "TRAIN"?'),
        ("", 'the schema has nothing called ""'),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(name: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        explain(name)
    assert str(caught.value).startswith(message)


def test_every_name_of_the_schema_can_be_explained() -> None:
    schema = index()
    by_name = cache(explain)  # many messages have a field of the same name
    for message in schema.messages.values():
        assert explain(message.name).startswith(message.name)
        for field in message.fields:
            assert explain(f"{message.name}.{field.name}").startswith(f"{message.name}.{field.name}: ")
            assert f"{message.name}.{field.name}: " in by_name(field.name) or message.legacy
    for enum in schema.enums.values():
        for value in enum.values:
            assert explain(f"{enum.name}.{value.name}").startswith(f"{enum.name}.{value.name} = {value.number}\n")


def test_a_layer_type_leads_to_the_message_that_says_it_is_for_it() -> None:
    for kind, message in (("LSTM", "RecurrentParameter"), ("Recurrent", "RecurrentNetParameter"),
                          ("Deconvolution", "ConvolutionParameter"), ("While", "WhileParameter")):  # fmt: skip
        assert explain(kind).splitlines()[0] == message
