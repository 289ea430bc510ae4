"""The figures in README.md and docs/ are those that the benchmarks stored."""

import importlib.util
import json
import re
import shutil
import sys
from statistics import mean

import pytest
from command_line import ROOT

TOOL = ROOT / "tools" / "update_docs.py"
spec = importlib.util.spec_from_file_location("tool_of_figures", TOOL)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)

PAGE = "docs/when_it_helps.md"
RESULTS = "docs/accuracy/pretrained_long/results.json"
BLOCK = "<!-- figures: logging-cost -->\n<!-- end -->\n"


def test_all_blocks_are_up_to_date():
    of_page = {page.name: page.read_text(encoding="utf-8") for page in tool.pages()}
    assert {name: tool.out_of_date(text) for name, text in of_page.items()} == {
        name: [] for name in of_page
    }


def test_each_block_is_used_and_known():
    used = {name for page in tool.pages() for name in tool.names_of_blocks(page.read_text("utf-8"))}
    assert used == tool.BLOCKS.keys()


def test_the_blocks_of_the_readme_are_in_it():
    names = tool.names_of_blocks((ROOT / "README.md").read_text(encoding="utf-8"))
    assert sorted(names) == ["readme-cost", "readme-results"]
    for name in names:
        assert max(map(len, tool.BLOCKS[name]().splitlines())) <= 100


def test_a_figure_that_is_changed_by_hand_is_noticed_and_mended():
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    changed = text.replace("| +7.9 | +9.1 |", "| +7.9 | +9.2 |")
    assert changed != text
    assert tool.out_of_date(changed) == ["way"]
    assert tool.update(changed) == text


def test_a_run_that_is_changed_is_noticed(tmp_path, monkeypatch, capsys):
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "README.md", tmp_path)
    content = json.loads((tmp_path / RESULTS).read_text())
    for run in content["runs"]:
        if (run["data"], run["variant"]) == ("bccd", "half_random"):
            run["points"][-1]["AP"] += 1
    (tmp_path / RESULTS).write_text(json.dumps(content))
    monkeypatch.setattr(tool.stored, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", [TOOL.name, "--check"])
    with pytest.raises(SystemExit, match=r"run python tools/update_docs\.py"):
        tool.main()
    named = [x for x in capsys.readouterr().out.splitlines() if PAGE in x]
    assert named[0] == f"out of date: {PAGE}: settings"
    assert f"out of date: {PAGE}: way" in named
    assert f"out of date: {PAGE}: late-start" not in named
    monkeypatch.setattr(sys, "argv", [TOOL.name])
    tool.main()
    assert f"written: {PAGE}: settings" in capsys.readouterr().out
    assert tool.out_of_date((tmp_path / PAGE).read_text(encoding="utf-8")) == []


def test_a_new_block_is_written_once():
    text = tool.update(BLOCK)
    assert "ms of a step" in text
    assert tool.update(text) == text
    assert tool.out_of_date(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<!-- figures: no-such -->\n<!-- end -->", "found a block 'no-such', expected one of"),
        (f"{BLOCK}<!-- figures: way -->\n| 1 |\n", "found a mark without its other half"),
        (f"{BLOCK}<!-- end -->\n", "found a mark without its other half"),
    ],
)
def test_wrong_marks_are_refused(text, expected):
    with pytest.raises(ValueError, match=expected):
        tool.names_of_blocks(text)


