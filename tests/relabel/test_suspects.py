"""Suspects in labelling tools, and what comes back from these."""

import json
import re
from xml.etree import ElementTree as ET

import pytest
from small_decisions import CAT, DOG, MOVED, NEW, read_objects, write_report

from ohem_d2 import cli
from ohem_d2.errors import InputError
from ohem_d2.relabel.decisions import Box, Object
from ohem_d2.relabel.exchange import export_suspects, import_decisions
from ohem_d2.relabel.run import relabel
from ohem_d2.relabel.suspects import digest_of, read_suspects


@pytest.fixture
def report(tmp_path):
    return write_report(tmp_path)


def decided(report, file):
    """By the suspect: decision and proposal."""
    output = report.parent / "decisions.json"
    import_decisions(report, file, output)
    content = json.loads(output.read_text())
    return {x["suspect"]: (x["decision"], x["proposal"]) for x in content["decisions"]}


def as_exported(tasks, change=lambda results: None):
    """What Label Studio exports where the first image was submitted."""
    results = tasks[0]["predictions"][0]["result"]
    for x in results:
        x["id"] = "z" * 10  # which its number does not depend on
    change(results)
    tasks[0] |= {"id": 1, "annotations": [{"was_cancelled": False, "result": results}]}
    tasks[1] |= {"id": 2, "annotations": []}
    return tasks


AS_SHOWN = {
    "missing label": ("accept", {"category": "cat", "bbox": NEW}),
    "spurious label": ("reject", None),
    "wrong class": ("accept", {"category": "dog", "bbox": CAT}),
    "badly placed label": ("accept", {"category": "owl", "bbox": MOVED}),
}


def test_label_studio(report, capsys):
    file = report.parent / "tasks.json"
    export_suspects(report, "label-studio", file)
    tasks = json.loads(file.read_text())
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=JPEGImages/a.jpg"
    result = tasks[0]["predictions"][0]["result"][0]
    assert result == {
        "id": "suspect-1", "type": "rectanglelabels", "from_name": "label", "to_name": "image",
        "original_width": 80, "original_height": 60, "image_rotation": 0,
        "value": {"x": 6.25, "y": pytest.approx(200 / 3), "width": 12.5,
                  "height": pytest.approx(50 / 3), "rotation": 0, "rectanglelabels": ["cat"]},
        "meta": {"text": ["suspect 1: missing label"]},
    }  # fmt: skip
    said = capsys.readouterr().out
    assert '<RectangleLabels name="label" toName="image"><Label value="dog"/>' in said
    data = report.parent / "data"  # Label Studio serves folders below this one only
    assert f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={data}\n" in said
    assert f"a Local Files one with the path {data}/JPEGImages, not synchronised" in said
    file.write_text(json.dumps(as_exported(tasks)))
    assert decided(report, file) == AS_SHOWN


def test_labels_as_the_data_set_has_them(report):
    file = report / "label_errors.json"
    content = json.loads(file.read_text())
    content["annotations"][2] |= {"label_index": 1, "label_id": 7, "label_bbox": [29, 0, 20, 30]}
    file.write_text(json.dumps(content))
    _, _, suspects = read_suspects(report)
    box = Box(29, 0, 49, 30)
    assert (suspects[2].label, suspects[2].proposal) == (Object("cat", box, 7), Object("dog", box))


def test_what_was_changed_in_label_studio(report):
    file = report.parent / "tasks.json"
    export_suspects(report, "label-studio", file)

    def change(results):
        missing, _spurious, wrong, badly_placed = results
        missing["value"]["rectanglelabels"] = ["owl"]
        wrong["value"]["rectanglelabels"] = ["cat"]  # as it was labelled
        badly_placed["value"]["x"] += 1.25
        copy = dict(badly_placed, value=dict(badly_placed["value"], x=0, y=50))
        results[:] = [missing, wrong, badly_placed, copy]

    file.write_text(json.dumps(as_exported(json.loads(file.read_text()), change)))
    found = decided(report, file)
    assert found["spurious label"] == ("accept", None)
    assert found["wrong class"][0] == "reject"
    assert found["badly placed label"] == (
        "accept", {"category": "owl", "bbox": [58.5, 0, 20, 30.25]}
    )  # fmt: skip
    # The last of the two: what was drawn besides.
    assert found["missing label"] == ("accept", {"category": "owl", "bbox": [0, 30, 20, 30.25]})


