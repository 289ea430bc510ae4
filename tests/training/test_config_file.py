import os
from pathlib import Path

import pytest
import torch
import yaml
from detectron2 import model_zoo
from detectron2.config import CfgNode, LazyConfig, get_cfg
from detectron2.modeling import ROI_HEADS_REGISTRY

from ohem_d2 import add_ohem_config, with_ohem
from ohem_d2.config import ohem_options
from ohem_d2.errors import InputError
from ohem_d2.training.config_file import load_config

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ("faster_rcnn_ohem.yaml", "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"),
        (
            "PascalVOC/faster_rcnn_R_50_FPN_ohem.yaml",
            "PascalVOC-Detection/faster_rcnn_R_50_FPN.yaml",
        ),
        (
            "PascalVOC/faster_rcnn_R_50_C4_ohem.yaml",
            "PascalVOC-Detection/faster_rcnn_R_50_C4.yaml",
        ),
    ],
)
def test_differs_from_detectron2_by_the_head_alone(mine, theirs):
    ours, plain = load_config(str(CONFIGS / mine)), load_config(theirs)
    extended = {"OHEMROIHeads": "StandardROIHeads", "OHEMRes5ROIHeads": "Res5ROIHeads"}
    ours.MODEL.ROI_HEADS.NAME = extended[ours.MODEL.ROI_HEADS.NAME]
    assert ours == plain


@pytest.mark.parametrize("file", sorted(CONFIGS.rglob("*.yaml")), ids=lambda p: p.stem)
def test_detectron2_itself_can_load_ours(file):
    cfg = get_cfg()
    add_ohem_config(cfg)
    cfg.merge_from_file(str(file), allow_unsafe=False)
    assert cfg.MODEL.ROI_HEADS.NAME in ROI_HEADS_REGISTRY


def test_name_from_the_model_zoo_and_settings():
    cfg = load_config(
        "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
        ["MODEL.ROI_HEADS.NAME", "OHEMROIHeads", "MODEL.ROI_HEADS.OHEM.NMS_THRESH", "0.6"],
    )
    assert cfg.MODEL.RESNETS.DEPTH == 50
    assert cfg.MODEL.ROI_HEADS.OHEM.NMS_THRESH == 0.6


def test_the_standard_head_in_the_config_of_a_cascade():
    cascade = "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml"
    assert load_config(cascade, ["MODEL.ROI_HEADS.NAME", "OHEMCascadeROIHeads"])
    with pytest.raises(InputError, match=r"is OHEMROIHeads, but .*expected OHEMCascadeROIHeads"):
        load_config(cascade, ["MODEL.ROI_HEADS.NAME", "OHEMROIHeads"])


def test_the_standard_head_in_a_config_based_on_a_cascade(tmp_path):
    cascade = model_zoo.get_config_file("Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml")
    (tmp_path / "mine.yaml").write_text(
        f"_BASE_: {cascade}\nMODEL: {{ROI_HEADS: {{NAME: OHEMROIHeads}}}}\n"
    )
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "ours.yaml").write_text("_BASE_: ../mine.yaml\n")
    (tmp_path / "several.yaml").write_text("_BASE_: [sub/ours.yaml, mine.yaml]\n")
    for name in ("mine", "sub/ours", "several"):
        with pytest.raises(InputError, match=r"OHEMROIHeads, but .*expected OHEMCascadeROIHeads"):
            load_config(str(tmp_path / f"{name}.yaml"))
    assert load_config("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
                       ["MODEL.ROI_HEADS.NAME", "OHEMROIHeads"])  # fmt: skip


def test_without_a_gpu_the_cpu_is_taken():
    cfg = load_config("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml")
    assert ("cuda" if torch.cuda.is_available() else "cpu") == cfg.MODEL.DEVICE


@pytest.mark.parametrize("value", ["voc://a?split=b", "('voc://a?split=b',)"])
def test_a_data_set_needs_no_parentheses(value):
    cfg = load_config(str(CONFIGS / "quick_start.yaml"), ["DATASETS.TEST", value])
    assert cfg.DATASETS.TEST == ("voc://a?split=b",)


