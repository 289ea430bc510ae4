import itertools
import json
import math
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import accuracy
import pytest
import second_training
import step_times
import study_file
import study_page
import study_trainer
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import BoxMode
from detectron2.utils.events import EventStorage

from ohem_d2.data.shapes import write_shapes
from ohem_d2.errors import InputError
from ohem_d2.training.key_checks import check_keys

TINY = [
    "SOLVER.MAX_ITER",
    "4",
    "SOLVER.IMS_PER_BATCH",
    "2",
    "MODEL.RESNETS.STEM_OUT_CHANNELS",
    "32",
]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """What is drawn for one test serves the others as well."""
    return tmp_path_factory.mktemp("drawn")


@pytest.fixture(autouse=True)
def _few_images(monkeypatch, drawn):
    monkeypatch.setattr(accuracy, "DRAWN_FOLDER", drawn)
    for name, drawing in list(accuracy.DRAWN.items()):
        sizes = {"train": 9, "test": 3}
        monkeypatch.setitem(accuracy.DRAWN, name, {**drawing, "sizes": sizes})


def call(monkeypatch, output, *arguments, opts=()):
    command = ["accuracy.py", "--data", "plain", "--points", "2", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", [*command, *arguments, "--opts", *TINY, *opts])
    accuracy.main()


def runs_in(folder):
    return json.loads((folder / "results.json").read_text())["runs"]


def configure(variant):
    opts = accuracy.drawn_data("plain")
    return accuracy.configure("benchmarks/accuracy.yaml", opts, variant, seed=0)


def test_all_but_the_rois_is_the_same_and_no_run_is_repeated(monkeypatch, tmp_path, capsys):
    timed = []

    def time_steps(trainers):
        timed.append(set(trainers))
        return {name: [1.0] for name in trainers}

    monkeypatch.setattr(accuracy, "time_steps", time_steps)
    seen = []
    preprocess = GeneralizedRCNN.preprocess_image

    def spy(self, batch):
        if self.training:
            weights = sum(float(p.double().abs().sum()) for p in self.parameters())
            seen.append([(x["image_id"], float(x["image"].double().sum())) for x in batch])
            if len(seen) % 4 == 1:
                seen[-1].append(weights)
        return preprocess(self, batch)

    monkeypatch.setattr(GeneralizedRCNN, "preprocess_image", spy)
    call(monkeypatch, tmp_path, "--variants", "sampling", "ohem", "--seeds", "0", "1")
    # seed 0 of both, then seed 1 of both
    assert len(seen) == 16
    assert seen[0:4] == seen[4:8] != seen[8:12] == seen[12:16]

    results = runs_in(tmp_path)
    names = [(r["data"], r["variant"], r["seed"]) for r in results]
    assert names == [("plain", v, s) for s in (0, 1) for v in ("sampling", "ohem")]
    result = results[3]
    assert [p["iteration"] for p in result["points"]] == [2, 4]
    assert {"AP", "AP50", "AP75", "AP-circle"} <= set(result["points"][1])
    assert result["settings"]["SOLVER.MAX_ITER"] == 4
    page = (tmp_path / "accuracy.md").read_text()
    assert "| OHEM as in the paper | 2 |" in page
    assert page.strip() in capsys.readouterr().out
    assert (tmp_path / "plain.png").exists()

    del seen[:]
    (tmp_path / "accuracy.md").unlink()
    call(monkeypatch, tmp_path, "--variants", "sampling", "--seeds", "0")
    assert (tmp_path / "accuracy.md").read_text().strip() == page.strip()
    assert not seen

    call(monkeypatch, tmp_path, "--variants", "sampling", "ohem", "half", "--seeds", "0")
    assert len(seen) == 4  # that of the new one
    assert timed == [{"sampling", "ohem"}, {"sampling", "ohem", "half"}]  # in turn with the others
    with pytest.raises(SystemExit, match=r"plain, sampling, seed 0 is there with SOLVER.BASE_LR 0"):
        call(monkeypatch, tmp_path, "--variants", "sampling", opts=["SOLVER.BASE_LR", "0.5"])
    opts = ["MODEL.RPN.POST_NMS_TOPK_TEST", "1000"]  # Detectron2's default
    with pytest.raises(SystemExit, match=r"MODEL.RPN.POST_NMS_TOPK_TEST 64, expected 1000"):
        call(monkeypatch, tmp_path, "--variants", "sampling", opts=opts)
    assert len(runs_in(tmp_path)) == 5


def test_two_studies_may_write_to_one_folder(monkeypatch, tmp_path):
    points = [{"iteration": 4, "AP": 1.0, "AP50": 2.0, "AP75": 0.5}]
    trained = []

    def train(cfg, *_):
        trained.append(cfg.SEED)
        return points

    def time_steps(trainers):
        if not trained:  # meanwhile, another study does a run of its own, and one of this
            trained.append("the other")
            call(monkeypatch, tmp_path, "--variants", "sampling", "--seeds", "1", "2")
        return {name: [1.0] for name in trainers}

    monkeypatch.setattr(accuracy, "train", train)
    monkeypatch.setattr(accuracy, "time_steps", time_steps)
    call(monkeypatch, tmp_path, "--variants", "sampling", "--seeds", "0", "1")
    assert sorted(r["seed"] for r in runs_in(tmp_path)) == [0, 1, 2]
    assert trained == ["the other", 1, 2, 0]  # and none twice


def test_two_runs_at_a_time_come_out_as_one_after_the_other(monkeypatch, tmp_path):
    monkeypatch.setattr(accuracy, "time_steps", lambda trainers: {name: [1.0] for name in trainers})
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    opts = accuracy.drawn_data("plain")  # which the other processes would draw anew
    monkeypatch.setattr(accuracy, "drawn_data", lambda name: opts)
    variants = ["--variants", "sampling", "half_random", "--seeds", "0", "--average"]
    call(monkeypatch, tmp_path / "two", *variants, "--jobs", "2")
    call(monkeypatch, tmp_path / "one", *variants)
    runs = sorted(runs_in(tmp_path / "two"), key=lambda run: run["variant"], reverse=True)
    assert [run["variant"] for run in runs] == ["sampling", "half_random"]
    assert [run["points"] for run in runs] == [run["points"] for run in runs_in(tmp_path / "one")]
    assert "AP averaged" in runs[0]["points"][-1]
    assert all("1 thread of" in run["machine"] for run in runs)


def test_the_average_of_the_last_weights(monkeypatch, tmp_path):
    seen = []

    class Spy(study_trainer.LastWeights):
        def after_step(self):
            super().after_step()
            weight = next(iter(self.trainer.model.parameters()))
            seen.append((weight.clone(), getattr(self, "average", None)))

    monkeypatch.setattr(study_trainer, "LastWeights", Spy)
    opts = [*accuracy.drawn_data("plain"), *TINY, "SOLVER.MAX_ITER", "10", "SOLVER.BASE_LR", "0.1"]
    cfg = accuracy.configure("benchmarks/accuracy.yaml", opts, "half_random", seed=0)
    accuracy.train(cfg, 1, average=True)
    weights, averages = zip(*seen)
    assert averages[:8] == (None,) * 8
    (found,) = [next(iter(x.module.parameters())) for x in averages[9:]]
    assert not weights[8].equal(weights[9])
    torch.testing.assert_close(found, (weights[8] + weights[9]) / 2)


def test_no_change_is_lost(tmp_path):
    def add(number):
        with study_file.changes(tmp_path / "results.json") as content:
            content["runs"].append(number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(200)))
    assert sorted(runs_in(tmp_path)) == list(range(200))