def test_cvat(report, capsys):
    file = report.parent / "suspects.xml"
    export_suspects(report, "cvat", file)
    said = capsys.readouterr().out
    labels = json.loads(said.split("(under Raw): ")[1].splitlines()[0])
    assert [x["name"] for x in labels] == ["dog", "cat", "owl"]
    assert labels[0]["attributes"][0]["name"] == "suspect"
    root = ET.parse(file).getroot()
    assert root.findtext("version") == "1.1"
    image, other = root.findall("image")
    assert image.attrib == {"id": "1000000000", "name": "a.jpg", "width": "80", "height": "60"}
    box = image.find("box")
    assert box.attrib == {
        "label": "cat", "source": "auto", "occluded": "0", "xtl": "5.00", "ytl": "40.00",
        "xbr": "15.00", "ybr": "50.00", "z_order": "0",
    }  # fmt: skip
    assert box.findtext("attribute") == f"1 missing label {digest_of(read_suspects(report)[2])}"
    root.remove(other)
    ET.ElementTree(root).write(file)
    assert decided(report, file) == AS_SHOWN

    missing, spurious, wrong, _ = image.findall("box")
    image.remove(missing)
    image.remove(spurious)
    wrong.set("label", "owl")
    drawn = ET.SubElement(image, "box", label="dog", xtl="1", ytl="2", xbr="11", ybr="12")
    ET.SubElement(drawn, "attribute", name="suspect")
    ET.ElementTree(root).write(file)
    (report.parent / "decisions.json").unlink()
    found = decided(report, file)
    assert found["spurious label"] == ("accept", None)
    assert found["wrong class"] == ("accept", {"category": "owl", "bbox": CAT})
    assert found["missing label"] == ("accept", {"category": "dog", "bbox": [1, 2, 10, 10]})


def test_from_the_report_to_corrected_labels(report):
    file = report.parent / "suspects.xml"
    cli.main(["suspects", str(report), "--to", "cvat", "--output", str(file)])
    decisions = report.parent / "decisions.json"
    cli.main(["suspects", str(report), "--from", str(file), "--output", str(decisions)])
    found = read_objects(relabel(decisions, report.parent / "out"))
    assert sorted(found["a.jpg"]) == sorted(
        [("dog", DOG, False), ("dog", CAT, False), ("owl", [58, 0, 20, 30], False),
         ("cat", NEW, False)]
    )  # fmt: skip
    assert found["b.jpg"][1] == ("dog", CAT, False)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.json", "[]", "decides on no suspect"),
        ("x.json", '[{"label": []}]', "expected its format JSON, not JSON-MIN"),
        ("x.xml", "<annotations/>", "has no <image>, expected an export as 'CVAT for images 1.1'"),
        ("x.xml", '<annotations><image name="a.jpg"><box label="dog" xtl="5" ytl="5" xbr="1" '
         'ybr="9"/></image></annotations>', "expected a box with an area"),
        ("x.xml", '<annotations><image name="a.jpg"><box label="dog" rotation="9"/></image>'
         "</annotations>", "has a turned box"),
        ("x.zip", "", "is empty, expected XML"),
        (None, "", "does not exist"),
    ],
)  # fmt: skip
def test_files_that_are_no_exports(report, name, content, words):
    file = report.parent / (name or "none.xml")
    if name:
        file.write_text(content)
    with pytest.raises(InputError, match=words):
        import_decisions(report, file, report.parent / "decisions.json")


def label_studio(report, change, **task):
    """Import an export in which the first image was submitted, after a change of its results."""
    file = report.parent / "tasks.json"
    export_suspects(report, "label-studio", file)
    tasks = as_exported(json.loads(file.read_text()), change)
    tasks[0] |= task
    file.write_text(json.dumps(tasks))
    return decided(report, file)


