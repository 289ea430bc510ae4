"""Two processes on the CPU, each with images of its own."""

import json
import math
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from command_line import ROOT, run_script, run_train_net
from detectron2.engine import launch
from detectron2.engine.train_loop import TrainerBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from small_data import write_voc
from small_detectors import gradients, make_detector, make_inputs
from small_detectors import step as detector_step
from small_heads import FAMILIES, make_batch, make_heads, rotated, train_step
from small_models import NARROW_OPTS, SHRINK_OPTS

from ohem_d2 import OHEMFCOS, OHEMRetinaNet
from ohem_d2.data import register_datasets
from ohem_d2.errors import InputError
from ohem_d2.training.config_file import load_config
from ohem_d2.training.distributed import wrap_ddp
from ohem_d2.training.mining_logs import MiningLogs
from ohem_d2.training.trainer import Trainer

FULL, EMPTY = [(3, 40), (2, 30)], [(0, 0), (0, 0)]
# name -> the head, its settings, and for each process what its images hold
CASES = {
    **{name: (name, (), (FULL, [(1, 20), (4, 50)])) for name in FAMILIES},
    **{f"{name}, a process without RoIs": (name, (), (FULL, EMPTY)) for name in FAMILIES},
    "no RoIs at all": ("OHEMROIHeads", (), (EMPTY, EMPTY)),
    "half of the budget at random": (
        "OHEMROIHeads",
        ("MODEL.ROI_HEADS.OHEM.HARD_FRACTION", 0.5),
        (FULL, [(1, 20), (4, 50)]),
    ),
    "all stages of a cascade": (
        "OHEMCascadeROIHeads",
        ("MODEL.ROI_HEADS.OHEM.CASCADE_STAGES", (0, 1, 2)),
        (FULL, EMPTY),
    ),
    "synchronized batch normalization": (
        "OHEMROIHeads",
        ("MODEL.ROI_BOX_HEAD.NORM", "naiveSyncBN_N", "MODEL.ROI_BOX_HEAD.NUM_CONV", 1),
        (FULL, EMPTY),
    ),
}


def heads_and_batch(case, rank):
    name, opts, sizes = CASES[case]
    masks = name != "OHEMRROIHeads"
    heads = make_heads(*opts, name=name, masks=masks)
    batch = make_batch(rank, sizes[rank], masks=masks)
    return heads, batch if masks else rotated(batch, rank)


class _Steps(TrainerBase):
    """As a trainer of one step, for hooks."""

    def __init__(self, model):
        super().__init__()
        self.model, self.iter, self.start_iter, self.max_iter = model, 0, 0, 1


def step(heads, batch):
    """What is trained on, what is learned from it, and what is logged."""
    torch.manual_seed(0)  # for what is drawn
    trainer, logs = _Steps(heads), MiningLogs()
    logs.trainer = trainer
    logs.before_train()
    with EventStorage() as trainer.storage:
        mined, losses = heads.train()(None, *batch)
        logs.after_step()
        logged = {name: value for name, (value, _) in trainer.storage.latest().items()}
    logs.after_train()
    sum(losses.values()).backward()
    return {
        "mined": [x.proposal_boxes.tensor for x in mined],
        "losses": {name: loss.item() for name, loss in losses.items()},
        "gradients": [p.grad for p in heads.parameters()],
        "logged": logged,
        "buffers": [b.clone() for b in heads.buffers()],
    }


def work(folder):
    """One of the processes."""
    torch.set_num_threads(1)
    rank = comm.get_rank()
    results = {}
    for case in CASES:
        heads, batch = heads_and_batch(case, rank)
        results[case] = step(wrap_ddp(heads, broadcast_buffers=False), batch)
    torch.save(results, f"{folder}/{rank}.pth")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """For each process, what became of each case."""
    folder = tmp_path_factory.mktemp("results")
    timeout = timedelta(minutes=3)  # which ends a process that waits for another in vain
    launch(work, 2, dist_url="auto", args=(folder,), timeout=timeout)
    return [torch.load(folder / f"{rank}.pth") for rank in range(2)]


@pytest.mark.parametrize("case", [c for c in CASES if "batch norm" not in c])
def test_each_process_mines_its_own_images_and_all_learn_the_same(results, case):
    alone = [step(*heads_and_batch(case, rank)) for rank in range(2)]
    for rank in range(2):
        together = results[rank][case]
        assert all(a.equal(b) for a, b in zip(together["mined"], alone[rank]["mined"]))
        assert together["losses"] == pytest.approx(alone[rank]["losses"])
        for a, b, c in zip(together["gradients"], *(x["gradients"] for x in alone)):
            torch.testing.assert_close(a, (b + c) / 2)