def test_a_config_file_cannot_run_code(tmp_path):
    victim = tmp_path / "victim"
    file = tmp_path / "evil.yaml"
    file.write_text(f'OUTPUT_DIR: !!python/object/apply:os.mkdir ["{victim}"]\n')
    with pytest.raises(InputError, match=r"evil.yaml was not loaded.*could run code"):
        load_config(str(file))
    (tmp_path / "child.yaml").write_text('_BASE_: "evil.yaml"\n')
    with pytest.raises(InputError, match="could run code"):
        load_config(str(tmp_path / "child.yaml"))
    assert not victim.exists()


def test_detectron2s_own_files_are_trusted(tmp_path):
    retinanet = "COCO-Detection/retinanet_R_50_FPN_1x.yaml"  # its base computes the anchors
    expected = model_zoo.get_config(retinanet).MODEL.ANCHOR_GENERATOR.SIZES
    assert expected == load_config(retinanet).MODEL.ANCHOR_GENERATOR.SIZES
    child = tmp_path / "child.yaml"
    child.write_text(f'_BASE_: "{model_zoo.get_config_file(retinanet)}"\n')
    assert expected == load_config(str(child)).MODEL.ANCHOR_GENERATOR.SIZES


def test_a_dumped_config_loads_again(tmp_path):
    cfg = load_config(str(CONFIGS / "quick_start.yaml"), ["MODEL.ROI_HEADS.OHEM.SCOPE", "batch"])
    (tmp_path / "config.yaml").write_text(cfg.dump())
    loaded = load_config(str(tmp_path / "config.yaml"))
    assert loaded.MODEL.ROI_HEADS == cfg.MODEL.ROI_HEADS
    assert loaded.SOLVER == cfg.SOLVER


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("MODEL: {ROI_HEADS: {OHEM: {NMS_TRESH: 0.5}}}", "NMS_TRESH"),
        ("MODEL: {ROI_HEADS: {BATCH_SIZE_PER_IMAGE: many}}", "many"),
        ("MODEL: [", "while parsing a flow sequence"),
        ("? [a]\n: b", "unhashable key"),
        ("_BASE_: bad.yaml", "leads back to it"),
        ("MODEL: 5", "MODEL is 5, of int, expected keys below it: .*WEIGHTS, .*BACKBONE"),
        (
            "MODEL: {ROI_HEADS: {OHEM: true}}",
            "MODEL.ROI_HEADS.OHEM is True, of bool, expected keys below it: .*SAMPLER, .*HARD_FRAC",
        ),
        (
            "MODEL:\nSEED: 1",
            "MODEL is None, .* expected keys below it: .*WEIGHTS.*. The lines below may",
        ),
        ("_BASE_: nothing.yaml", "nothing.yaml"),
        ("SEED: 1\nOUTPUT_DIR: a\nSEED: 2", "the key 'SEED' in line 1 and again in line 3"),
        ("SOLVER: {GAMMA: 0.1, 'GAMMA': 0.2}", "the key 'GAMMA' in line 1 and again in line 1"),
        (
            "SOLVER:\n  GAMMA: 0.1\nSOLVER:\n  BASE_LR: 1.0",
            "'SOLVER' in line 1 and again in",
        ),
        ("_BASE_: 'a.yaml'\n_BASE_: 'b.yaml'", "the key '_BASE_' in line 1 and again in line 2"),
        ("MODEL: {5: x}", "the key '5' in line 1, expected a name"),
        ("yes: x", "the key 'yes' in line 1, expected a name"),
        ("SOLVER:\n  STEPS: !!set {1, 2}", "SOLVER.STEPS is of type set, expected a text, a num"),
        ("MODEL: &m\n  RPN: *m", "an alias stands for what it is a part of"),
        ("SEED: " + "[" * 10000, "nested too deeply"),
        ("MODEL: " + "{a: " * 10000, "nested too deeply"),
        ("SEED: 1\n---\nSEED: 2", "expected a single document .* found another one, which '---'"),
        (
            "SEED: 2024-01-01",
            "SEED is what YAML reads as a date, expected quotes around it",
        ),
        ("SOLVER:\n\u00a0 GAMMA: 0.2", r"the key '.xa0 GAMMA' in line 2, with characters that are"),
        ("SEED: " + "9" * 5000, "a whole number of 5000 digits in line 1, expected 300 at most"),
        (
            "SOLVER:\n  MAX_ITER: 010",
            "SOLVER.MAX_ITER is 010 in line 2, .* reads as 8, with base 8",
        ),
        ("SEED: -01_0", "SEED is -01_0 in line 1, which YAML reads as -8, with base 8: expected"),
        ("SOLVER:\n  STEPS: [5, 010]", "SOLVER.STEPS is 010 in line 2, which YAML reads as 8"),
        ("X: {Y: 1:30}", "X.Y is 1:30 in line 1, which YAML reads as 90, with base 60: expected"),
        ("SOLVER:\n  BASE_LR: 1:30.5", "SOLVER.BASE_LR is 1:30.5 in line 2, .* as 90.5, with"),
        ("OUTPUT_DIR: 010", "OUTPUT_DIR is 010 in line 1, .* 8, .*, or a text in quotes"),
        ("SEED: !!int 'a:b'", "invalid literal for int"),
        ("SEED: much", "SEED is 'much', of str, expected int, as by default"),
    ],
)
def test_wrong_files_are_named(tmp_path, content, message):
    (tmp_path / "bad.yaml").write_text(content + "\nVERSION: 2\n")
    with pytest.raises(InputError, match=rf"bad.yaml (.|\n)*: (?!')(.|\n)*{message}"):
        load_config(str(tmp_path / "bad.yaml"))


