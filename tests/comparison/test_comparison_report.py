import csv
import dataclasses
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from fixtures.compared import write_evaluation

from int_ra_jax.comparison import report as comparison_report
from int_ra_jax.comparison import texts
from int_ra_jax.comparison.compare import compare
from int_ra_jax.comparison.evaluated import read_run
from int_ra_jax.comparison.layout import columns_of
from int_ra_jax.comparison.results import RunRow, TrialRow

METRICS = [column.name for column in columns_of("multi")]

HOSTILE = "a_b & 50% #1 {x} ^ ~ \\ | <script>alert(1)</script>"


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Two seeds of four systems, two of them tested, and a reading."""
    directory = tmp_path_factory.mktemp("runs")
    skills = {"int_ra": 2.5, "best": 3.0, "clip": 1.0, "srs": 0.0, "no_residual": 2.4}
    groups = {
        name: [
            read_run(
                write_evaluation(directory / name / str(seed), name, seed, skill, ranking_ms=0.5),
                seed,
            )
            for seed in (0, 1)
        ]
        for name, skill in skills.items()
    }
    return compare(
        groups,
        main="int_ra",
        also_tested=("best",),
        readings=("no_residual",),
        seeds=(0, 1, 2),
        tested=METRICS,
        resamples=200,
        trials=[
            TrialRow("clip", 0, {"optim.lr": 1e-3}, 0.25, True),
            TrialRow("clip", 1, {"optim.lr": 3e-3}, None, False, "not finite"),
        ],
        runs=[RunRow("clip", 0, "runs/clip/seed-0"), RunRow("clip", 2, "", "killed")],
        notes=[HOSTILE],
    )


@pytest.fixture(scope="module")
def written(compared, tmp_path_factory):
    """The folder they were written to."""
    return comparison_report.write(tmp_path_factory.mktemp("table"), compared).parent


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_csv_table_holds_every_figure_in_full(written, compared):
    lines = read_csv(written / "table.csv")
    assert [line["row"] for line in lines] == [row.name for row in compared.rows]
    for line, row in zip(lines, compared.rows, strict=True):
        for metric, spread in row.metrics.items():
            assert float(line[f"{metric} mean"]) == spread.mean
            assert line[f"{metric} sd"] == ("" if spread.sd is None else repr(spread.sd))
        assert line["parameters"] == ("1500.0" if row.kind != "reference" else "")
        assert line["ranking_ms"] == ("0.5" if row.kind != "reference" else "")


def test_significance_csv_holds_every_test_once(written, compared):
    lines = read_csv(written / "significance.csv")
    pairs = [(*sorted((line["system"], line["other"])), line["metric"]) for line in lines]
    # int_ra against best, clip, srs, linear and no_residual; best against clip, srs and linear
    assert len(set(pairs)) == len(pairs) == len(compared.tests) == 8 * len(METRICS)
    for line, test in zip(lines, compared.tests, strict=True):
        assert (line["system"], line["other"]) == (test.system, test.other)
        assert float(line["p_holm"]) == test.p_holm
        assert line["p_sign"] == ("" if test.p_sign is None else repr(test.p_sign))


def test_the_other_csv_files_hold_what_they_are_named_after(written, compared):
    lines = read_csv(written / "per_intention.csv")
    assert len(lines) == len(compared.rows) * len(compared.queries)
    row = compared.row(lines[0]["row"])
    assert float(lines[0]["mAP"]) == row.by_intention[lines[0]["intention"]]["mAP"]
    assert len(read_csv(written / "pr_curve.csv")) == 101 * len(compared.curves)
    drawn = ElementTree.parse(written / "pr_curve.svg").getroot()
    assert set(compared.curves) <= {text.strip() for text in drawn.itertext()}
    trials = read_csv(written / "trials.csv")
    assert [t["optim.lr"] for t in trials] == ["0.001", "0.003"]
    assert [t["chosen"] for t in trials] == ["True", "False"]
    assert [run["error"] for run in read_csv(written / "runs.csv")] == ["", "killed"]


def test_the_markdown_tables_have_one_line_a_row_and_as_many_cells_as_columns(written, compared):
    text = (written / "table.md").read_text(encoding="utf-8")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == len(compared.rows) + 1 + 2 * 2  # the main system heads the readings, too
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {len(METRICS) + 5}
    assert "majority\\_intention" in text and "\\<script\\>" in text


def test_the_latex_escapes_what_latex_reads_as_commands(written, compared):
    text = (written / "table.tex").read_text(encoding="utf-8")
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
    rows = [line for line in text.splitlines() if line.endswith(r" \\")]
    assert len(rows) == len(compared.rows) + 1 + 2
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(METRICS) + 3}
    body = text.split("\n", 1)[1]
    assert not re.search(r"(?<!\\)[%#_]", body) and "±" not in body
    assert r"majority\_intention" in body
    title = dataclasses.replace(compared, main=HOSTILE)
    escaped = r"a\_b \& 50\% \#1 \{x\} \textasciicircum{} \textasciitilde{} \textbackslash{} | "
    comparison_report.write(written.parent / "hostile", title)
    assert escaped in (written.parent / "hostile" / "table.tex").read_text(encoding="utf-8")


def test_bold_marks_the_best_of_each_column_and_a_star_what_the_corrected_test_allows(compared):
    section = comparison_report._sections(compared)[0]
    systems = section.rows
    header, body = comparison_report._cells(compared, section)
    for column, metric in enumerate(METRICS, 1):
        cells = [line[column] for line in body]
        best = max(round(100 * row.metrics[metric].mean, 1) for row in systems)
        bold = [float(re.match(r"\*\*([\d.]+)", c)[1]) for c in cells if c.startswith("**")]
        assert bold and set(bold) == {best}
        for row, cell in zip(systems, cells, strict=True):
            test = compared.test("int_ra", row.name, metric)
            starred = cell.removeprefix("**").removesuffix("**").endswith("*")
            assert starred == bool(test and test.p_holm < 0.05)
    assert header[0] == "" and any("*" in line[1] for line in body)
    caption = comparison_report._caption(compared)
    assert "*: int_ra differs significantly" in caption
    assert "The tests of best are in significance.csv." in caption
    alone = dataclasses.replace(compared, also_tested=())
    assert "significance.csv" not in comparison_report._caption(alone)


def test_what_a_system_lacks_stands_in_its_row(compared, tmp_path):
    lacking = dataclasses.replace(compared, lacks={"clip": "hidden words"})
    said = "clip (without hidden words)"
    assert any(line.startswith(said) for line in comparison_report.lines(lacking))
    directory = comparison_report.write(tmp_path, lacking).parent
    assert said in (directory / "table.html").read_text()
    assert f"| {said} |" in (directory / "table.md").read_text()


def test_the_verdict_names_the_best_other_system_with_ratio_and_corrected_p(compared):
    said = texts.verdict(compared)
    assert len(said) == 6
    for name, (reaches, best, linear) in (("int_ra", said[:3]), ("best", said[3:])):
        assert reaches.startswith(f"{name} reaches ") and reaches.endswith("mAP (seeds 0, 1).")
        test = compared.test(name, "clip", "mAP")
        # the two that are tested rank better than clip, and neither is the other's "best other"
        assert best.startswith("Against clip, the best other system (")
        ends = f"[{test.ratio_low:.2f}, {test.ratio_high:.2f}]"
        assert f"{test.ratio:.2f} {ends} times its mAP, " in best
        assert best.endswith(f"{texts.outcome(test)}.")
        assert "Against linear" in linear


def test_the_verdict_says_which_tested_system_has_no_run(compared):
    rows = [row for row in compared.rows if row.name != "best"]
    said = texts.verdict(dataclasses.replace(compared, rows=rows))
    assert said[0].startswith("int_ra reaches ") and len(said) == 4
    assert said[3] == "best has no complete run, so it is not compared."


@pytest.mark.parametrize(
    ("difference", "p", "said"),
    [
        (0.1, 0.049, "significantly better"),
        (-0.1, 0.049, "significantly worse"),
        (0.1, 0.05, "no significant difference"),
        (0.1, None, "undefined"),
    ],
)
def test_only_a_corrected_p_below_the_level_is_called_significant(compared, difference, p, said):
    test = dataclasses.replace(compared.tests[0], difference=difference, p_holm=p)
    assert texts.outcome(test) == said


class Outline(HTMLParser):
    """Start tags and texts; every element must be closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_loads_nothing_and_what_it_is_told_is_never_markup(written):
    html = (written / "table.html").read_text(encoding="utf-8")
    page = Outline(html)
    assert not {"script", "link", "iframe", "img", "base"} & {tag for tag, _ in page.tags}
    assert not re.search(r"url\((?!#)|@import", html)
    assert all((a.get("href") or "#").startswith("#") for _, a in page.tags)
    policy = next(a["content"] for _, a in page.tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'") and "script-src" not in policy
    assert HOSTILE in "".join(page.texts)


def test_the_page_has_both_tables_the_curves_the_heat_map_and_every_test(written, compared):
    page = Outline((written / "table.html").read_text(encoding="utf-8"))
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    sections = {"systems", "readings", "curves", "intentions", "search", "runs"}
    assert sections <= set(ids)
    targets = {a["href"][1:] for tag, a in page.tags if tag == "a"}
    assert targets == sections
    whiskers = [a for _, a in page.tags if a.get("class") == "whisker"]
    # the pair of tested systems is shown from both sides
    assert len(whiskers) == len(compared.tests) + len(METRICS)
    headings = [text for text in page.texts if text.endswith("against each of the others")]
    assert [text.split()[0] for text in headings] == ["int_ra", "best", "int_ra"]
    notes = [text for text in page.texts if "are one family for Holm's correction" in text]
    counts = [int(re.search(r"The (\d+) t-tests", note)[1]) for note in notes]
    assert counts == [7 * len(METRICS), len(METRICS)]
    assert ["shown from both sides" in note for note in notes] == [True, False]
    bars = [a for _, a in page.tags if a.get("class") == "bar"]
    assert len(bars) == 2 * (len(compared.rows) + 1)
    for tag in (*bars, *whiskers):
        places = [float(place) for place in re.findall(r":(-?[\d.]+)%", tag["style"])]
        assert all(0 <= place <= 100 for place in places)
    texts = "".join(page.texts)
    assert "int_ra: seed 2 missing" in texts and "killed" in texts and "not finite" in texts


def test_a_comparison_of_nothing_is_written_and_says_so(tmp_path):
    empty = compare({"int_ra": []}, main="int_ra", seeds=(0,))
    page = comparison_report.write(tmp_path, empty)
    assert "No run is complete" in page.read_text(encoding="utf-8")
    assert comparison_report.lines(empty)[0] == (
        "int_ra has no complete run, so it is not compared."
    )
    assert (tmp_path / "table.csv").read_text(encoding="utf-8") == ""


def test_the_same_comparison_gives_the_same_bytes(written, compared, tmp_path):
    comparison_report.write(tmp_path, compared)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (written / path.name).read_bytes()