@pytest.mark.parametrize("case", [c for c in CASES if "batch norm" not in c])
def test_figures_are_of_all_processes(results, case):
    heads, (features, proposals, targets) = heads_and_batch(case, 0)
    others, more_proposals, more_targets = heads_and_batch(case, 1)[1]
    features = {name: torch.cat([x, others[name]]) for name, x in features.items()}
    *_, expected = train_step(heads, features, proposals + more_proposals, targets + more_targets)
    mines_in_all_stages = "CASCADE_STAGES" in str(CASES[case][1])
    for name in expected:
        # What the stages that do not mine log is Detectron2's, and of one process.
        if name.startswith("stage") and not mines_in_all_stages:
            continue
        if "num_fg_samples" in name or "num_bg_samples" in name or "ohem" in name:
            for rank in range(2):
                assert results[rank][case]["logged"][name] == pytest.approx(expected[name]), name
    assert "roi_head/num_fg_samples" in expected


def test_synchronized_batch_normalization(results):
    case = "synchronized batch normalization"
    first, second = (results[rank][case] for rank in range(2))
    assert sum(map(len, second["mined"])) == 0
    assert all(a.equal(b) for a, b in zip(first["gradients"], second["gradients"]))
    assert all(a.equal(b) for a, b in zip(first["buffers"], second["buffers"]))
    assert all(g.isfinite().all() for g in first["gradients"])
    fresh = heads_and_batch(case, 0)[0]
    assert not all(a.equal(b) for a, b in zip(first["buffers"], fresh.buffers()))


DETECTORS = [
    (kind, numbers)
    for kind in (OHEMRetinaNet, OHEMFCOS)
    for numbers in (([3, 1], [2, 0]), ([3, 1], [0, 0]), ([0], [0]))
]


def step_of_detector(rank, kind, numbers, wrap=lambda x: x):
    """The losses and gradients of a process, whose images have as many objects."""
    detector = wrap(make_detector(kind, ohem={"batch_size_per_image": 16}))
    losses, _ = detector_step(detector, make_inputs(rank, numbers[rank]))
    return {name: x.item() for name, x in losses.items()}, gradients(detector, losses)


def work_on_detectors(folder):
    """One of the processes."""
    torch.set_num_threads(1)
    rank = comm.get_rank()
    results = [step_of_detector(rank, *x, wrap=wrap_ddp) for x in DETECTORS]
    torch.save(results, f"{folder}/{rank}.pth")


def test_one_stage_detectors_mine_their_own_images_and_all_learn_the_same(tmp_path):
    timeout = timedelta(minutes=3)
    launch(work_on_detectors, 2, dist_url="auto", args=(tmp_path,), timeout=timeout)
    together = [torch.load(tmp_path / f"{rank}.pth") for rank in range(2)]
    for case, of_case in enumerate(DETECTORS):
        alone = [step_of_detector(rank, *of_case) for rank in range(2)]
        for rank in range(2):
            losses, found = together[rank][case]
            assert losses == pytest.approx(alone[rank][0])
            for a, b, c in zip(found, *(x[1] for x in alone), strict=True):
                torch.testing.assert_close(a, (b + c) / 2)


def train_and_note_evaluations(folder, data):
    """One of the processes."""
    torch.set_num_threads(1)
    cfg = load_config(
        "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
        [
            *SHRINK_OPTS, "MODEL.ROI_HEADS.NAME", "OHEMROIHeads", "DATASETS.TRAIN", data,
            "DATASETS.TEST", data, "DATALOADER.NUM_WORKERS", "0", "INPUT.MIN_SIZE_TRAIN", "(64,)",
            "SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", "1",
            "TEST.AUG.ENABLED", "True", "OUTPUT_DIR", f"{folder}/out",
        ],
    )  # fmt: skip
    register_datasets(cfg)
    asked = []

    class TrainerThatNotesEvaluations(Trainer):
        @classmethod
        def test(cls, cfg, model, evaluators=None):
            asked.append("TTA" if cfg.OUTPUT_DIR.endswith("TTA") else "plain")
            return {}

    TrainerThatNotesEvaluations(cfg).train()
    Path(f"{folder}/{comm.get_rank()}.json").write_text(json.dumps(asked))