def test_what_the_page_says_in_words():
    """Of the tables that it stands beside: if the study changes, its words have to, too."""
    study = tool.study
    default, paper, late = study.DEFAULT, study.PAPER, study.LATE

    def gain(setting, variant, **kwargs):
        return mean(study.ahead(setting, variant, **kwargs))

    lacking = (study.LABELS_MISSING, study.CELLS, study.OTHER_MISSING, study.OTHER_CELLS)
    for setting in set(study.SETTINGS) - set(lacking):  # "labels are complete: use the default"
        assert gain(setting, default) > 1
        share, _ = study.costs(setting, default)
        assert share < 1
    assert mean(gain(x, default) for x in lacking) < 0  # "the default gains nothing on average"
    assert max(gain(x, paper) for x in lacking[:2]) < -2  # "the paper's own rule loses"
    both = [x for x in study.SETTINGS if study.curves(x, paper)]
    better = [x for x in both if gain(x, paper) > gain(x, default) + 0.5]
    assert better == [study.MANY_LOOK_ALIKES]  # "clearly ahead of the default in one setting only"
    shorter = [gain(study.LOOK_ALIKES, x) for x in ("short_half", "shorter_half")]
    assert shorter[0] > 1 > shorter[1] >= 0  # "still ended ahead", "it ended even"
    short = study.SHORT_LOOK_ALIKES
    run = [x for x in study.VARIANTS if x != study.SAMPLING and study.curves(short, x)]
    of_1000 = {x: gain(short, x) for x in run}
    assert max(of_1000, key=of_1000.get) == late  # "came out best"
    fewer_rois = ("half", "quarter", "sampling_half", "sampling_quarter")
    assert max(of_1000[x] for x in fewer_rois) < 0  # "reduced AP, with mining and without"
    assert of_1000["half"] > of_1000["sampling_half"]  # "ended closer to"
    assert of_1000["ratio"] < 0  # "reduced AP or the gain"
    assert of_1000["cls"] < of_1000[paper]
    for setting in (study.OTHER_MISSING, study.OTHER_CELLS):  # "beat the default with every seed"
        assert min(study.ahead(setting, late, of=default)) > 0
    assert gain(study.OTHER_LOOK_ALIKES, late, of=default) < 0  # "slightly behind on average"
    at_once = range(5)
    assert min(gain(study.OTHER_CELLS, late, at=i) for i in at_once) >= 0  # "never fell behind"
    assert gain(study.OTHER_CELLS, default, at=0) < -2  # "had lost several AP"


def test_what_the_page_says_of_photographs_in_words():
    study, photographs = tool.study, tool.photographs
    default, paper = (
        {x: study.gains(photographs.FOLDER, x, way) for x in photographs.DATA}
        for way in (study.DEFAULT, study.PAPER)
    )
    means = {x: mean(gains) for x, gains in default.items()}
    assert f"{min(means.values()):.1f} to {max(means.values()):.1f}" == "0.7 to 1.0"
    assert min(map(min, default.values())) < 0  # "though not with every seed"
    (missing,) = photographs.MISSING_DATA
    lost = study.gains(photographs.MISSING_FOLDER, missing, study.DEFAULT)
    assert len(lost) == 3
    assert max(lost) < 0  # "ended behind 1:3 sampling with each seed"
    assert -1.5 < mean(lost) < -0.5  # "loses about an AP"
    drawn = (photographs.TWICE_FOLDER, f"few_look_alikes{study.MISSING}")
    once, twice = (study.gains(*drawn, x) for x in (study.DEFAULT, photographs.TWICE))
    assert min(once) > 0  # "and ahead of it on the look-alikes"
    assert mean(twice) > mean(once)  # "gained more"
    assert min(b - a for a, b in zip(once, twice)) < 0  # "though not with each seed"
    assert len(once) == len(twice) == 3
    ahead = {x: mean(gains) - means[x] for x, gains in paper.items()}
    assert ahead.pop("deeppcb") > 1  # "worth a try on small defects"
    assert max(ahead.values()) < 0.1  # "elsewhere it was even or behind"


def test_no_goal_is_met_by_training_on_fewer_rois():
    rows = [x.strip("| ").split(" | ") for x in tool.candidates.costs().splitlines()[2:]]
    assert {verdict for *_, verdict in rows} == {"met", "**missed**", "fewer RoIs"}
    budgets = {}  # of each model, which the head that reads all RoIs uses up
    for model, _, same_pooling, _, _, rois, goal, verdict in rows:
        trained_on = int(rois.split()[0])
        if trained_on < budgets.setdefault(model, trained_on):
            assert verdict == "fewer RoIs"
        else:
            is_met = float(same_pooling.strip("*")) <= float(goal)
            assert verdict == ("met" if is_met else "**missed**")