def cvat(report, change):
    """Import what was written to CVAT, after a change of its text."""
    file = report.parent / "suspects.xml"
    export_suspects(report, "cvat", file)
    text = file.read_text()
    assert change(text) != text
    file.write_text(change(text))
    return decided(report, file)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": "12"}, "has a box whose 'x' is '12', expected a number"),
        ({"width": None}, "has a box whose 'width' is None, expected a number"),
        ({"y": ...}, "has a box whose 'y' is missing, expected a number"),
        ({"x": float("nan")}, "has a box whose 'x' is nan, expected a number"),
        ({"rectanglelabels": None}, "has 'rectanglelabels' None, expected a list"),
        ({"rectanglelabels": []}, "has a box of the classes [], expected one class"),
        ({"rectanglelabels": ["dog", "cat"]}, "has a box of the classes ['dog', 'cat'], expected"),
        ({"rectanglelabels": [3]}, "has the class 3, expected its name"),
        ({"rectanglelabels": ["plane"]}, "has the class 'plane', expected one of the report: dog"),
        ({"x": 95}, "has 'dog' at [76, 0, 20, 30], expected a box inside the image "),
    ],
)  # fmt: skip
def test_wrong_boxes_of_label_studio(report, change, words):
    def spoil(results):
        value = results[2]["value"] | change
        results[2]["value"] = {k: v for k, v in value.items() if v is not ...}

    with pytest.raises(InputError) as e:
        label_studio(report, spoil)
    assert f"tasks.json: task 1, annotations[0], result[2] {words}" in str(e.value)
    assert not (report.parent / "decisions.json").exists()


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"annotations": [{"result": None}]}, "annotations[0] has 'result' None, expected a list"),
        ({"annotations": [{}]}, "annotations[0] has no 'result', expected a list"),
        ({"annotations": [{"result": [2]}]}, "annotations[0], result[0] is 2, expected an object"),
        ({"annotations": [None]}, "annotations[0] is None, expected an object"),
        ({"data": None}, "has 'data' None, expected an object"),
        ({"annotations": [{"result": [{"type": "rectanglelabels", "value": None}]}]},
         "has 'value' None, expected an object"),
        ({"annotations": [{"result": [{"original_width": 160, "original_height": 60}]}]},
         "is of an image of 160 x 60 pixels, expected that of the report, 80 x 60"),
        ({"annotations": [{"result": []}, {"result": [{"type": "choices"}]}]},
         "annotations[1] and "),
    ],
)  # fmt: skip
def test_wrong_tasks_of_label_studio(report, task, words):
    with pytest.raises(InputError) as e:
        label_studio(report, lambda results: None, **task)
    assert "tasks.json: task 1" in str(e.value)
    assert words in str(e.value)


def test_what_is_passed_over_in_label_studio(report, capsys):
    def change(results):
        results[2] |= {"type": "polygonlabels", "value": {"points": [[1, 1]]}}
        results[3]["meta"] = {"text": ["suspect 5: wrong class"]}  # of the other image
        results.append({"id": "c", "type": "choices", "meta": {"text": ["suspect 1"]}})

    file = report.parent / "tasks.json"
    export_suspects(report, "label-studio", file)
    tasks = as_exported(json.loads(file.read_text()), change)
    tasks[0]["annotations"].append(tasks[0]["annotations"][0])
    tasks[1] |= {"annotations": [{"result": []}], "data": {"image_path": "/x.jpg"}}
    file.write_text(json.dumps(tasks))
    found = decided(report, file)
    assert "wrong class" not in found
    assert found["badly placed label"] == ("accept", None)
    assert found["missing label"] == ("accept", {"category": "owl", "bbox": MOVED})
    said = capsys.readouterr().out
    assert f"4 decisions to {report.parent / 'decisions.json'}: 3 accepted, 1 rejected\n" in said
    task = f"{file}: task 1, annotations"
    assert (
        f"- shape that is no box, passed over: 2 ({task}[0], result[2], 'polygonlabels'; " in said
    )
    assert f"taken for a new one: 1 ({task}[0], result[3])\n" in said
    assert f"- drawn alike twice, counted once: 1 ({task}[1]: as " in said
    assert f"- image without suspects, passed over: 1 ({file}: task 2: '/x.jpg')\n" in said


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('xtl="5.00"', 'xtl="98,17"', "has a <box> whose xtl is '98,17', expected a number"),
        ('xtl="5.00"', 'xtl="inf"', "has a <box> whose xtl is 'inf', expected a number"),
        ('xtl="5.00"', "", "has a <box> whose xtl is missing, expected a number"),
        ('xbr="15.00"', 'xbr="150"', "has 'cat' at [5, 40, 145, 10], expected a box inside"),
        ('label="cat"', 'label="plane"', "has the class 'plane', expected one of the report: dog"),
        ('width="80"', 'width="160"', "is of an image of 160 x 60 pixels, expected that of"),
        ('name="b.jpg"', 'name="a.jpg"', "are of one image, "),
    ],
)
def test_wrong_boxes_of_cvat(report, old, new, words):
    with pytest.raises(InputError) as e:
        cvat(report, lambda text: text.replace(old, new))
    assert "suspects.xml: the image 'a.jpg' (number " in str(e.value)
    assert words in str(e.value)


