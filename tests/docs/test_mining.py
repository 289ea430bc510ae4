"""The example of docs/mining.md gives what it says."""

import doctest
import re
from pathlib import Path

PAGE = (Path(__file__).parent.parent.parent / "docs/mining.md").read_text(encoding="utf-8")


def test_the_example_gives_what_it_says():
    (example,) = re.findall(r"```python\n(>>> .*?)```", PAGE, re.DOTALL)
    test = doctest.DocTestParser().get_doctest(example, {}, "docs/mining.md", None, 0)
    result = doctest.DocTestRunner().run(test)
    assert result.failed == 0
    assert result.attempted > 0