def test_all_processes_evaluate_in_the_same_order(tmp_path, voc):
    data = voc.replace("voc://", f"voc://{tmp_path}/")
    launch(
        train_and_note_evaluations,
        2,
        dist_url="auto",
        args=(tmp_path, data),
        timeout=timedelta(minutes=3),
    )
    for rank in range(2):
        asked = json.loads((tmp_path / f"{rank}.json").read_text())
        assert asked == ["plain", "plain", "TTA"]


@pytest.fixture
def voc(tmp_path):
    objects = [("dog", (5, 5, 30, 40), ""), ("cat", (40, 10, 70, 50), "")]
    write_voc(tmp_path / "voc", {f"image {i}": objects for i in range(5)})
    return "voc://voc?split=trainval"


def on_processes(number):
    """
    Arguments of train_net.py, which starts interpreters of their own for two or more. The port is
    free, whoever else trains on this machine.
    """
    return "--num-gpus", number, "--dist-url", "auto"


def logged(folder):
    lines = (folder / "out" / "metrics.json").read_text().splitlines()
    return {key: value for line in lines for key, value in json.loads(line).items()}


def test_train_net(tmp_path, voc):
    opts = [
        "OUTPUT_DIR", "out", "DATASETS.TRAIN", voc, "DATASETS.TEST", voc,
        "SOLVER.IMS_PER_BATCH", 4, "SOLVER.MAX_ITER", 3, "DATALOADER.NUM_WORKERS", 0,
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 8, "MODEL.RPN.POST_NMS_TOPK_TRAIN", 20,
    ]  # fmt: skip
    run = run_train_net(tmp_path, *on_processes(2), *opts, run=run_script)
    assert run.returncode == 0, run.stderr
    metrics = logged(tmp_path)
    assert math.isfinite(metrics["ohem/cost_of_selected"])
    assert metrics["roi_head/num_fg_samples"] + metrics["roi_head/num_bg_samples"] <= 8
    assert "bbox/AP50" in metrics
    assert (tmp_path / "out" / "pictures" / "mined.jpg").exists()

    evaluate = ["--eval-only", "MODEL.WEIGHTS", "out/model_final.pth", *opts]
    results = []
    for processes in (1, 2):
        run = run_train_net(tmp_path, *on_processes(processes), *evaluate)
        assert run.returncode == 0, run.stderr
        results.append([x for x in run.stdout.splitlines() if "copypaste: " in x][-1].split()[-1])
    assert results[0] == results[1]


def test_a_python_config(tmp_path, voc):
    opts = [
        "train.output_dir=out", "train.max_iter=2", "train.init_checkpoint=''", "optimizer.lr=1e-5",
        "train.device=cpu", f"dataloader.train.dataset.names={voc}",
        f"dataloader.test.dataset.names={voc}", "model.roi_heads.mask_in_features=null",
        *(f"{key}={value}" for key, value in NARROW_OPTS.items()),
        "dataloader.train.total_batch_size=2", "dataloader.train.num_workers=0",
        "dataloader.test.num_workers=0", "train.log_period=1",
        "model.backbone.bottom_up.stem.norm=BN", "model.backbone.bottom_up.stages.norm=BN",
        "dataloader.train.mapper.augmentations.0.short_edge_length=[64]",
        "dataloader.test.mapper.augmentations.0.short_edge_length=64",
    ]  # fmt: skip
    config = ROOT / "configs" / "mask_rcnn_R_50_FPN_1x_ohem.py"
    run = run_train_net(tmp_path, *on_processes(2), *opts, config=config)
    assert run.returncode == 0, run.stderr
    assert math.isfinite(logged(tmp_path)["ohem/cost_of_selected"])


def test_mistakes_are_answered_by_one_line(tmp_path):
    opts = ["DATASETS.TRAIN", "my_data", "OUTPUT_DIR", "out"]
    run = run_train_net(tmp_path, *on_processes(2), *opts)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith(
        "error: DATASETS.TRAIN: the data set 'my_data' is not known"
    )


def test_arguments_that_nothing_takes():
    model = torch.nn.Linear(1, 1)
    assert wrap_ddp(model, broadcast_buffers=False, fp16_compression=True) is model
    with pytest.raises(
        InputError, match="^train.ddp.find_unused is True, expected .* nearest is find_unused_param"
    ):
        wrap_ddp(model, find_unused=True)
    with pytest.raises(
        InputError, match="^train.ddp.find_unused_parameters is 'false', expected True or False$"
    ):
        wrap_ddp(model, find_unused_parameters="false")