def test_what_is_passed_over_in_cvat(report, capsys):
    def change(text):
        polygon = (
            '<polygon label="cat" points="1,1;5,5;9,1"><attribute name="suspect">'
            f"1 missing label {digest_of(read_suspects(report)[2])}</attribute></polygon>"
        )
        start, end = text.index("<box"), text.index("</box>") + len("</box>")
        text = text[:start] + polygon + text[end:]
        text = re.sub("4 badly placed label \\w+", "what?", text)
        image = text[text.index("<image") : text.index("</image>") + len("</image>")]
        text = text.replace("</annotations>", f"{image}</annotations>")
        return text.replace('name="b.jpg"', 'name="c.jpg"')

    found = cvat(report, change)
    # The polygon's suspect is undecided: what is missing is the box with an unknown number.
    assert found["missing label"] == ("accept", {"category": "owl", "bbox": MOVED})
    said = capsys.readouterr().out
    assert "- shape that is no box, passed over: 1 (" in said
    assert "in its image, taken for a new one: 1 (" in said
    assert "- drawn alike twice, counted once: 1 (" in said
    assert "- image without suspects, passed over: 1 (c.jpg)\n" in said


def written_anew(report):
    """The report with its last two suspects the other way round, as another run may have them."""
    file = report / "label_errors.json"
    content = json.loads(file.read_text())
    *_, third, fourth, _ = content["annotations"]
    third["id"], fourth["id"] = 4, 3
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(("tool", "name"), [("cvat", "s.xml"), ("label-studio", "s.json")])
def test_what_was_exported_of_another_report(report, tool, name):
    file = report.parent / name
    export_suspects(report, tool, file)
    if tool == "label-studio":
        file.write_text(json.dumps(as_exported(json.loads(file.read_text()))))
    before = digest_of(read_suspects(report)[2])
    written_anew(report)
    with pytest.raises(InputError) as e:
        decided(report, file)
    now = digest_of(read_suspects(report)[2])
    assert f"is of another report, {before}, expected {now}, that of its suspects" in str(e.value)
    assert not (report.parent / "decisions.json").exists()


@pytest.mark.parametrize("text", ["4", "4 badly placed label", "4 what?"])
def test_a_number_without_its_report_in_cvat(report, text):
    with pytest.raises(InputError, match=r"\(number 1\), suspect 4, names no report, expected"):
        cvat(report, lambda x: re.sub("4 badly placed label \\w+", text, x))


def test_tasks_without_their_report_in_label_studio(report):
    data = {
        "image_path": json.loads((report / "label_errors.json").read_text())["images"][0][
            "file_name"
        ]
    }
    with pytest.raises(InputError, match="task 1 names no report, expected "):
        label_studio(report, lambda results: None, data=data)


def test_a_suspect_of_another_name(report):
    with pytest.raises(InputError, match="suspect 4 as 'missing label', expected 'badly placed"):
        cvat(report, lambda x: x.replace("4 badly placed label", "4 missing label"))
    (report.parent / "decisions.json").unlink(missing_ok=True)

    def rename(results):
        results[3]["meta"]["text"] = ["suspect 4: wrong class"]

    with pytest.raises(InputError, match="suspect 4 as 'wrong class', expected 'badly placed"):
        label_studio(report, rename)