def test_steps_of_all_variants_are_timed(monkeypatch, tmp_path):
    monkeypatch.setattr("step_times.ROUNDS", 2)
    call(monkeypatch, tmp_path, "--variants", "sampling", "retinanet", "--seeds", "0")
    seconds = json.loads((tmp_path / "results.json").read_text())["steps"]["plain"]["seconds"]
    assert set(seconds) == {"sampling", "retinanet"}
    assert all(len(x) == 2 and min(x) > 0 for x in seconds.values())
    row = (tmp_path / "accuracy.md").read_text().splitlines()[7]
    of_step = step_times.ratio(seconds["retinanet"], seconds["sampling"])
    assert f"| {of_step:.2f} |" in row


def test_a_backbone_is_trained_once_and_every_run_starts_from_it(monkeypatch, tmp_path, drawn):
    monkeypatch.setattr(accuracy, "time_steps", lambda trainers: {name: [1.0] for name in trainers})
    monkeypatch.setattr(accuracy, "PRETRAINING", ["SOLVER.MAX_ITER", "2"])
    with pytest.raises(SystemExit, match="MODEL.RESNETS.STEM_OUT_CHANNELS is set .*, expected"):
        call(monkeypatch, tmp_path, "--seeds", "0", "--pretrain")
    monkeypatch.setitem(globals(), "TINY", TINY[:-2])
    started = []

    class Spy(study_trainer.StudyTrainer):
        def before_train(self):
            super().before_train()
            weights = self.model.state_dict()
            copied = {k: v.clone() for k, v in weights.items()}
            started.append((self.cfg.DATASETS.TRAIN[0], self.cfg.MODEL.META_ARCHITECTURE, copied))

    monkeypatch.setattr(study_trainer, "StudyTrainer", Spy)
    variants = ["--variants", "sampling", "ohem", "retinanet", "--seeds", "0"]
    call(monkeypatch, tmp_path, *variants, "--data", "look_alikes", "--pretrain")
    first, *runs = started
    assert "/plain/" in first[0]
    assert [("/look_alikes/" in data, arch) for data, arch, _ in runs] == [
        (True, "GeneralizedRCNN"),
        (True, "GeneralizedRCNN"),
        (True, "RetinaNet"),
    ]
    (file,) = drawn.glob("*.pth")
    trained = torch.load(file)["model"]
    assert len(trained) > 20
    assert set(trained) < set(runs[0][2])
    assert all(k.startswith("backbone.") for k in trained)
    assert any(not v.equal(first[2][k]) for k, v in trained.items())
    for _, _, weights in runs:
        assert all(weights[k].equal(v) for k, v in trained.items())
    heads = [k for k in runs[0][2] if k not in trained]
    assert heads
    assert all(runs[0][2][k].equal(runs[1][2][k]) for k in heads)
    del started[:]
    call(monkeypatch, tmp_path, *variants, "--data", "look_alikes", "plain", "--pretrain")
    assert len(started) == 3  # those of the other data


