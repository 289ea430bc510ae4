"""What is taken for the weights of a model, and what is refused."""

import io
import logging
import math
import os
import pickle

import numpy as np
import pytest
import torch
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathHandler, PathManager
from torch import nn

from ohem_d2.data.pickles import NotPlain, load_pickle, read_pickle
from ohem_d2.errors import InputError
from ohem_d2.training.checks import check_weights
from ohem_d2.training.weight_checks import missing_weights
from ohem_d2.training.weights import SafeCheckpointer


class Model(nn.Module):
    """Small, with what is special about weights: statistics, buffers, one weight with two names."""

    def __init__(self, num_classes=3):
        super().__init__()
        self.register_buffer("pixel_mean", torch.zeros(3, 1, 1), False)
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, num_classes)
        self.same_head = self.head


class Old(Model):
    """Its buffers of pixels are in its checkpoints."""

    def __init__(self):
        super().__init__()
        self.register_buffer("pixel_mean", torch.ones(3, 1, 1))
        self.register_buffer("pixel_std", torch.ones(3, 1, 1))


class Opens:
    def __reduce__(self):
        return os.mkdir, ("ran",)


class Stateful:
    """What a training keeps beside its weights."""

    def __init__(self):
        self.state = None

    def state_dict(self):
        return {
            "iteration": 5,
            "best": np.float64(0.5),
            "random": ("MT19937", np.arange(4, dtype=np.uint32), 3),
            "generator": torch.get_rng_state(),
        }

    def load_state_dict(self, state):
        self.state = state


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def evaluate(file, model=None):
    SafeCheckpointer(model or Model()).load(str(file))


def train(file, model=None):
    checkpointer = SafeCheckpointer(model or Model(), trainer=Stateful())
    checkpointer.resume_or_load(str(file), resume=False)


@pytest.mark.parametrize("load", [evaluate, train])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list"),
        (5, "holds a int"),
        (torch.zeros(2), "holds a Tensor"),
        ({"model": None}, "has a NoneType as 'model'"),
        ({"model": [1]}, "has a list as 'model'"),
        ({"model": {}}, "has no weights"),
        ({"model": {"a": "b"}}, "has 'a', of str"),
        ({"model": {1: torch.zeros(2)}}, "has 1, of torch.float32"),
        ({"model": {"a": torch.zeros(2, dtype=torch.complex64)}}, "has 'a', of torch.complex64"),
        ({"model": {"a": torch.zeros(2, device="meta")}}, "has 'a', of the device 'meta'"),
        (
            {"state_dict": {"a": torch.zeros(2)}, "epoch": 3},
            "has 'state_dict', of dict.* below 'state_dict'",
        ),
        (
            {"state_dict": {"model.a": torch.zeros(2), "model.b": torch.zeros(2)}, "epoch": 3},
            "below 'state_dict', so save that alone, without 'model.' in front of each name",
        ),
        ({"epoch": 3, "ema": {"a": torch.zeros(2)}}, "has 'epoch', of int.* below 'ema'"),
        ({"model": {"net": {"a": torch.zeros(2)}}}, "has 'net', of dict.* below 'net'"),
        ({"model": {"a": torch.eye(2).to_sparse()}}, "'a', of the layout .*coo, expected torch.st"),
        (
            {"model": {"a": torch.quantize_per_tensor(torch.zeros(2), 1, 0, torch.qint8)}},
            "has 'a', of torch.qint8",
        ),
        ({"model": Opens()}, "because it names posix.mkdir, which could run code"),
        (nn.Linear(2, 2), "because it names torch.nn.modules.linear.Linear"),
        (
            {"conv1.weight": torch.zeros(2)},
            "has no weight of this model, but conv1.weight and the like, exp|weights of the model",
        ),
        ({"a.weight": torch.zeros(2)}, "has no weight of this model|weights of the model are not"),
    ],
)
def test_a_file_of_torch_without_weights(here, load, content, message):
    torch.save(content, "x.pth")
    with pytest.raises(InputError, match=message) as e:
        load("x.pth")
    assert "x.pth" in str(e.value)
    assert "\n" not in str(e.value)
    assert "weights_only" not in str(e.value)
    assert not (here / "ran").exists()


