"""docs/limits.md: every snippet of the page is refused with exactly the sentence that stands below it."""

import re
from pathlib import Path

import pytest

import minidyn as md

PAGE = (Path(__file__).parent.parent / "docs" / "limits.md").read_text(encoding="utf-8")
SETUP, *_ = re.findall(r"```python\n(.*?)```", PAGE, re.S)
REFUSALS = re.findall(r"```python\n([^`]*?)```\n\n```text\n(.*?)```", PAGE, re.S)


@pytest.fixture(scope="module")
def setting():
    """The names that the page's snippets use."""
    names = {}
    exec(SETUP, names)
    return names


@pytest.mark.parametrize(("snippet", "said"), REFUSALS, ids=[code.strip()[:50] for code, _ in REFUSALS])
def test_a_refusal_is_the_sentence_on_the_page(snippet, said, setting):
    """The snippet raises this kind of error, in these words."""
    with pytest.raises(md.MinidynError) as error:
        eval(snippet, setting)
    assert f"{type(error.value).__name__}: {error.value}" == " ".join(said.split())


def test_every_snippet_of_the_page_is_a_refusal():
    """Nothing stands on the page that is not run, and the README leads to it."""
    assert len(re.findall("```python", PAGE)) == 1 + len(REFUSALS) and len(REFUSALS) >= 20
    assert "docs/limits.md" in (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
