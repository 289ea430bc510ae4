"""Where a run is, with GPUs and without."""

import pytest
import torch

from ohem_d2.errors import InputError
from ohem_d2.training.config_file import CONFIGS, load_config
from ohem_d2.training.device import usable_amp, usable_device
from ohem_d2.training.lazy_config import load_lazy_config


@pytest.mark.parametrize(
    ("device", "gpus", "expected"),
    [
        ("cuda", 0, "cpu"),
        ("cuda", 2, "cuda"),
        ("cuda:1", 2, "cuda:1"),
        ("cuda:1", 1, "KEY is 'cuda:1', of 1 GPUs here, expected 'cuda:0' to 'cuda:0'"),
        ("cuda:0", 0, "KEY is 'cuda:0', of 0 GPUs here, expected 'cuda' or 'cpu', to run on"),
        ("cpu", 0, "cpu"),
        ("tpu", 0, "tpu"),  # for the rules of keys
    ],
)
def test_a_gpu_that_is_not_there(monkeypatch, device, gpus, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    if not expected.startswith("KEY"):
        assert usable_device("KEY", device) == expected
        return
    with pytest.raises(InputError) as e:
        usable_device("KEY", device)
    assert str(e.value).startswith(expected)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1"])
def test_mixed_precision_needs_a_gpu(caplog, enabled, device):
    assert usable_amp("KEY", enabled, device) == (enabled and device != "cpu")
    assert ("KEY is turned off" in caplog.text) == (enabled and device == "cpu")


def test_of_a_config_of_each_kind(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"^MODEL\.DEVICE is 'cuda:3'"):
        load_config(str(CONFIGS / "quick_start.yaml"), ["MODEL.DEVICE", "cuda:3"])
    with pytest.raises(InputError, match=r"^train\.device is 'cuda:3'"):
        load_lazy_config(str(CONFIGS / "mask_rcnn_R_50_FPN_1x_ohem.py"), ["train.device='cuda:3'"])
