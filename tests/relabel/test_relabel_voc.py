import codecs

import pytest
from small_data import write_image, write_voc
from small_decisions import decision, read_objects, statuses, write_decisions

from ohem_d2.relabel.run import relabel

# As the reader has it, [1, 1, 20, 30] in the file begins at 0.
DOG, CAT = [0, 0, 20, 30], [30, 0, 20, 30]
TEXT = """<?xml version="1.0" encoding="{encoding}"?>
<!-- <object> in a comment -->
<annotation a=">">
  <filename>a.jpg</filename>
  <size><width>80</width><height>60</height></size>
  <object>
    <name> dog </name>
    <pose>Left</pose>
    <polygon><x1>1</x1></polygon>
    <bndbox>
      <xmin>1</xmin><ymin>1</ymin><xmax> 20 </xmax><ymax>30</ymax>
    </bndbox>
    <part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></part>
  </object>
  <object><name>Käfer</name><bndbox><ymin>1</ymin><ymax>30</ymax><xmax>50</xmax><xmin>31</xmin></bndbox></object>
</annotation>
"""


class Set:
    def __init__(self, folder, text=TEXT, encoding="utf-8", before=b""):
        self.folder = folder
        write_voc(folder, {"a": [], "b": [("cat", (1, 1, 20, 30), "")]})
        self.content = before + text.format(encoding=encoding).encode(encoding)
        (folder / "Annotations/a.xml").write_bytes(self.content)
        self.image = folder / "JPEGImages/a.jpg"
        self.address = f"voc://{folder}?split=trainval"

    def relabel(self, *entries):
        file = write_decisions(self.folder / "decisions.json", self.address, *entries)
        return relabel(file, self.folder / "out")

    def changed(self):
        return (self.folder / "out/Annotations/a.xml").read_bytes()


@pytest.mark.parametrize(
    ("encoding", "before"),
    [
        ("utf-8", b""), ("utf-8", codecs.BOM_UTF8), ("utf-8", b"\n"), ("latin-1", b""),
        ("gbk", b""), ("utf-16", b""),
    ],
)  # fmt: skip
def test_only_what_was_decided_changes(tmp_path, encoding, before):
    text = TEXT.replace("Käfer", "猫") if encoding == "gbk" else TEXT
    data = Set(tmp_path, text, encoding, before)
    data.relabel(decision(data.image, label=("dog", DOG), proposal=("cat", DOG)))
    new = text.replace(" dog ", " cat ").format(encoding=encoding).encode(encoding)
    assert data.changed() == before + new
    for name in ("Annotations/b.xml", "ImageSets/Main/trainval.txt"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_a_moved_box_keeps_all_but_its_outline(tmp_path, capsys):
    data = Set(tmp_path)
    data.relabel(decision(data.image, label=("dog", DOG), proposal=("dog", [1.2, 0, 20, 29.6])))
    text = TEXT.format(encoding="utf-8").replace("\n    <polygon><x1>1</x1></polygon>", "")
    text = text.replace("<xmin>1</xmin>", "<xmin>2</xmin>", 1).replace("<xmax> 20 ", "<xmax> 21 ")
    assert data.changed().decode() == text
    assert "- outline (<polygon>) left out, which no longer fits its box: 1\n" in (
        capsys.readouterr().out
    )


def test_new_removed_and_ignored(tmp_path):
    data = Set(tmp_path)
    address = data.relabel(
        decision(data.image, label=("dog", DOG)),
        decision(data.image, "ignore", label=("Käfer", CAT)),
        decision(data.image, proposal=("cat", [2, 3, 10, 10])),
        decision(data.image, "ignore", proposal=("dog", [50, 40, 10, 10])),
    )
    assert read_objects(address)["a.jpg"] == [
        ("Käfer", CAT, True), ("cat", [2, 3, 10, 10], False), ("dog", [50, 40, 10, 10], True)
    ]  # fmt: skip
    text = data.changed().decode()
    assert "\n  <size>" in text
    assert "\n  <object>\n    <name>cat</name>\n    <pose>Unspecified</pose>\n" in text
    assert "</object>\n</annotation>\n" in text
    assert "head" not in text
    file = write_decisions(
        tmp_path / "d.json", None,
        decision(data.image, label=("dog", DOG)),
        decision(data.image, "ignore", label=("Käfer", CAT)),
    )  # fmt: skip
    relabel(file, tmp_path / "again", address)
    assert statuses(tmp_path / "again") == {"already_there": 2}


@pytest.mark.parametrize(
    "text",
    ["<annotation/>", "<annotation></annotation>", "<annotation><size/></annotation>",
     '<annotation x="/"  />', "<annotation>\n\t<size/>\n</annotation>"],
)  # fmt: skip
def test_a_file_without_objects(tmp_path, text):
    data = Set(tmp_path, text)
    address = data.relabel(decision(data.image, proposal=("cat", DOG)))
    assert read_objects(address)["a.jpg"] == [("cat", DOG, False)]


def test_files_of_decimals_keep_them(tmp_path):
    data = Set(tmp_path, TEXT.replace("<xmin>31</xmin>", "<xmin>31.25</xmin>"))
    address = data.relabel(decision(data.image, proposal=("cat", [2.125, 3, 10.5, 10])))
    assert read_objects(address)["a.jpg"][-1] == ("cat", [2.125, 3, 10.5, 10], False)


def test_boxes_that_whole_numbers_cannot_hold(tmp_path):
    data = Set(tmp_path)
    data.relabel(decision(data.image, proposal=("cat", [2.2, 3, 0.4, 10])))
    assert statuses(tmp_path / "out") == {"left_out": 1}
    assert data.changed() == data.content


def test_marks_that_are_there_already(tmp_path):
    for mark in ("<ignore>0</ignore>", "<ignore/>"):
        folder = tmp_path / str(len(mark))
        folder.mkdir()
        data = Set(folder, TEXT.replace("<pose>Left</pose>", mark))
        data.relabel(decision(data.image, "ignore", label=("dog", DOG)))
        new = TEXT.replace("<pose>Left</pose>", "<ignore>1</ignore>")
        assert data.changed().decode() == new.format(encoding="utf-8")


def test_xml_files_beside_their_images(tmp_path):
    folder = tmp_path / "data"
    write_image(folder / "a.jpg")
    (folder / "a.xml").write_text(TEXT.format(encoding="utf-8"))
    file = write_decisions(
        tmp_path / "d.json", f"voc://{folder}?first_pixel=0",
        decision(folder / "a.jpg", label=("dog", [1, 1, 19, 29]), proposal=("Käfer", [2, 3, 9, 9])),
    )  # fmt: skip
    address = relabel(file, tmp_path / "out")
    assert address == f"voc://{tmp_path / 'out'}?first_pixel=0&images={folder}"
    assert read_objects(address)["a.jpg"][0] == ("Käfer", [2, 3, 9, 9], False)
