"""The page is whole, safe, the same each time, and overwrites nothing that is not a report."""

import json
import re
import shutil
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import pytest
from html_elements import Elements
from synthetic_run import make_run

from fedrobust.errors import RecordError
from fedrobust.report import ReportRun, write_report
from fedrobust.report.run_page import table

pytestmark = pytest.mark.slow

HOSTILE = "<script>alert(1)</script> $x_$ -->\u6f22 \" onload='y"


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def words(html: str) -> str:
    return " ".join(Elements(html).text.split())


def quick(path: Path, name: str = "quick") -> Path:
    """A run that is reported on fast: one evaluation, no adversary, no pictures."""
    return make_run(path, name=name, rounds=25, malicious=0, attack=None, pictures=None)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_run(tmp_path_factory.mktemp("single") / "run", seed=7, name=HOSTILE, users=40)
    return write_report([path])


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    rule = {"name": "median"}
    paths = [
        make_run(folder / "a", rounds=100, name=HOSTILE, attack={"name": "own:<script>alert(2)"}),
        make_run(folder / "b", rounds=100, seed=2, name="b", top=0.9, pictures=(3, 32)),
        make_run(folder / "c", rounds=100, kept_share=None, aggregator=rule, notes=(HOSTILE,)),
    ]
    return write_report(paths, folder / "report")


@pytest.fixture(params=["single", "several"])
def html(request: pytest.FixtureRequest) -> str:
    return read(request.getfixturevalue(request.param))


def test_the_page_needs_nothing_else(html: str) -> None:
    for tag, attributes in Elements(html).found:
        assert tag not in {"script", "link", "iframe", "object", "base"}
        assert attributes.get("src", "data:").startswith("data:")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("href", "xlink:href"):
            assert not re.match(r"\w+://", attributes.get(name, "")), attributes
    assert "@import" not in html
    assert "default-src 'none'" in html
    assert len(html.encode()) < 400_000


def test_a_hostile_name_is_shown_and_does_nothing(html: str) -> None:
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 2
    assert "alert(1)" in Elements(html).text


def test_every_id_is_unique_and_every_reference_resolves(html: str) -> None:
    elements = Elements(html).found
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"url\(#([^)]+)\)", html))
    for _, attributes in elements:
        for name in ("href", "xlink:href"):
            if attributes.get(name, "").startswith("#"):
                used.add(attributes[name][1:])
    assert used
    assert used <= set(ids)


def test_figures_have_a_text_and_the_pages_colours(html: str) -> None:
    figures = [attributes for tag, attributes in Elements(html).found if tag == "svg"]
    assert figures
    assert all(len(f["aria-label"]) > 20 and f["role"] == "img" for f in figures)
    assert "var(--ink)" in html
    assert "fill: #ffffff" not in html
    pictures = [attributes for tag, attributes in Elements(html).found if tag == "img"]
    assert all(picture["alt"] for picture in pictures)
    levels = [int(tag[1]) for tag, _ in Elements(html).found if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_page_of_one_run_says_what_happened(single: Path) -> None:
    text = words(read(single))
    run = ReportRun.read(single.parent.parent)
    assert run.chosen_round < 500
    assert run.test is not None
    chosen, last = (
        text.index(f"Chosen on validation: round {run.chosen_round} "),
        text.index("Last:"),
    )
    assert f"{100 * run.test.best.robust_accuracy:.1f} %" in text[chosen:last]
    assert f"{100 * run.test.final.robust_accuracy:.1f} %" in text[last : last + 150]
    assert "Which malicious rows passed Bulyan" in text
    assert "drawn at random would have held 52.9 % of them" in text
    assert "40 users, a dot each" in text
    assert "✓ 0" in text
    assert "✗ 4" in text
    assert "The adversary knows: the colluders' honest updates" in text
    assert "60,000 examples leave 24 over" in text
    assert "keep_optimizer: true" in text
    assert "<dt>torch</dt><dd>2.13.0</dd>" in read(single)


def test_figures_lie_beside_the_page(single: Path) -> None:
    assert single == single.parent.parent / "report" / "index.html"
    names = {f"{n}.{e}" for n in ("accuracy", "kept", "users", "examples") for e in ("svg", "png")}
    assert {p.name for p in single.parent.iterdir()} == names | {"index.html"}
    for name in names:
        content = (single.parent / name).read_bytes()
        if name.endswith("png"):
            assert content.startswith(b"\x89PNG")
            assert int.from_bytes(content[16:20], "big") > 700
        else:
            assert ET.fromstring(content).tag.endswith("svg")


def test_the_same_run_gives_the_same_bytes_whatever_the_settings(
    single: Path, tmp_path: Path
) -> None:
    with mpl.rc_context({"figure.facecolor": "black", "font.size": 30, "axes.linewidth": 9}):
        before = dict(mpl.rcParams)
        again = write_report([single.parent.parent], tmp_path / "again")
        assert dict(mpl.rcParams) == before
    for path in single.parent.iterdir():
        assert path.read_bytes() == (again.parent / path.name).read_bytes(), path.name


def test_runs_whose_intervals_overlap_are_not_ranked(single: Path, tmp_path: Path) -> None:
    """A run and its copy; ids begin with a letter, so that style sheets can name them."""
    run = single.parent.parent
    copy = Path(shutil.copytree(run, tmp_path / "1-copy", ignore=shutil.ignore_patterns("report")))
    html = read(write_report([run, copy], tmp_path / "both"))
    assert "No run is clearly more robust than another" in words(html)
    assert "is the most robust" not in words(html)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids)) > 40
    assert all(each[0].isalpha() for each in ids)