@pytest.mark.parametrize("variant", accuracy.VARIANTS)
def test_every_variant_trains(tmp_path, variant):
    opts = [*accuracy.drawn_data("plain"), *TINY]
    cfg = accuracy.configure("benchmarks/accuracy.yaml", opts, variant, seed=0)
    trainer = accuracy.build_trainer(cfg, str(tmp_path))
    before = [x.clone() for x in trainer.model.parameters()]
    with EventStorage() as storage:
        trainer.run_step()
        assert math.isfinite(storage.latest()["total_loss"][0])
    assert any(not x.equal(y) for x, y in zip(trainer.model.parameters(), before))


def test_a_key_that_was_not_there_yet_counts_as_its_default(tmp_path):
    cfg = configure("ohem")
    key = "MODEL.ROI_HEADS.OHEM.SAMPLER"
    result = {"settings": accuracy.settings_of(cfg), "data": "x", "variant": "y", "seed": 0}
    accuracy.check_same_settings(result, cfg, tmp_path)
    assert result["settings"].pop(key) == "MixedSampler"
    accuracy.check_same_settings(result, cfg, tmp_path)
    cfg = configure("balanced")
    with pytest.raises(accuracy.InputError, match=rf"{key} 'MixedSampler', expected 'Balanced'"):
        accuracy.check_same_settings(result, cfg, tmp_path)
    cfg = configure("ohem")
    cfg.MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS = ((1.0, 1.0, 1.0, 1.0),)
    result["settings"] = json.loads(json.dumps(accuracy.settings_of(cfg)))
    accuracy.check_same_settings(result, cfg, tmp_path)


def test_runs_may_be_of_any_device(tmp_path):
    cfg = configure("ohem")
    result = {"settings": accuracy.settings_of(cfg), "data": "x", "variant": "y", "seed": 0}
    cfg.MODEL.DEVICE = "cuda:1"
    accuracy.check_same_settings(result, cfg, tmp_path)


def test_a_run_from_before_hard_fraction_gave_all_of_the_budget_to_hard_examples(tmp_path):
    cfg = configure("ohem")
    result = {"settings": accuracy.settings_of(cfg), "data": "x", "variant": "y", "seed": 0}
    assert result["settings"].pop("MODEL.ROI_HEADS.OHEM.HARD_FRACTION") == 1.0
    accuracy.check_same_settings(result, cfg, tmp_path)
    cfg = configure("half_random")
    with pytest.raises(accuracy.InputError, match=r"HARD_FRACTION 1.0, expected 0.5"):
        accuracy.check_same_settings(result, cfg, tmp_path)