def test_without_any_suspect_an_image_stays_undecided(report, capsys):
    def lose(text):
        """The attributes of the first image."""
        first, second = text.split('<image id="1000000001"')
        return f'{re.sub("<attribute.*</attribute>", "", first)}<image id="1"{second}'

    found = cvat(report, lose)
    assert found == {"wrong class": ("accept", {"category": "dog", "bbox": CAT})}  # of the other
    said = capsys.readouterr().out
    assert "- image in which no suspect came back, left undecided: 1 (" in said
    assert "suspects.xml: the image 'a.jpg' (number 1))\n" in said
    (report.parent / "decisions.json").unlink()
    with pytest.raises(InputError) as e:  # begun, but empty
        label_studio(report, list.clear)
    assert "tasks.json decides on no suspect of " in str(e.value)
    assert "(image in which no suspect came back, left undecided: 1 (" in str(e.value)


def test_labels_beyond_the_edge_may_stay(report):
    file = report / "label_errors.json"
    content = json.loads(file.read_text())
    content["annotations"][1]["true_bbox"] = [-9, 0, 20, 30]
    file.write_text(json.dumps(content))
    assert label_studio(report, lambda results: None)["spurious label"] == ("reject", None)


def test_an_edge_of_a_label_beyond_another_one_is_moved(report):
    file = report / "label_errors.json"
    content = json.loads(file.read_text())
    content["annotations"][1]["true_bbox"] = [-9, 0, 20, 30]
    file.write_text(json.dumps(content))

    def move(results):
        results[1]["value"]["height"] += 10  # six pixels

    found = label_studio(report, move)["spurious label"]
    assert found == ("accept", {"category": "dog", "bbox": pytest.approx([-9, 0, 20, 36])})


def test_other_wrong_files(report):
    taken = report.parent / "taken.xml"
    taken.write_text("mine")
    with pytest.raises(InputError, match="which exists already: expected a new file"):
        export_suspects(report, "cvat", taken)
    assert taken.read_text() == "mine"
    (report / "label_errors.json").write_text('{"annotations": []}')
    with pytest.raises(InputError, match="is no list of a report's"):
        export_suspects(report, "cvat", report.parent / "new.xml")


@pytest.mark.parametrize("name", ["JPEGImages/a.jpg", "task/data/JPEGImages/a.jpg"])
def test_names_of_another_folder_in_cvat(report, name):
    """As of a task whose images came from a zip file, or from a share."""
    found = cvat(report, lambda text: text.replace('name="a.jpg"', f'name="{name}"'))
    assert found == {**AS_SHOWN, "wrong class": ("accept", {"category": "dog", "bbox": CAT})}


def test_a_name_of_two_images_in_cvat_is_of_none(report):
    file = report / "label_errors.json"
    content = json.loads(file.read_text())
    for x, folder in zip(content["images"], ("one", "two")):
        x["file_name"] = f"/{folder}/x.jpg"
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="image without suspects, passed over: 2"):
        cvat(report, lambda text: re.sub('name="(one|two)/x.jpg"', 'name="x.jpg"', text))


def test_another_image_of_the_same_name_in_cvat(report):
    """One is the report's by its whole name, the other one has no suspects."""
    other = '<image id="9" name="more/a.jpg" width="80" height="60"/>'

    def add(text):
        return text.replace("</annotations>", f"{other}</annotations>")

    expected = {**AS_SHOWN, "wrong class": ("accept", {"category": "dog", "bbox": CAT})}
    assert cvat(report, add) == expected


def test_two_names_that_end_alike_in_cvat_are_of_none(report):
    other = '<image id="9" name="more/a.jpg" width="80" height="60"/></annotations>'

    def change(text):
        text = re.sub('<image id="1000000001".*?</image>', "", text, flags=re.DOTALL)
        text = text.replace('name="a.jpg"', 'name="data/a.jpg"')
        return text.replace("</annotations>", other)

    with pytest.raises(InputError, match="image without suspects, passed over: 2"):
        cvat(report, change)


def test_names_of_files_that_are_no_text(report):
    file = report / "label_errors.json"
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = "/data/gr\udcfcn.jpg"
    file.write_text(json.dumps(content))
    output = report.parent / "tasks.json"
    export_suspects(report, "label-studio", output)
    assert "gr%FCn.jpg" in output.read_text()


@pytest.mark.parametrize(
    ("key", "value"), [("score", None), ("score", "high"), ("predicted_bbox", [1, 2, 3])]
)
def test_a_list_that_was_edited(report, key, value):
    file = report / "label_errors.json"
    content = json.loads(file.read_text())
    content["annotations"][0][key] = value
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="is no list of a report's"):
        read_suspects(report)