def test_numbers_that_are_what_they_look_like(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "SEED: 007\nOUTPUT_DIR: '010'\n"
        "SOLVER: {MAX_ITER: 1_000, BASE_LR: 1e-4, GAMMA: 00.5,\n"
        "  WARMUP_ITERS: 0, STEPS: '(20, 30)'}\n"
    )
    cfg = load_config(str(tmp_path / "a.yaml"))
    solver = cfg.SOLVER
    assert (cfg.SEED, cfg.OUTPUT_DIR, solver.MAX_ITER, solver.STEPS) == (7, "010", 1000, (20, 30))
    assert (solver.BASE_LR, solver.GAMMA, solver.WARMUP_ITERS) == (0.0001, 0.5, 0)


def test_aliases_that_grow_without_end(tmp_path):
    lines = ["x0: &x0 [a, a, a, a, a, a, a, a, a]"]
    lines += [f"x{i + 1}: &x{i + 1} [{', '.join([f'*x{i}'] * 9)}]" for i in range(12)]
    (tmp_path / "bad.yaml").write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"bad.yaml .*: its aliases stand for \d+ values, exp"):
        load_config(str(tmp_path / "bad.yaml"))


def test_aliases_and_merged_keys_that_a_config_may_have(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "INPUT:\n  MIN_SIZE_TRAIN: &sizes [480, 512]\nTEST:\n  AUG:\n    MIN_SIZES: *sizes\n"
        "SOLVER:\n  <<: {GAMMA: 0.3, BASE_LR: 0.5}\n  GAMMA: 0.2\n"
    )
    cfg = load_config(str(tmp_path / "a.yaml"))
    assert cfg.TEST.AUG.MIN_SIZES == (480, 512)
    assert (cfg.SOLVER.GAMMA, cfg.SOLVER.BASE_LR) == (0.2, 0.5)


@pytest.mark.parametrize("bases", ["c{}.yaml", "[c{0}.yaml, c{0}.yaml]"])
def test_bases_without_end(tmp_path, bases):
    for i in range(60):
        (tmp_path / f"c{i}.yaml").write_text(f"_BASE_: {bases.format(i + 1)}\n")
    (tmp_path / "c60.yaml").write_text("VERSION: 2\n")
    with pytest.raises(InputError, match=r"/c0\.yaml .* its _BASE_ leads to too many files, exp"):
        load_config(str(tmp_path / "c0.yaml"))