def test_all_variants_but_those_that_say_so_are_the_papers_way():
    fractions = {v: configure(v).MODEL.ROI_HEADS.OHEM.HARD_FRACTION for v in accuracy.VARIANTS}
    others = {v: x for v, x in fractions.items() if x != 1}
    halves = ("half", "quarter", "eighth", "half_random", "half_cls", "half_capped")
    halves += ("balanced", "half_even", "short_half", "shorter_half")
    halves += ("sampled_first_half", "sampling_ignoring", "half_unaware", "half_from_001")
    halves += ("all_masks", "half_candidates", "quarter_candidates", "half_rpn", "half_rpn_hard")
    halves += ("half_scales", "half_snip", "sampling_snip", "eighth_candidates")
    halves += ("half_by_objectness", "quarter_by_objectness", *second_training.WAYS)
    # Those that have no such key.
    halves += ("iou_balanced", "prime_samples", "hard_pool", "in_proportion", "soft", "half_soft")
    assert others == {"quarter_hard": 0.25} | dict.fromkeys(halves, 0.5)


def test_what_the_paper_compares():
    plain = configure("sampling")
    heads, edge = plain.MODEL.ROI_HEADS, plain.INPUT.MIN_SIZE_TRAIN[0]
    rois = heads.BATCH_SIZE_PER_IMAGE * plain.SOLVER.IMS_PER_BATCH
    for way in ("sampling_n1", "ohem_n1"):
        cfg = configure(way)
        assert (1, rois) == (cfg.SOLVER.IMS_PER_BATCH, cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE)
    for way in ("sampling_from_01", "sampling_n1", "sampling_mb"):
        of_labels = configure(way).MODEL.ROI_HEADS
        assert [0.1, *heads.IOU_THRESHOLDS] == of_labels.IOU_THRESHOLDS
        assert [-1, *heads.IOU_LABELS] == of_labels.IOU_LABELS
    for way in ("sampling_mb", "ohem_mb"):
        cfg = configure(way)
        check_keys(cfg)
        edges = tuple(round(edge * x) for x in (0.8, 0.96, 688 / 600, 1.44, 1.5))
        assert cfg.INPUT.MIN_SIZE_TRAIN == cfg.TEST.AUG.MIN_SIZES == edges
        assert (cfg.TEST.AUG.ENABLED, cfg.TEST.BOX_VOTING.ROUNDS) == (True, 2)
    cfg = configure("all_rois")
    assert pytest.approx(3 * plain.SOLVER.BASE_LR) == cfg.SOLVER.BASE_LR
    assert cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION == 1.0


def test_background_by_objectness_among_fewer_candidates(tmp_path):
    kept = {}
    for way in ("quarter_by_objectness", "quarter_candidates"):
        trainer = accuracy.build_trainer(configure(way), str(tmp_path))
        heads, read = trainer.model.roi_heads, []

        def reading(features, labelled, *args, read=read, heads=heads):
            read.extend(labelled)
            return type(heads)._read(heads, features, labelled, *args)

        heads._read = reading
        with EventStorage():
            trainer.run_step()
        kept[way] = read
        assert [len(x) for x in read] == [heads.ohem.max_candidates] * len(read)
    for by_objectness, at_random in zip(*kept.values()):
        lowest = [
            x.objectness_logits[x.gt_classes == heads.num_classes].min()
            for x in (by_objectness, at_random)
        ]
        assert lowest[0] > lowest[1]
        # The two models are the same, and so are their proposals, of which all foreground is kept.
        boxes = [
            x[x.gt_classes != heads.num_classes].proposal_boxes.tensor
            for x in (by_objectness, at_random)
        ]
        assert boxes[0].equal(boxes[1])
        assert not by_objectness.proposal_boxes.tensor.equal(at_random.proposal_boxes.tensor)


