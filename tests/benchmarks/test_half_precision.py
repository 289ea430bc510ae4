import half_precision
import torch
from detectron2.modeling import build_model
from detectron2.utils.env import seed_all_rng

from ohem_d2.training.config_file import load_config


def test_it_tells_how_many_are_others(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    monkeypatch.setattr(
        "ohem_d2.data.shapes.write_shapes.__defaults__", ({"train": 8, "test": 1}, 0)
    )
    seed_all_rng(0)
    model = build_model(load_config("configs/quick_start.yaml", []))
    # As initialized, the model says nearly the same of all RoIs.
    torch.nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight)
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    opts = ["MODEL.WEIGHTS", str(tmp_path / "model.pth")]
    opts += ["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "50"]  # for not all to be selected anyway
    table = half_precision.measure("configs/quick_start.yaml", opts, torch.bfloat16, batches=4)
    *_, ratio, changed = table.splitlines()[-1].strip("| ").split(" | ")
    assert float(ratio.split()[0]) > 0
    assert 0 < float(changed.split()[0]) < 60
    same = half_precision.measure("configs/quick_start.yaml", opts, torch.float32, batches=1)
    assert same.splitlines()[-1].endswith("| 0.0 % (at most 0.0 %) |")