def test_a_key_that_a_base_has_twice(tmp_path):
    (tmp_path / "base.yaml").write_text("SEED: 1\nSEED: 2\n")
    (tmp_path / "child.yaml").write_text("_BASE_: base.yaml\nVERSION: 2\n")
    with pytest.raises(InputError, match="/base.yaml is no valid config: it has the key 'SEED'"):
        load_config(str(tmp_path / "child.yaml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SOLVER: {GAMMA: [0.1]}", "is no valid config: SOLVER.GAMMA is "),
        ("MODEL: {ROI_HEAD: {NAME: A}}", "is no valid config: Non-existent config key: MODEL.ROI_"),
        ("SEED: 'MODEL'", "is no valid config: SEED is 'MODEL', of str"),
        (
            "OUTPUT_DIR: !!python/object/apply:os.mkdir [ran]",
            "was not loaded, because it has a YAML",
        ),
    ],
)
def test_the_file_is_named_that_a_value_is_from(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(f"{text}\nVERSION: 2\n")
    (tmp_path / "b.yaml").write_text("_BASE_: a.yaml\nMODEL: {DEVICE: cpu}\n")
    (tmp_path / "c.yaml").write_text("_BASE_: b.yaml\nSOLVER: {BASE_LR: 0.1}\n")
    words = f"^{tmp_path}/a.yaml, which {tmp_path}/c.yaml is based on, {message}"
    with pytest.raises(InputError, match=words):
        load_config(str(tmp_path / "c.yaml"))
    (tmp_path / "c.yaml").write_text(f"_BASE_: b.yaml\n{text}\n")
    with pytest.raises(InputError, match=f"^{tmp_path}/[ac].yaml"):
        load_config(str(tmp_path / "c.yaml"))


def test_a_config_of_many_keys_of_one_node(tmp_path):
    cfg = load_config("quick_start.yaml")
    file = tmp_path / "solver.yaml"
    file.write_text(CfgNode({"SOLVER": cfg.SOLVER, "TEST": cfg.TEST}).dump())
    assert load_config(str(file)).SOLVER == cfg.SOLVER
    old = CfgNode(yaml.safe_load(cfg.dump()))
    del old["VIS_PERIOD"], old["TEST"]["BOX_VOTING"]  # as of an older version
    file.write_text(old.dump())
    load_config(str(file))


@pytest.mark.parametrize("ending", ["  RETINANET:", "  CLIP_GRADIENTS:", "TEST:", "VERSION:"])
def test_a_saved_config_that_is_cut_short(tmp_path, ending):
    text = load_config("quick_start.yaml").dump()
    file = tmp_path / "cut.yaml"
    file.write_text(text[: text.index(f"\n{ending}") + 1])
    with pytest.raises(InputError, match=rf"^{file} ends early, after [A-Z_.]+: it has all keys"):
        load_config(str(file))
    based = tmp_path / "based.yaml"
    based.write_text("_BASE_: cut.yaml\nSEED: 5\n")
    with pytest.raises(InputError, match=rf"^{file}, which {based} is based on, ends early"):
        load_config(str(based))


@pytest.mark.parametrize(
    ("text", "key", "nested"),
    [
        ("SOLVER.BASE_LR: 0.1", "SOLVER.BASE_LR", "SOLVER: BASE_LR:"),
        ("MODEL.ROI_HEADS: {NAME: A}", "MODEL.ROI_HEADS", "MODEL: ROI_HEADS:"),
        ("MODEL: {ROI_HEADS.NAME: A}", "MODEL.ROI_HEADS.NAME", "MODEL: ROI_HEADS: NAME:"),
    ],
)
def test_a_key_with_points(tmp_path, text, key, nested):
    (tmp_path / "a.yaml").write_text("SOLVER: {BASE_LR: 0.2}\n")
    (tmp_path / "b.yaml").write_text(f"_BASE_: a.yaml\n{text}\n")
    words = f"^{tmp_path}/b.yaml is no valid config: it has {key} as one key .*, expected {nested} "
    with pytest.raises(InputError, match=words):
        load_config(str(tmp_path / "b.yaml"))


@pytest.mark.parametrize("key", ["_base_", "_BASE", "BASE", "__BASE__", "_BASES_"])
def test_a_base_in_other_letters(tmp_path, key):
    (tmp_path / "bad.yaml").write_text(f"{key}: quick_start.yaml\n")
    with pytest.raises(InputError, match=f"config key: {key}, the nearest is _BASE_$"):
        load_config(str(tmp_path / "bad.yaml"))


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_a_file_of_another_kind(tmp_path, suffix):
    file = tmp_path / f"train.{suffix}"
    file.write_text('{"images": [], "annotations": [], "categories": []}')
    message = "is no config of Detectron2: its keys are 'images', .*, expected some of MODEL"
    with pytest.raises(InputError, match=message):
        load_config(str(file))


@pytest.mark.parametrize(
    ("text", "found"),
    [("- a\n", "is of list"), ("root:x:0\n", "is of str"), ("# a\n", "has no keys")],
)
def test_a_file_without_keys(tmp_path, text, found):
    (tmp_path / "a.yaml").write_text(text)
    message = f"a.yaml is no valid config: it {found}, expected keys, such as MODEL$"
    with pytest.raises(InputError, match=message):
        load_config(str(tmp_path / "a.yaml"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_a_file_in_another_encoding(tmp_path, encoding):
    text = "SEED: 1\n" if encoding == "utf-16" else "\ufeffSEED: 1\n"
    (tmp_path / "bad.yaml").write_bytes(text.encode(encoding))
    with pytest.raises(InputError, match=r"it is in UTF-16, .*in UTF-8 \(save it as UTF-8\)"):
        load_config(str(tmp_path / "bad.yaml"))


def test_marks_of_a_merge(tmp_path):
    (tmp_path / "bad.yaml").write_text(
        "SOLVER:\n<<<<<<< HEAD\n  BASE_LR: 0.02\n=======\n  BASE_LR: 0.01\n>>>>>>> lr\n"
    )
    message = "line 2, '<<<<<<< HEAD', is the mark of a merge that has a conflict, expected one of"
    with pytest.raises(InputError, match=message):
        load_config(str(tmp_path / "bad.yaml"))


def test_nothing_is_said_before_the_error(tmp_path, caplog):
    (tmp_path / "bad.yaml").write_text("_base_: quick_start.yaml\n")
    with pytest.raises(InputError, match="Non-existent config key: _base_"):
        load_config(str(tmp_path / "bad.yaml"))
    assert caplog.text == ""


SECRET = "root:secret*:19000: [0:99999\n*secret\n"


@pytest.mark.parametrize(
    "base",
    [
        "/etc/passwd",
        "/etc/secret.yaml",
        "../secret",
        "link.yaml",
        "http://127.0.0.1:9/a.yaml",
        "https://example.com/a.yaml",
        "s3://bucket/a.yaml",
        "~/a.yaml",
        "''",
        "{a: 1}",
        "[a.yaml, [b.yaml]]",
    ],
)
def test_bases_that_do_not_belong_to_a_config(tmp_path, monkeypatch, base):
    monkeypatch.setattr("socket.socket.connect", None)  # nothing is fetched
    folder = tmp_path / "configs"
    folder.mkdir()
    for file in (tmp_path / "secret", folder / "hidden"):
        file.write_text(SECRET)
    (folder / "link.yaml").symlink_to("hidden")
    (folder / "bad.yaml").write_text(f"_BASE_: {base}\n")
    with pytest.raises(InputError, match="bad.yaml is no valid config: its _BASE_") as e:
        load_config(str(folder / "bad.yaml"))
    assert "root:" not in str(e.value)


@pytest.mark.parametrize("key", ["<<", "!!merge x"])
def test_a_base_cannot_hide_in_a_merged_key(tmp_path, key):
    (tmp_path / "secret.yaml").write_text("OUTPUT_DIR: secret\nVERSION: 2\n")
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "bad.yaml").write_text(f"{key}: {{_BASE_: {tmp_path}/secret.yaml}}\nVERSION: 2\n")
    with pytest.raises(InputError, match="bad.yaml is no valid config: its _BASE_ is '/"):
        load_config(str(folder / "bad.yaml"))


def test_bases_that_belong_to_a_config(tmp_path):
    (tmp_path / "a.yaml").write_text("MODEL: {MASK_ON: True}\nVERSION: 2\n")
    (tmp_path / "sub").mkdir()
    zoo = model_zoo.get_config_file("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml")
    ours = CONFIGS / "faster_rcnn_ohem.yaml"
    for base in ("../a.yaml", tmp_path / "sub" / "b.yml", ours, zoo):
        (tmp_path / "sub" / "b.yml").write_text("_BASE_: ../a.yaml\n")
        (tmp_path / "sub" / "c.yaml").write_text(f"_BASE_: {base}\nVERSION: 2\n")
        load_config(str(tmp_path / "sub" / "c.yaml"))


@pytest.mark.parametrize("content", [SECRET, "secret: *secret\n", "a: secret: b\n", "secret\n"])
def test_errors_do_not_tell_what_is_in_a_file(tmp_path, content):
    (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(InputError, match="bad.yaml is no valid config") as e:
        load_config(str(tmp_path / "bad.yaml"))
    assert "secret" not in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("content", ["", "- a", "text"])
def test_files_that_are_no_config(tmp_path, content):
    (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(InputError, match="bad.yaml is no valid config"):
        load_config(str(tmp_path / "bad.yaml"))


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("MODEL.ROI_HEADS.OHEM.NMS_THRESH", "1", 1.0),
        ("SOLVER.BASE_LR", "1", 1.0),
        ("SOLVER.MAX_ITER", "1", 1),
        ("INPUT.MIN_SIZE_TRAIN", "240", (240,)),
        ("MODEL.ROI_HEADS.OHEM.MAX_FOREGROUND_FRACTION", "0.25", 0.25),
        ("OUTPUT_DIR", "some/where", "some/where"),
    ],
)
def test_settings_take_the_type_of_their_key(key, text, value):
    cfg = load_config(str(CONFIGS / "quick_start.yaml"), [key, text])
    for name in key.split("."):
        cfg = cfg[name]
    assert cfg == value
    assert type(cfg) is type(value)


def test_wrong_settings_are_named():
    with pytest.raises(
        InputError, match=r"in the settings .*Non-existent key: MODEL.ROI_HEAD\.NAME"
    ):
        load_config(str(CONFIGS / "quick_start.yaml"), ["MODEL.ROI_HEAD.NAME", "OHEMROIHeads"])
    with pytest.raises(InputError, match="in the settings 'SEED'"):
        load_config(str(CONFIGS / "quick_start.yaml"), ["SEED"])


@pytest.mark.parametrize(
    ("old", "new"),
    [("POSITIVE_FRACTION", "MAX_FOREGROUND_FRACTION"), ("WARMUP_ITERS", "START_ITER")],
)
def test_an_old_name_is_answered_by_the_new_one(tmp_path, old, new):
    node = "MODEL.ROI_HEADS.OHEM"
    error = f"Key {node}.{old} was renamed to {node}.{new}; please update your config"
    (tmp_path / "old.yaml").write_text(f"MODEL: {{ROI_HEADS: {{OHEM: {{{old}: 1}}}}}}")
    with pytest.raises(InputError, match=error):
        load_config(str(tmp_path / "old.yaml"))
    with pytest.raises(InputError, match=error):
        load_config(str(CONFIGS / "quick_start.yaml"), [f"{node}.{old}", "1"])
    without_our_keys = get_cfg()
    without_our_keys.MODEL.ROI_HEADS.OHEM = type(without_our_keys)({old: 1})
    with pytest.raises(InputError, match=error):
        ohem_options(without_our_keys)
    heads = model_zoo.get_config("common/models/cascade_rcnn.py").model.roi_heads
    error = f"Key {old.lower()} was renamed to {new.lower()}; please update your config"
    with pytest.raises(InputError, match=error):
        with_ohem(heads, **{old.lower(): 1})


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["SOLVER.MAX_ITER=5"], "in the settings 'SOLVER.MAX_ITER=5': expected KEY VALUE"),
        (["SEED", "1", "--eval-only"], "--eval-only comes after the settings"),
        (["SEED", "1", "_BASE_", "a.yaml"], "_BASE_ is among the settings, expected it in a con"),
        (
            ["SOLVER.BASE_LR", "0,02"],
            "SOLVER.BASE_LR is .*, expected float.*, such as 0.02 with",
        ),
        (["SEED", "1", "SOLVER.MAX_ITER", "=", "5"], "'SOLVER.MAX_ITER' is followed by '='"),
        (["SEED:", "1"], "in the settings 'SEED:': expected KEY VALUE"),
        (["OUTPUT_DIR", "a", "SEED.X", "5"], "in the settings 'SEED.X 5': .* since SEED is 1, and"),
        (["OUTPUT_DIR", "a", "SEED"], "in the settings 'SEED': expected a value after the key"),
        (["True", "SEED", "1", "OUTPUT_DIR", "a"], "'True' is followed by the key SEED, .* switch"),
        (
            ["SEED", "1", "2", "SOLVER.MAX_ITER", "5"],
            "'2' is in the place of a key, after 'SEED 1': expected KEY VALUE, and quotes around",
        ),
        (
            ["DATASETS.TRAIN", "mine", "yours", "SEED", "1"],
            "'yours' is in the place of a key, after 'DATASETS.TRAIN mine': .* quotes around",
        ),
        (["mine.yaml"], "'mine.yaml' is in the place of a setting, expected --config-file mine.y"),
        (["mine.py", "SEED", "1"], "'mine.py' is in the place of a setting, expected --config-fi"),
        (
            ["DATALOADER.RANDOM_SUBSET_RATIO", "0.1"],
            "key: DATALOADER.RANDOM_SUBSET_RATIO. It is for a sampler that Detectron2",
        ),
        (["SEED", "1", "EPOCHS", "5"], "in the settings 'EPOCHS 5': Non-existent key: EPOCHS"),
        (
            ["INPUT.MIN_SIZE_TRAIN", "96,", "128"],
            "'128' is in the place of a key, after 'INPUT.MIN_SIZE_TRAIN 96,': expected KEY VALUE",
        ),
        (
            ["SEED", "SOLVER.MAX_ITER", "5"],
            "'SEED' is followed by the key SOL.* expected its value",
        ),
        (["MODEL.RPN", "5"], "MODEL.RPN is a node, expected a key below it: .*NMS_THRESH"),
        (["SOLVER", "{'MAX_ITER': 5}"], "SOLVER is a node, expected a key below it"),
        (
            ["OUTPUT_DIR", "a", "SOLVER.MAX_ITER", "90k"],
            "in the settings 'SOLVER.MAX_ITER 90k': .* is '90k', of str, expected int, as by",
        ),
        (
            ["SOLVER.STEPS", "(1,2"],
            r"STEPS is '\(1,2', which cannot be read, expected a tuple",
        ),
        (
            ["MODEL.PIXEL_MEAN", "[1.0, inf]"],
            r"is '\[1.0, inf\]', which .* expected a list, such",
        ),
        (["SEED", "(" * 5000], r"SEED is '\({99}\.\.\., of str, expected int"),
        (["", "5"], "in the settings"),
    ],
)
def test_settings_of_another_form(opts, message):
    with pytest.raises(InputError, match=message):
        load_config(str(CONFIGS / "quick_start.yaml"), opts)


