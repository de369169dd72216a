"""One vocabulary: the glossary's terms are the words in use, and words that were given up are nowhere."""

import ast
import re
from pathlib import Path

import minidyn as md

ROOT = Path(__file__).parents[1]
PACKAGE = Path(md.__file__).parent
GIVEN_UP = {
    "centres": r"\bcentres\b",
    "flow of centres": r"\bflows? of centres?\b",
    "s.e.": r"\bs\.e\.",
    "heard": r"\bheard\b",
    "so many times the variance": r"so many times the variance",
    "sup distance of means": r"sup distance of means",
    "read as each flow says": r"map read as each flow",
}
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "models").glob("*.toml"),
    *(ROOT / "notebooks").glob("*.ipynb"),
]


def texts(path):
    """(line, text) of every string in a module: docstrings, messages, heads of tables."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def names(path):
    """(line, name) of all that a module names: variables, arguments, functions, classes, attributes."""
    for node in ast.walk(ast.parse(path.read_text())):
        for kind in ("id", "arg", "attr", "name", "asname"):
            if isinstance(name := getattr(node, kind, None), str):
                yield getattr(node, "lineno", 0), name


def said():
    """(place, text) of all that a user can read: strings of the package, and pages."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for line, text in texts(path):
            yield f"{path.relative_to(PACKAGE)}:{line}", text
    for path in PAGES:
        yield path.name, path.read_text()


def terms():
    """The glossary: term -> meaning."""
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)
    return {term: meaning for term, meaning, _ in rows if term not in ("term", "---")}


def test_words_that_were_given_up_are_nowhere():
    """No string of the package and no page holds a word that has another one in the glossary."""
    found = [(place, word) for place, text in said() for word, pattern in GIVEN_UP.items() if re.search(pattern, text)]
    assert not found


def test_no_name_in_the_code_has_a_word_that_was_given_up():
    """Nothing in the package and its benchmarks is called `centre`, where the mid-point of two iterates is meant."""
    paths = [*PACKAGE.rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    pattern = re.compile(r"(^|_)(centres?|heard)(_|$)")
    found = [(path.name, *name) for path in paths for name in names(path) if pattern.search(name[1])]
    assert not found and len(paths) > 150


def test_the_glossarys_terms_are_in_use():
    """Every term of the glossary stands in a string of the package, and has a meaning of one sentence."""
    everything = "\n".join(text for place, text in said() if ".py:" in place).lower()
    for term, meaning in terms().items():
        assert re.search(rf"\b{re.escape(term)}", everything.replace("\n", " ")), term
        assert meaning.endswith(".") and ". " not in meaning, term
    assert len(terms()) > 25


def test_the_readme_leads_to_the_glossary():
    """A reader finds it."""
    assert "docs/glossary.md" in (ROOT / "README.md").read_text()