def test_the_most_robust_run_must_be_clearly_better_than_the_second(tmp_path: Path) -> None:
    """On 20 examples, 80 and 75 % do not differ clearly, whatever the third run does."""
    runs = []
    for name, robust in (("first", 0.8), ("second", 0.75), ("third", 0.1)):
        runs.append(make_run(tmp_path / name, pictures=None))
        path = runs[-1] / "summary.json"
        summary = json.loads(path.read_text())
        for scores in summary["test"].values():
            scores |= {"accuracy": 0.9, "robust_accuracy": robust, "examples": 20}
        path.write_text(json.dumps(summary))
    values = table([ReportRun.read(path) for path in runs])
    assert not values["clear"]
    assert table([ReportRun.read(runs[i]) for i in (0, 2)])["clear"]


def test_runs_are_compared_with_the_most_robust_first(several: Path) -> None:
    html = read(several)
    rows = re.findall(r'<th scope="row">.*?<a href="#run-(\d)">', html, re.S)
    assert rows[0] == "2"
    assert sorted(rows) == ["1", "2", "3"]
    text = words(html)
    assert "3 runs compared" in text
    assert "b is the most robust" in text
    assert "Median does not say that it selects rows" in text
    assert "Aggregator" in text
    names = {p.name for p in several.parent.iterdir()}
    assert {"accuracy.svg", "2-b-kept.png", "2-b-examples.svg"} <= names
    assert not any("kept" in n for n in names if n.startswith("3-"))


def test_without_malicious_clients_nothing_is_said_of_them(tmp_path: Path) -> None:
    path = make_run(tmp_path / "r", rounds=50, malicious=0, attack=None, pictures=None)
    html = read(write_report([path]))
    assert "malicious rows" not in html
    assert "Threat model" not in html
    assert "Examples" not in html
    assert not (path / "report" / "kept.svg").exists()


def test_clients_are_shown_where_the_data_has_no_users(tmp_path: Path) -> None:
    accuracy, robust = {"0": 0.9, "1": 0.5, "2": 0.7}, {"0": 0.5, "1": 0.1, "2": 0.4}
    each = {"accuracy": accuracy, "robust_accuracy": robust, "examples": dict.fromkeys("012", 20)}
    path = make_run(tmp_path / "r", rounds=25, malicious=0, attack=None, per_client=each)
    text = words(read(write_report([path])))
    assert "How the clients fare" in text
    assert "3 clients, a dot each: the chosen model on each client’s own part" in text
    assert "The median is 70.0 % accuracy and 40.0 % robust accuracy" in text


def test_an_unfinished_run_of_one_evaluation_is_shown_as_such(tmp_path: Path) -> None:
    path = make_run(tmp_path / "r", rounds=50, finished=False, idle={7: "f is too large"})
    text = words(read(write_report([path])))
    assert "This run has not finished" in text
    assert "Validation split, 1,000 examples (no test scores yet)" in text
    assert "Best so far: round 25" in text
    assert "No step was applied in round 7: f is too large." in text


def test_names_of_several_runs_make_the_default_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(tmp_path / "a", "My run/1")
    quick(tmp_path / "b", "..")
    monkeypatch.chdir(tmp_path)
    found = write_report([Path("a"), Path("b"), Path("a")])
    assert found == Path("report-my-run-1-run/index.html")
    assert "2 runs compared" in read(found)


@pytest.mark.parametrize("record", ["sweep.json", "audit.json"])
def test_only_runs_are_compared_with_each_other(tmp_path: Path, record: str) -> None:
    quick(tmp_path / "a")
    other = tmp_path / "b"
    other.mkdir()
    (other / record).write_text("{}")
    with pytest.raises(RecordError, match=rf"b holds {record}, so it is not one run"):
        write_report([tmp_path / "a", other])


def test_a_report_is_replaced_and_its_stale_figures_go(tmp_path: Path) -> None:
    path = quick(tmp_path / "r")
    out = tmp_path / "out"
    write_report([path], out)
    (out / "users.png").write_bytes(b"of another run")
    (out / "my-accuracy.png").write_bytes(b"mine")
    write_report([path], out)
    assert not (out / "users.png").exists()
    assert (out / "my-accuracy.png").read_bytes() == b"mine"


@pytest.mark.parametrize("content", [{"index.html": "<html>mine"}, {"notes.txt": "mine"}])
def test_what_is_not_a_report_is_not_touched(tmp_path: Path, content: dict[str, str]) -> None:
    path = quick(tmp_path / "r")
    out = tmp_path / "out"
    out.mkdir()
    for name, text in content.items():
        (out / name).write_text(text)
    with pytest.raises(RecordError, match=r"not empty and holds no report.*another folder"):
        write_report([path], out)
    assert {p.name: p.read_text() for p in out.iterdir()} == content
    with pytest.raises(RecordError, match="not empty"):
        write_report([path], path)


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path) -> None:
    path = quick(tmp_path / "r")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RecordError, match="is a file"):
        write_report([path], tmp_path / "file")
    with pytest.raises(RecordError, match="cannot write the report"):
        write_report([path], tmp_path / "file" / "below")
    with pytest.raises(RecordError, match="at least one run"):
        write_report([])


def test_a_write_that_fails_leaves_the_old_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = quick(tmp_path / "r")
    found = write_report([path])
    before = {p.name: p.read_bytes() for p in found.parent.iterdir()}

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("fedrobust.files.os.replace", full)
    with pytest.raises(RecordError, match="no space left"):
        write_report([path])
    assert {p.name: p.read_bytes() for p in found.parent.iterdir()} == before