@pytest.mark.parametrize("load", [evaluate, train])
@pytest.mark.parametrize(
    ("rename", "message"),
    [
        (
            lambda x: f"_orig_mod.{x}",
            r"; 10 are .* names, such as '_orig_mod\.(\S*)' for '\1'\. Ex",
        ),
        (lambda x: f"module._orig_mod.{x}", r"such as '_orig_mod\.(\S*)' for '\1'"),
        (lambda x: f"a._fsdp_wrapped_module.{x}", r"'a\._fsdp_wrapped_module\.(\S*)' for '\1'"),
        (lambda x: x.replace("head.", "head._orig_mod."), r": 4 of 11 .*4 are .*head\._orig_mod\."),
        (lambda x: f"model.detector.{x}", r"'model\.detector\.(\S*)' for '\1'"),
    ],
)
def test_weights_of_a_model_that_was_wrapped(here, caplog, load, rename, message):
    weights = {k: v for k, v in Model().state_dict().items() if not k.endswith("_tracked")}
    torch.save({"model": {rename(k): v for k, v in weights.items()}}, "x.pth")
    with pytest.raises(InputError, match=message) as e:
        load("x.pth")
    assert "x.pth" in str(e.value)


def test_weights_of_another_head_with_the_same_parts(here, caplog):
    weights = {k.replace("head.", "head.0."): v for k, v in Model().state_dict().items()}
    torch.save({"model": weights}, "x.pth")
    train("x.pth")
    assert (
        "; 4 are there under longer names, such as 'head.0.weight' for 'head.weight'" in caplog.text
    )


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".pyth"])
@pytest.mark.parametrize("content", [b"", b"text", b"<html></html>", pickle.dumps([1])[:-3]])
def test_no_checkpoint_at_all(here, suffix, content):
    (here / f"x{suffix}").write_bytes(content)
    with pytest.raises(InputError, match=rf"x{suffix}") as e:
        evaluate(f"x{suffix}")
    assert "\n" not in str(e.value)
    assert "weights_only" not in str(e.value)