def test_a_saved_python_config(tmp_path):
    python = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
    LazyConfig.save(python, str(tmp_path / "config.yaml"))
    with pytest.raises(InputError, match=r"was saved from a Python config.*expected the \.py file"):
        load_config(str(tmp_path / "config.yaml"))


def test_no_such_file():
    with pytest.raises(InputError, match="no config file 'nothing.yaml', neither here nor in"):
        load_config("nothing.yaml")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Path.mkdir, "is a folder"),
        (os.mkfifo, "is a pipe"),
        (lambda path: path.symlink_to(path.name), "is a link that leads back to itself"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device"),
    ],
)
def test_something_else_of_that_name(tmp_path, make, words):
    make(tmp_path / "other.yaml")
    with pytest.raises(InputError, match=f"^the config file .*other.yaml' {words}, expected a"):
        load_config(str(tmp_path / "other.yaml"))
    (tmp_path / "config.yaml").write_text("_BASE_: other.yaml\n")
    base = (
        rf"its _BASE_(, .*other.yaml, {words}| is .other.yaml., expected)"  # a device is elsewhere
    )
    with pytest.raises(InputError, match=f"config.yaml is no valid config: {base}"):
        load_config(str(tmp_path / "config.yaml"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "\n" * 80 + "<!DOCTYPE html>\n<html><body>a: b: c</body></html>",
            "it is a web page, as of",
        ),
        ("<!-- saved from x -->\n<HTML>", "it is a web page, as of a download"),
        ('<?xml version="1.0"?>\n<!DOCTYPE html>', "it is a web page, as of a download"),
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n",
            "it is a Git LFS pointer",
        ),
    ],
)
def test_another_file_with_the_name_of_a_config(tmp_path, text, words):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(
        InputError, match=f"a.yaml is no valid config: {words}.*, expected the YAML"
    ):
        load_config(str(tmp_path / "a.yaml"))


