"""What a page of the report holds, put together again."""

import json
from html.parser import HTMLParser


class Scripts(HTMLParser):
    """The text of each script element with an id, by that; and the names of all elements."""

    def __init__(self):
        super().__init__()
        self.scripts, self.elements, self.last = {}, [], None

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.last = dict(attrs).get("id") if tag == "script" else None

    def handle_data(self, data):
        if self.last is not None:
            self.scripts[self.last] = data
            self.last = None


def data_of(folder):
    """That of the page in a folder, with the examples of its lists."""
    parser = Scripts()
    parser.feed((folder / "index.html").read_text(encoding="utf-8"))
    data = json.loads(parser.scripts["data"])
    for each in data["lists"]:
        rows = json.loads(parser.scripts[each["id"]])
        each["of"] = [unpacked(row, data["fields"], data["boxes"]) for row in rows]
    return data


def unpacked(row, fields, boxes):
    """The example of a row."""
    found = dict(zip(fields, row))
    for name, box in zip(boxes, row[len(fields) :]):
        found[name] = found[boxes[box]] if isinstance(box, int) else box
    return found