def test_what_the_page_says_of_fewer_candidates_in_words():
    last = tool.study.last_aps(tool.candidates.FOLDER)

    def gain(data, way):
        runs, of_all = last[data, way], last[data, tool.study.DEFAULT]
        return mean(runs[s] - of_all[s] for s in runs.keys() & of_all.keys())

    half, quarter, eighth, half_by, quarter_by = (
        {data: gain(data, way) for data in tool.candidates.DATA} for way in tool.candidates.WAYS
    )
    assert -1.5 < half["few_look_alikes"] < -0.5  # "about an AP on the look-alikes"
    assert half["bccd"] > -0.2  # "and nothing on the blood cells"
    assert max(*quarter.values(), *eighth.values()) < -1  # "fewer cost AP on both"
    for by, at_random in ((half_by, half), (quarter_by, quarter)):
        # "about as much on the look-alikes"
        assert abs(by["few_look_alikes"] - at_random["few_look_alikes"]) < 0.5
        assert by["bccd"] < at_random["bccd"] - 2  # "but far more on the blood cells"


def test_pairs_on_two_kinds_of_machines_are_left_out(monkeypatch):
    study, photographs = tool.study, tool.photographs
    runs = [
        {"data": data, "variant": way, "seed": seed, "points": [{"AP": ap}], "machine": machine}
        for data in photographs.DATA
        for way, aps in (
            (study.SAMPLING, (40, 40)),
            (study.DEFAULT, (42, 50)),
            (study.PAPER, (44, 45)),
        )
        for seed, ap, machine in zip((0, 1), aps, ("no GPU, 1 thread", "no GPU, 1 thread"))
    ]
    for x in runs:
        if (x["variant"], x["seed"]) == (study.DEFAULT, 1):
            x["machine"] = "NVIDIA H100"
    monkeypatch.setattr(tool.stored, "content", lambda file: {"runs": runs})
    words = " ".join(photographs.on_one_machine().split())
    assert words.startswith("In 4 of the pairs")  # one of each data set
    assert words.endswith("are +2.0 and +4.5 AP.")


def test_what_the_page_on_costs_says_in_words():
    """Of the tables that it links to."""
    page = tool.stored.section(tool.cost.PAGE, "Growth with the number of images")
    waits = re.findall(r"^\| \d+ \| .* \| (\d+), (\d+) \| \d+ ms \|$", page, re.MULTILINE)
    added = [int(mining) - int(plain) for plain, mining in waits]
    assert len(added) == 4
    assert added == sorted(added, reverse=True)  # "no more synchronizations with many images"


def test_what_the_page_on_label_errors_says_in_words():
    rows = tool.label_errors.label_errors().splitlines()[2:]
    loss, *cleanlab = (list(map(int, re.findall(r"(\d+) ±", row))) for row in rows)
    assert min(loss[1::2]) > 80  # "finds most of them"
    assert min(loss[::2]) > 2 * max(x for row in cleanlab for x in row[::2])  # "much higher"


def test_what_the_page_on_relabelling_says_in_words():
    runs = tool.relabelling.runs()
    of = {
        (images, variant): runs[f"{images}_look_alikes removed 0.2", variant][0]
        for images in ("some", "few")
        for variant in ("none", "100 suspects", "100 random images")
    }
    many = runs["some_look_alikes removed 0.2", "400 suspects"][0]
    assert many["changed"] > 0.9 * many["wrong"]  # "almost every missing label"
    at_random = runs["some_look_alikes removed 0.2", "400 random images"][0]
    assert at_random["changed"] < many["changed"] / 2  # "far fewer"
    few = of["few", "100 suspects"]
    assert few["decisions"] < few["wrong"] / 2  # "few suspects left"
    assert few["changed"] > few["decisions"] / 2  # "most of them right"
    ap = {key: run["points"][-1]["AP"] for key, run in of.items()}
    assert ap["few", "100 random images"] > ap["few", "100 suspects"]  # "won back more AP"