@pytest.mark.parametrize(
    ("text", "example"),
    [
        ('DATASETS: {TRAIN: ("ohem_shapes_train")}', '("ohem_shapes_train",)'),
        ("DATASETS:\n  TEST: a, b\n", '("a", "b")'),
        ("DATASETS:\n  TEST: (a, b)\n", '("a", "b")'),
        ("DATASETS: {TEST: 'voc://a?classes=b,c'}", '("voc://a?classes=b,c",)'),
        ("DATASETS: {TEST: ''}", '("",)'),
        ("INPUT: {MIN_SIZE_TRAIN: (640)}", "(640,)"),
        ("MODEL: {PIXEL_STD: 1.5}", "(1.5,)"),
        ("SOLVER:\n  STEPS: (60000, 80000\n", "(60000, 80000)"),
    ],
)
def test_a_value_in_the_place_of_a_list(tmp_path, text, example):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError) as e:
        load_config(str(tmp_path / "a.yaml"))
    assert str(e.value).endswith(f", expected a list, such as {example}")


def test_a_name_that_is_too_long():
    with pytest.raises(InputError, match="there is no config file 'aaa"):
        load_config("a" * 300)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("1", "VERSION is 1, whose keys have other names than MODEL.WEIGHTS, expected 2$"),
        ("3", "VERSION is '3', expected 2, that of Detectron2's keys of today$"),
        ("0", "VERSION is '0', expected 2"),
        ("v2", "VERSION is 'v2', expected 2"),
        ("'2'", "VERSION is the text '2', expected the number, without quotes$"),
    ],
)
def test_keys_of_another_version(tmp_path, caplog, version, message):
    (tmp_path / "a.yaml").write_text(f"MODEL: {{WEIGHTS: x.pth}}\nVERSION: {version}\n")
    with pytest.raises(InputError, match=rf"^.*a.yaml is no valid config: {message}"):
        load_config(str(tmp_path / "a.yaml"))
    assert not caplog.text


def test_keys_of_the_first_version_are_renamed(tmp_path, caplog):
    (tmp_path / "a.yaml").write_text("MODEL: {WEIGHT: x.pth}\nVERSION: 1\n")
    assert load_config(str(tmp_path / "a.yaml")).MODEL.WEIGHTS == "x.pth"
    assert "a.yaml: VERSION is 1, and its keys are renamed" in caplog.text


@pytest.mark.parametrize(
    "text", ["MODEL\uff1a\n  MASK_ON: True\n", 'SEED: 1\nOUTPUT_DIR: \u201cout"\n: x']
)
def test_signs_of_another_keyboard(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text + "\nVERSION: 2\n", encoding="utf-8")
    message = r"a.yaml is no valid config: line \d has '.', a sign of another keyboard, expected"
    with pytest.raises(InputError, match=message):
        load_config(str(tmp_path / "a.yaml"))