def test_three_scales_with_and_without_valid_ranges(monkeypatch, tmp_path):
    monkeypatch.setattr(accuracy, "time_steps", lambda trainers: {name: [1.0] for name in trainers})
    for way in ("half_scales", "half_snip", "sampling_scales", "sampling_snip"):
        cfg = configure(way)
        check_keys(cfg)
        # The drawn images have 128 pixels.
        assert cfg.INPUT.MIN_SIZE_TRAIN == cfg.TEST.AUG.MIN_SIZES == (77, 128, 224)
        ranges = [x for of_scale in cfg.INPUT.VALID_RANGES for x in of_scale]
        expected = [77, 32, math.inf, 128, 32 / 3, 128 / 3, 224, 0, 64 / 3]
        assert ranges == (pytest.approx(expected) if "snip" in way else [])
    call(monkeypatch, tmp_path, "--variants", "half_snip", "--seeds", "0")
    (run,) = runs_in(tmp_path)
    assert all("AP" in point for point in run["points"])


def test_data_in_pascal_vocs_layout_is_evaluated_by_cocos_metric(monkeypatch, tmp_path):
    monkeypatch.setattr(accuracy, "time_steps", lambda trainers: {name: [1.0] for name in trainers})
    write_shapes(tmp_path / "voc", sizes={"train": 6, "test": 3})
    monkeypatch.setattr(accuracy, "VARIANTS", {"ohem": accuracy.VARIANTS["ohem"]})
    opts = ["DATASETS.TRAIN", f"voc://{tmp_path}/voc?split=train"]
    opts += ["DATASETS.TEST", f"voc://{tmp_path}/voc?split=test"]
    command = ["accuracy.py", "--add", "own", "configs/quick_start.yaml", *opts, "--points", "1"]
    arguments = ["--seeds", "0", "--output", str(tmp_path), "--opts", *TINY]
    monkeypatch.setattr(sys, "argv", [*command, *arguments])
    accuracy.main()
    (result,) = runs_in(tmp_path)
    assert {"AP", "AP50", "AP-circle"} <= set(result["points"][0])


def test_spoilt_labels():
    box = {"bbox": [1, 2, 3, 4], "bbox_mode": BoxMode.XYXY_ABS}
    objects = [{"category_id": i % 3, **box} for i in range(4000)]
    DatasetCatalog.register("to_spoil", lambda: [{"file_name": "x", "annotations": objects}])
    accuracy.MetadataCatalog.get("to_spoil").set(thing_classes=["a", "b", "c"])
    (name,) = accuracy.spoil(("to_spoil",), removed=0.2, swapped=0.0)
    (without,) = DatasetCatalog.get(name)
    assert 0.17 < 1 - len(without["annotations"]) / 4000 < 0.23
    assert accuracy.spoil(("to_spoil",), 0.2, 0.0) == (name,)


def test_labels_that_are_ignored_are_those_that_would_be_removed():
    box = {"bbox": [1, 2, 3, 4], "bbox_mode": BoxMode.XYXY_ABS}
    objects = [{"category_id": i % 3, "number": i, **box} for i in range(400)]
    DatasetCatalog.register("to_ignore", lambda: [{"file_name": "x", "annotations": objects}])
    accuracy.MetadataCatalog.get("to_ignore").set(thing_classes=["a", "b", "c"])
    (ignored,) = DatasetCatalog.get(*accuracy.ignore(("to_ignore",), 0.2))
    (removed,) = DatasetCatalog.get(*accuracy.spoil(("to_ignore",), 0.2, 0.0))
    kept = [x["number"] for x in ignored["annotations"] if not x.get("iscrowd")]
    assert kept == [x["number"] for x in removed["annotations"]]
    assert len(ignored["annotations"]) == 400


def test_regions_are_ignored_by_the_variants_that_say_so(monkeypatch, tmp_path):
    opts = [*accuracy.drawn_data("few_crowds"), *TINY]
    seen = {}
    for variant in ("sampling", "sampling_ignoring", "half_random", "half_unaware"):
        cfg = accuracy.configure("benchmarks/accuracy.yaml", opts, variant, seed=0)
        trainer = accuracy.build_trainer(cfg, str(tmp_path))
        batches = islice(trainer.build_train_loader(cfg), 5)
        kinds = {type(x["instances"]).__name__ for batch in batches for x in batch}
        seen[variant] = type(trainer.model.proposal_generator).__name__, "GroundTruth" in kinds
    aware, unaware = ("IgnoreRPN", True), ("RPN", False)
    assert seen == {
        "sampling": unaware,
        "sampling_ignoring": aware,
        "half_random": aware,
        "half_unaware": unaware,
    }