def test_a_damaged_file(here):
    """One bit of a weight is another, which torch does not see."""
    torch.save({"model": Model().state_dict()}, "x.pth")
    content = bytearray((here / "x.pth").read_bytes())
    with torch.serialization._open_zipfile_reader("x.pth") as reader:
        content[reader.get_record_offset("data/0")] ^= 1
    (here / "x.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"'x.pth' is damaged \(x/data/0 is not what was saved"):
        evaluate("x.pth")


def test_files_without_checksums(here):
    torch.save({"model": Model().state_dict()}, "old.pth", _use_new_zipfile_serialization=False)
    evaluate("old.pth")
    if not hasattr(torch.serialization, "set_crc32_options"):
        return
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"model": Model().state_dict()}, "without.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    evaluate("without.pth")


@pytest.mark.parametrize("load", [evaluate, train])
@pytest.mark.parametrize(
    ("dtype", "is_right"),
    [
        *((x, True) for x in (torch.float16, torch.bfloat16, torch.float64)),
        *((x, False) for x in (torch.int64, torch.uint8, torch.bool)),
    ],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_of_another_type(here, load, dtype, is_right, prefix):
    state = {f"{prefix}{k}": v for k, v in Model().state_dict().items()}
    state[f"{prefix}head.weight"] = state[f"{prefix}head.weight"].to(dtype)
    torch.save({"model": state}, "x.pth")
    if is_right:
        load("x.pth")
        return
    message = rf"'x.pth' has '{prefix}head.weight', of {dtype}, expected floating-point numbers"
    with pytest.raises(InputError, match=message):
        load("x.pth")


def test_a_long_error_of_torch_is_cut(here):
    class Refuses(Model):
        def load_state_dict(self, *args, **kwargs):
            raise RuntimeError("no " * 500)

    torch.save({"model": Model().state_dict()}, "x.pth")
    with pytest.raises(InputError) as e:
        evaluate("x.pth", Refuses())
    assert len(str(e.value)) < 300


def test_a_pointer_of_git_lfs(here):
    (here / "x.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    with pytest.raises(InputError, match="'x.pth' is a Git LFS pointer .*git lfs pull.*: expected"):
        evaluate("x.pth")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("half", "cannot be loaded as a safetensors file"),
        ("text", "cannot be loaded as a safetensors file"),
        ("html", "is a web page"),
        ("whole, of another name", "is a safetensors file: expected"),
    ],
)
def test_files_of_safetensors(here, content, words):
    header = b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'
    whole = len(header).to_bytes(8, "little") + header + bytes(36)
    name = "x.pth" if "other" in content else "x.safetensors"
    (here / name).write_bytes(
        {"half": whole[:-20], "text": b"no weights", "html": b"<html>"}.get(content, whole)
    )
    with pytest.raises(InputError, match=f"'{name}' {words}") as e:
        evaluate(name)
    assert "weights_only" not in str(e.value)


def test_an_archive_of_something_else(here):
    np.savez("x.npz", a=np.zeros(2))
    (here / "x.npz").rename("x.pth")
    with pytest.raises(InputError, match="'x.pth' is a ZIP archive with a.npy: expected a file th"):
        evaluate("x.pth")
    torch.jit.trace(nn.Linear(3, 3), torch.zeros(1, 3)).save("x.pth")
    with pytest.raises(InputError, match="'x.pth' is a TorchScript archive, of a whole model: exp"):
        evaluate("x.pth")


def test_a_file_that_was_fetched(here, monkeypatch):
    whole, page = here / "whole.pth", here / "page.pth"
    torch.save({"model": Model().state_dict()}, whole)
    page.write_text("<html>Log in</html>")

    class Site(PathHandler):
        def _get_supported_prefixes(self):
            return ["site://"]

        def _get_local_path(self, path, **kwargs):
            return str(here / path.removeprefix("site://"))

        def _isfile(self, path, **kwargs):
            return True

    monkeypatch.setattr(PathManager, "_path_handlers", {**PathManager._path_handlers})
    PathManager.register_handler(Site())
    where = f"It was fetched to '{page}': remove that file to fetch it anew$"
    with pytest.raises(InputError, match=f"'site://page.pth' is a web page, .*{where}"):
        evaluate("site://page.pth")
    evaluate("site://whole.pth")
    with pytest.raises(InputError) as e:  # which no other file would mend
        evaluate("site://whole.pth", nn.Linear(3, 3))
    assert "fetched" not in str(e.value)


def test_where_fetched_files_go(here, monkeypatch):
    (here / "cache").touch()
    monkeypatch.setenv("FVCORE_CACHE", str(here / "cache"))
    words = f"FVCORE_CACHE is '{here / 'cache'}', which is a file, expected a folder"
    with pytest.raises(InputError, match=rf"^KEY, 'http://.*/x.pth', .* fetched \(.*\): {words}"):
        check_weights("KEY", "http://127.0.0.1:9/x.pth", "out", resume=False, training=True)
    monkeypatch.setenv("FVCORE_CACHE", str(here / "other"))
    with pytest.raises(InputError, match="it cannot be fetched") as e:
        check_weights("KEY", "http://127.0.0.1:9/x.pth", "out", resume=False, training=True)
    assert "FVCORE_CACHE" not in str(e.value)


def test_a_truncated_file(here):
    torch.save({"model": Model().state_dict()}, "x.pth")
    whole = (here / "x.pth").read_bytes()
    (here / "x.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="'x.pth' is no checkpoint, or not a whole one"):
        evaluate("x.pth")


@pytest.mark.parametrize(
    "content",
    [Opens(), {"model": Opens(), "__author__": "x"}, {"blobs": {"a": [Opens()]}}, nn.Linear(2, 2)],
)
def test_a_pickle_that_could_run_code(here, content):
    (here / "x.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=r"'x.pkl' was not loaded, because it names [\w.]+\.\w+,"):
        evaluate("x.pkl")
    assert not (here / "ran").exists()


def test_a_tensor_in_a_pickle_cannot_bring_code_along():
    class Storage:
        def __reduce__(self):
            inner = io.BytesIO()
            torch.save(Opens(), inner)
            return torch.storage._load_from_bytes, (inner.getvalue(),)

    with pytest.raises(pickle.UnpicklingError):
        load_pickle(io.BytesIO(pickle.dumps(Storage())))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_of_every_protocol(protocol):
    content = {
        "array": np.arange(6.0).reshape(2, 3),
        "half": np.zeros(2, np.float16),
        "text": np.array(["a", "b"]),
        "number": np.float32(1.5),
        "tensor": torch.arange(3),
        "mode": BoxMode.XYXY_ABS,
        "set": {1, 2},
        "bytes": b"abc",
    }
    loaded = load_pickle(io.BytesIO(pickle.dumps(content, protocol=protocol)))
    assert loaded["array"].tolist() == content["array"].tolist()
    assert loaded["tensor"].equal(content["tensor"])
    assert loaded["mode"] is BoxMode.XYXY_ABS
    with pytest.raises(NotPlain, match="posix.mkdir"):
        load_pickle(io.BytesIO(pickle.dumps({**content, "x": Opens()}, protocol=protocol)))


def test_text_of_python_2(here):
    # As numpy of Python 2 pickled an array: its bytes are a text.
    (here / "x.pkl").write_bytes(
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\ntcnumpy\n"
        b"dtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\xe9'\ntb."
    )
    assert read_pickle("weights", here / "x.pkl").tolist() == [0xE9]


def test_files_of_detectron2s_zoo(here):
    state = {k: v.numpy() for k, v in Model().state_dict().items()}
    # Detectron2's own, of old: without what is a buffer today, and with what was one.
    state.pop("backbone.1.num_batches_tracked")
    state["proposal_generator.anchor_generator.cell_anchors.0"] = np.zeros((3, 4), np.float32)
    (here / "zoo.pkl").write_bytes(
        pickle.dumps({"model": state, "__author__": "Detectron2 Model Zoo"}, protocol=2)
    )
    model = Old()
    evaluate("zoo.pkl", model)
    assert model.head.weight.detach().numpy().tolist() == state["head.weight"].tolist()
    # Of Caffe2, with momenta, and a training starts from it.
    blobs = {"conv1_w": np.zeros((4, 3, 1, 1), np.float32), "conv1_w_momentum": np.zeros(1)}
    (here / "caffe2.pkl").write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    model.stem = nn.ModuleDict({"conv1": nn.Conv2d(3, 4, 1)})
    train("caffe2.pkl", model)
    assert not model.stem["conv1"].weight.any()


def test_the_file_that_names_the_last_checkpoint(here):
    (here / "last_checkpoint").write_text("model_0000999.pth")
    with pytest.raises(InputError, match=r"expected that one: 'model_0000999.pth' beside it$"):
        evaluate("last_checkpoint")


@pytest.mark.parametrize("part", ["head", "backbone.0", "backbone.1.running_mean"])
def test_all_weights_are_needed_to_evaluate_and_resume(here, part, caplog):
    state = {k: v for k, v in Model().state_dict().items()
             if not k.startswith((part, f"same_{part}"))}  # fmt: skip
    torch.save({"model": state}, "x.pth")
    with pytest.raises(InputError, match=rf"weights of the model are not in 'x.pth': {part}"):
        evaluate("x.pth")
    (here / "last_checkpoint").write_text("x.pth")
    checkpointer = SafeCheckpointer(Model(), str(here), trainer=Stateful())
    with pytest.raises(InputError, match=rf"are not in '.*x.pth': {part}"):
        checkpointer.resume_or_load("", resume=True)
    with caplog.at_level(logging.WARNING):
        train("x.pth")
    assert f"are not in 'x.pth', and start at random: {part}" in caplog.text


def test_weights_that_the_model_lacks(here, caplog):
    others = {
        "mask_head.weight": torch.ones(2, 2),
        "backbone.1.num_batches_tracked_of": torch.ones(1),
    }
    torch.save({"model": Model().state_dict() | others}, "x.pth")
    with caplog.at_level(logging.WARNING):
        evaluate("x.pth")
    (record,) = caplog.records
    assert record.getMessage() == (
        "MODEL.WEIGHTS: 'x.pth' has 2 weights that the model lacks, and that are not used: "
        "mask_head.weight, backbone.1.num_batches_tracked_of. Expected the config of their training"
    )


def test_another_norm(here, caplog):
    torch.save({"model": Model().state_dict()}, "x.pth")
    model = Model()
    model.backbone[1] = nn.GroupNorm(2, 4)
    message = "'x.pth' has 1 weights of batch normalization where the model has another norm: back"
    with pytest.raises(InputError, match=message):
        evaluate("x.pth", model)
    train("x.pth", model)
    assert "another norm: backbone.1.running_var; they are not used" in caplog.text


def test_a_head_for_other_classes(here, caplog):
    torch.save({"model": Model(2).state_dict()}, "x.pth")
    with pytest.raises(InputError, match=r"head.weight \(2x4 in the file, 3x4 in the model\)"):
        evaluate("x.pth")
    with caplog.at_level(logging.WARNING):
        train("x.pth")
    assert "4 of " in caplog.text


def test_a_weight_with_two_names_needs_one():
    names = {"head.weight", "head.bias"}
    assert missing_weights(Model(), names) == []
    assert missing_weights(Model(), {"same_head.bias", "head.bias"}) == [
        "head.bias",
        "same_head.bias",
    ]


@pytest.mark.parametrize("load", [evaluate, train])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers(here, load, value):
    state = Model().state_dict()
    state["backbone.0.bias"][1] = value
    torch.save({"model": state}, "x.pth")
    with pytest.raises(InputError, match="'x.pth' has 1 weights that are NaN or infinite: back"):
        load("x.pth")


def test_what_a_training_keeps_is_loaded(here):
    SafeCheckpointer(Model(), str(here), trainer=Stateful()).save("x")
    stateful = Stateful()
    SafeCheckpointer(Model(), str(here), trainer=stateful).resume_or_load("", resume=True)
    assert stateful.state["best"] == 0.5
    assert stateful.state["random"][1].tolist() == [0, 1, 2, 3]


def layers(*values):
    """A model of a few layers, each of one number, or of any."""
    model = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in values))
    for layer, value in zip(model, values):
        if value is not None:
            nn.init.constant_(layer.weight, value)
    return model


@pytest.mark.parametrize("how", [evaluate, train])
@pytest.mark.parametrize("value", [0, 1])
def test_weights_of_one_number(here, how, value):
    torch.save({"model": layers(value, value, value).state_dict()}, "x.pth")
    error = f"'x.pth' has 3 of 3 weights of layers .*, such as 0.weight, which is {value}: expected"
    with pytest.raises(InputError, match=error):
        how("x.pth", layers(None, None, None))


@pytest.mark.parametrize(
    ("how", "values", "number"),
    [(train, (0, 0, None), 2), (train, (0, None, None), 0), (evaluate, (0, None, None), 1)],
)
def test_some_weights_of_one_number(here, caplog, how, values, number):
    torch.save({"model": layers(*values).state_dict()}, "x.pth")
    how("x.pth", layers(None, None, None))
    told = f"MODEL.WEIGHTS: 'x.pth' has {number} of 3 weights of layers that are one number"
    assert (told in caplog.text) == bool(number)


@pytest.mark.parametrize(
    ("name", "is_cut"),
    [("backbone.2.weight", True), ("head2.bias", True), ("mask_head.0.weight", False),
     ("backbone.0.extra", False), ("other.3.weight", False)],
)  # fmt: skip
def test_layers_that_are_left_out_of_a_row(here, caplog, name, is_cut):
    torch.save({"model": Model().state_dict() | {name: torch.ones(2, 2)}}, "x.pth")
    train("x.pth")
    assert "where it has others of their kind" not in caplog.text
    if is_cut:
        layer = name.rpartition(".")[0]
        error = (
            "MODEL.WEIGHTS: 'x.pth' has 1 weights of layers that the model lacks where it has "
            f"others of their kind: {layer}. Expected the config of their training"
        )
        with pytest.raises(InputError, match=f"^{error}$"):
            evaluate("x.pth")
    else:
        evaluate("x.pth")
        assert f"has 1 weights that the model lacks, and that are not used: {name}" in caplog.text
