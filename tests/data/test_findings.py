from ohem_d2.data.findings import Finding, Findings


def test_a_line_for_each_kind():
    found = Findings()
    for i in range(5):
        found.add("box of zero area", f"{i}.xml", f"object {i + 1}")
    found.add("no objects", "a.jpg")
    assert found.summary() == [
        "box of zero area: 5 (0.xml: object 1; 1.xml: object 2; 2.xml: object 3; and 2 more)",
        "no objects: 1 (a.jpg)",
    ]
    assert found.by_name()["no objects"] == [Finding("no objects", "a.jpg", "")]


def test_nothing_odd():
    assert Findings().summary() == []