def curve(*values):
    return [
        {"iteration": i, "AP": v, "AP50": v + 10, "AP75": v - 1, "AP-a": v / 2}
        for i, v in enumerate(values, 1)
    ]


def test_table_by_hand():
    runs = {
        "sampling": {0: curve(10, 20, 30, 40), 1: curve(10, 20, 30, 42)},
        "ohem": {0: curve(30, 40, 50, 60), 1: curve(30, 43, 50, 58)},
        "half": {1: curve(1, 2, 3, 4)},
    }
    page = study_page.table(runs, {"sampling": [2.0] * 4, "ohem": [2.5] * 4, "half": [1.0] * 4})
    overall, by_class = page.split("\n\n")
    _, _, sampling, ohem, half = overall.splitlines()
    assert sampling.endswith("| 2 | 41.0 ± 1.4 | 51.0 ± 1.4 | 40.0 ± 1.4 |  |  |  |")
    assert "| 2 | 59.0 ± 1.4 (+18.0: +20.0 +16.0) | 69.0 ± 1.4 (+18.0: +20.0 +16.0) |" in ohem
    # Mean APs of 30 and 41.5 at the first two points, 41 to reach: 1.957 of 4 points.
    assert ohem.endswith("| 0.49 | 1.25 | 0.61 |")
    assert half.endswith("| 1 | 4.0 (-38.0) | 14.0 (-38.0) | 3.0 (-38.0) | never | 0.50 | never |")
    header, _, _, ohem, _ = by_class.splitlines()
    assert header == "| RoIs | seeds | AP-a |"
    assert ohem.endswith("| 2 | 29.5 ± 0.7 (+9.0: +10.0 +8.0) |")
    assert study_page.table(runs, {"ohem": [2.5]}).splitlines()[3].endswith("| 0.49 |  |  |")


def test_seeds_stand_in_one_order(tmp_path):
    """Also of runs that ended in another."""
    runs = [
        {"data": "x", "variant": way, "seed": seed, "machine": "here", "points": curve(ap)}
        for way, seed, ap in (
            ("sampling", 1, 20.0),
            ("sampling", 0, 10.0),
            ("ohem", 0, 11.0),
            ("ohem", 1, 22.0),
            ("half_random", 1, 24.0),
            ("half_random", 0, 13.0),
        )
    ]
    (tmp_path / "results.json").write_text(json.dumps({"runs": runs, "steps": {}}))
    page = study_page.report(tmp_path)
    assert "(+1.5: +1.0 +2.0)" in page
    assert "(+3.5: +3.0 +4.0)" in page


def test_the_interval_of_five_seeds():
    five = [1.0, 2.0, 3.0, 4.0, 5.0]
    low, high = study_page.bootstrap_interval(five)
    # 2.5 % of all 3125 draws of five values are 78.
    means = sorted(sum(x) / 5 for x in itertools.product(five, repeat=5))
    assert low == pytest.approx(means[78], abs=0.11)
    assert high == pytest.approx(means[-79], abs=0.11)
    cell = study_page._differences(five)
    assert cell == f" (+3.0 [{low:+.1f} {high:+.1f}]: +1.0 +2.0 +3.0 +4.0 +5.0)"
    assert "[" not in study_page._differences(five[:4])


def test_a_baseline_that_finds_nothing():
    nothing = [{"iteration": 1, "AP": 0.0, "AP50": 0.0, "AP75": 0.0}]
    page = study_page.table({"sampling": {0: nothing}, "ohem": {0: curve(0.0)}}, {})
    assert page.splitlines()[3].endswith("| 0.00 |  |  |")
    assert page.splitlines()[-2:] == [
        "| 1:3 sampling (Detectron2) | 1 | 0.0 |",
        "| OHEM as in the paper | 1 | 0.0 (+0.0) |",
    ]


@pytest.mark.parametrize("content", ["", '{"runs": [{"data"', "[]", "{}", "\xff"])
def test_results_that_are_cut_off(tmp_path, content):
    (tmp_path / "results.json").write_text(content, encoding="latin1")
    with pytest.raises(InputError, match=r"results\.json .*, expected"):
        study_page.report(tmp_path)
