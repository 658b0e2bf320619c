import base64
import csv
import dataclasses
import hashlib
import io
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from int_ra_jax.evaluation import plots, report
from int_ra_jax.evaluation.plots import Curve
from int_ra_jax.evaluation.report_data import (
    Agreement,
    Case,
    ColdStart,
    Credit,
    DatasetCard,
    Difference,
    Example,
    Intentions,
    Interval,
    Picture,
    Protocol,
    RankedPicture,
    ReportData,
    RunFacts,
    System,
    Turn,
)

VOID = {"meta", "br", "img", "link", "input", "hr"}
NAMES = ["anger", "joy", "喜悦"]


def encoded(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def picture(seed: int, side: int = 24, grid: int = 7) -> Picture:
    rng = np.random.default_rng(seed)
    attention = rng.dirichlet(np.ones(grid * grid), 4).reshape(4, grid, grid)
    attributes = {"gesture": "waving", "posture": "", "facial": f"face {seed}", "verbal": "haha"}
    pixels = rng.integers(0, 255, (side, side, 3), dtype=np.uint8)
    return Picture(f"s{seed}", encoded(pixels), attributes, attention)


def example(number: int, pictures: list[Picture]) -> Example:
    relevant = number % 2 == 0
    return Example(
        id=f"c{number}",
        turns=[Turn("A", "hi", False), Turn("B", "I won <script>alert(1)</script> & more", True)],
        case="supplement" if number % 3 else "alone",
        gold=pictures[-1],
        gold_rank=6,
        gold_intention="joy",
        probabilities={"joy": 0.6, "anger": 0.3, "喜悦": 0.1},
        ranked=[RankedPicture(p, 0.9 - 0.1 * i, relevant, False) for i, p in enumerate(pictures)],
    )


def report_data(**changes) -> ReportData:
    pictures = [picture(seed) for seed in range(6)]
    line = np.linspace(0, 1, 11)
    row = {"hit@1": Interval(0.365, 0.339, 0.391), "gold_rank_median": Interval(12.0, 9.0, 15.0)}
    chance = {"hit@1": Interval(0.09), "gold_rank_median": Interval(20.5)}
    data = ReportData(
        title="A report",
        dataset=DatasetCard("chats 1.0", "real", {"stickers": 6}, [Credit("OpenMoji")], False),
        protocol=Protocol("multi", "same intention", {"queries": 4}),
        systems={"int_ra": System(row, "ours"), "chance": System(chance), "$_odd$": System(row)},
        main_system="int_ra",
        headline_metric="hit@1",
        differences=[Difference("hit@1", "chance", 0.275, 0.249, 0.301, 1e-9)],
        interval_note="95% bootstrap",
        pr_curves={name: Curve(line, 1 - line / 2) for name in ["int_ra", "$_odd$"]},
        prevalence=0.1,
        intentions=Intentions(
            NAMES,
            {"train": [5, 3, 2], "test": [0, 0, 0]},
            np.diag([3, 2, 0]) + np.eye(3, dtype=int),
        ),
        training={
            "train/loss/total": Curve(np.arange(11), 1 - line),
            "valid/loss/total": Curve(np.arange(1), line[:1]),
        },
        examples=[example(number, pictures) for number in range(4)],
        config={"optim.lr": 1e-4},
        run=RunFacts(10, {"heads": 1234567}, {"train": 75.0}, {"jax": "0.10"}, ["cpu"]),
    )
    return dataclasses.replace(data, **changes)


def page(tmp_path: Path, **changes) -> str:
    report.write(tmp_path, report_data(**changes), [])
    return (tmp_path / "report.html").read_text(encoding="utf-8")


class Outline(HTMLParser):
    """Records every start tag and complains about elements that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in {"style", "script"}:
            self.texts.append(data)

    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def test_the_page_loads_nothing_from_anywhere(tmp_path):
    credit = Credit("OpenMoji", "https://openmoji.org")
    html = page(tmp_path, dataset=DatasetCard("chats", "real", {}, [credit], False))
    tags = Outline(html).tags
    assert not {"link", "iframe", "object", "embed", "base", "img"} & {tag for tag, _ in tags}
    for tag, attributes in tags:
        assert "src" not in attributes and "srcset" not in attributes
        target = attributes.get("href") or attributes.get("xlink:href") or "#"
        assert target.startswith("#") or (tag == "a" and target == credit.url)
    assert "@import" not in html
    assert "url(data:" in html and not re.search(r"url\((?!data:|#)", html)


def test_the_policy_forbids_requests_and_allows_exactly_the_page_s_script(tmp_path):
    html = page(tmp_path)
    policy = next(a["content"] for _, a in Outline(html).tags if "http-equiv" in a)
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def test_text_from_the_data_is_never_markup(tmp_path):
    bad = "\"><script>alert(1)</script><b x='{{ 7*7 }}'>"
    base = report_data()
    gold = dataclasses.replace(picture(1), sticker=bad, attributes={"facial": bad})
    examples = [
        dataclasses.replace(
            base.examples[0], id=bad, turns=[Turn(bad, bad, True)], gold=gold, gold_intention=bad
        )
    ]
    outline = Outline(
        page(
            tmp_path,
            title=bad,
            examples=examples,
            training={f"train/{bad}": Curve(np.arange(2), np.arange(2))},
            config={bad: bad},
            dataset=DatasetCard(bad, bad, {bad: 1}, [Credit(bad, "javascript:alert(1)")], True),
        )
    )
    assert sum(tag == "script" for tag, _ in outline.tags) == 1
    assert not any("x" in attributes for tag, attributes in outline.tags if tag == "b")
    assert outline.text().count(bad) >= 8
    assert not any("javascript" in (a.get("href") or "") for _, a in outline.tags)


def test_the_same_data_gives_the_same_bytes_whatever_matplotlib_is_set_to(tmp_path):
    first = page(tmp_path / "a")
    with plots.matplotlib.rc_context({"axes.linewidth": 9, "svg.fonttype": "path"}):
        assert page(tmp_path / "b") == first


def test_ids_are_unique_and_every_reference_finds_its_target(tmp_path):
    tags = Outline(page(tmp_path)).tags
    ids = Counter(a["id"] for _, a in tags if "id" in a)
    assert max(ids.values()) == 1
    targets = [a.get("href") or a.get("xlink:href") for _, a in tags]
    targets += [f"#{a['aria-labelledby']}" for _, a in tags if "aria-labelledby" in a]
    clips = [a["clip-path"][4:-1] for _, a in tags if "clip-path" in a]
    assert clips
    assert {t[1:] for t in targets + clips if t and t.startswith("#")} <= set(ids)


def test_each_sticker_is_embedded_once_and_every_picture_is_described(tmp_path):
    html = page(tmp_path)
    assert html.count("data:image/webp") == 6
    # Four conversations show the attention of the same two stickers, three attributes each.
    assert html.count("data:image/png") == 6
    styles = set(re.findall(r"^\.(p\d+)\{", html, re.MULTILINE))
    used = {c for _, a in Outline(html).tags for c in (a.get("class") or "").split()}
    assert styles == {c for c in used if re.fullmatch(r"p\d+", c)}
    pictured = [a for _, a in Outline(html).tags if a.get("role") == "img"]
    assert len(pictured) > 30 and all(a["aria-label"].strip() for a in pictured)


def test_only_attributes_that_the_sticker_has_get_a_map(tmp_path):
    captions = re.findall(r"<figcaption><b>(\w+)</b>", page(tmp_path))
    assert captions == ["gesture", "facial", "verbal"] * 2 * 4


def test_stickers_without_attribute_text_are_said_to_have_no_map(tmp_path):
    bare = dataclasses.replace(picture(0), attributes={"facial": ""})
    examples = [example(0, [bare]), example(1, [picture(1)])]
    assert page(tmp_path, examples=examples).count("No attribute map") == 1


def test_the_words_that_the_sticker_replaces_are_shown_where_they_are_known(tmp_path):
    known = dataclasses.replace(example(0, [picture(0)]), replaced="Byye")
    assert ">Byye</q>" in page(tmp_path, examples=[known])
    assert "in place of" not in page(tmp_path)


def test_a_page_of_24_conversations_with_distinct_noisy_stickers_stays_small():
    examples = [
        example(number, [picture(6 * number + i, side=224, grid=14) for i in range(6)])
        for number in range(24)
    ]
    assert len(report.html(report_data(examples=examples)).encode()) < 6e6


def test_filters_see_every_conversation_and_hits_are_marked_without_colour(tmp_path):
    html = page(tmp_path)
    tags = [a["data-tags"].split() for _, a in Outline(html).tags if "data-tags" in a]
    assert [t[0] for t in tags] == ["hit", "miss", "hit", "miss"]
    assert [t[1] for t in tags] == ["alone", "supplement", "supplement", "alone"]
    shown = {a["data-show"] for _, a in Outline(html).tags if "data-show" in a}
    assert shown == {"all"}.union(*tags)
    assert html.count('aria-label="relevant">✓') == 2 * 6


def test_the_page_says_when_the_data_has_no_knowledge_and_only_then(tmp_path):
    assert "No knowledge in this data" in page(tmp_path)
    card = dataclasses.replace(report_data().dataset, has_knowledge=True)
    assert "No knowledge in this data" not in page(tmp_path, dataset=card)


def test_missing_parts_are_said_and_not_left_blank(tmp_path):
    html = page(tmp_path, training={}, differences=[], examples=[], pr_curves={})
    for sentence in ["No training curve", "No paired comparison", "No conversation was chosen"]:
        assert sentence in html
    assert "No attention was recorded" in html


@settings(deadline=None)
@given(
    st.sampled_from(["hit@1", "gold_rank_median"]),
    st.floats(-0.9, 0.9, allow_subnormal=False),
    st.floats(0.001, 0.5),
)
def test_the_verdict_calls_better_only_what_the_interval_allows(metric, difference, half):
    row = Difference(metric, "chance", difference, difference - half, difference + half, 0.5)
    line = report.verdict(report_data(headline_metric=metric, differences=[row]))[1]
    gain = -difference if metric.startswith("gold_rank") else difference
    expected = "better" if gain > half else "worse" if gain < -half else "no clear difference"
    assert line.endswith(f": {expected}")


def test_the_verdict_reads_as_promised():
    assert report.verdict(report_data()) == [
        "hit@1 36.5% [33.9, 39.1]",
        "+27.5 points over chance [24.9, 30.1]: better",
    ]
    ranks = Difference("gold_rank_median", "chance", -8.5, -11.5, -5.5, 0.01)
    assert report.verdict(report_data(headline_metric="gold_rank_median", differences=[ranks])) == [
        "gold_rank_median 12.0 [9.0, 15.0]",
        "−8.5 ranks against chance [−11.5, −5.5]: better",
    ]


def test_the_best_value_of_each_column_is_bold_and_low_ranks_are_best(tmp_path):
    worse = System({"hit@1": Interval(0.2), "gold_rank_median": Interval(3.0)})
    html = page(tmp_path, systems={**report_data().systems, "other": worse})
    # "int_ra" and "$_odd$" share the best hit@1; "other" has the lowest median rank.
    assert re.findall(r"<strong>([\d.]+)</strong>", html) == ["36.5", "36.5", "3.0"]


def test_an_unreadable_sticker_is_named_and_the_old_page_survives(tmp_path):
    old = page(tmp_path)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    examples = [dataclasses.replace(report_data().examples[0], gold=Picture("s", broken))]
    with pytest.raises(ValueError, match=r"broken\.png"):
        page(tmp_path, examples=examples)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == old
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "broken.png", "per_query.jsonl", "pr_curve.csv", "report.html", "report.json",
    ]  # fmt: skip


def test_all_contradictions_are_reported_at_once(tmp_path):
    base = report_data()
    short = Picture("s9", b"", {}, np.ones((3, 7, 7)))
    with pytest.raises(ValueError) as caught:
        page(
            tmp_path,
            main_system="int_ar",
            differences=[Difference("hit@2", "chance", 0.0, 0.0, 0.0, 1.0)],
            intentions=Intentions(NAMES, {"train": [1]}, np.zeros((2, 2), int)),
            examples=[dataclasses.replace(base.examples[0], gold=short, ranked=[])],
        )
    message = str(caught.value)
    for part in [
        "'int_ar'",
        "nearest is 'int_ra'",
        "'hit@2'",
        "(2, 2)",
        "'train'",
        "'s9'",
        "no ranked",
    ]:
        assert part in message


def test_the_json_holds_the_table_s_numbers():
    content = json.loads(report.numbers(report_data(config={"n": np.int32(3)})))
    assert content["systems"]["int_ra"]["hit@1"] == {
        "value": 0.365,
        "low": 0.339,
        "high": 0.391,
    }
    assert content["differences"][0]["p_value"] == 1e-9
    assert content["intentions"]["confusion"][0] == [4, 0, 0]
    assert content["config"] == {"n": 3} and content["verdict"] == report.verdict(report_data())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan")])
def test_numbers_that_json_cannot_hold_are_named(tmp_path, value):
    rows = [{"id": "q1", "metrics": {"ap": value}, "hits": [1.0, value]}]
    with pytest.raises(ValueError, match=r"metrics\.ap, hits\.1"):
        report.write(tmp_path, report_data(), rows)
    assert list(tmp_path.iterdir()) == []


def test_per_query_rows_come_back_as_written():
    rows = [
        {"id": "q1", "gold_rank": np.int64(4), "ap": np.float32(0.5)},
        {"id": "说\u2028", "ap": 1.0},
    ]
    lines = report.per_query(iter(rows)).split("\n")
    assert [json.loads(line) for line in lines[:-1]] == rows and lines[-1] == ""


def test_the_csv_holds_every_point_of_every_curve():
    recall = np.linspace(0, 1, 101)
    curves = {"int_ra": Curve(recall, recall**2), 'a,"b"': Curve(recall[:3], 1 - recall[:3])}
    rows = list(csv.DictReader(io.StringIO(report.pr_curve(curves), newline="")))
    for name, curve in curves.items():
        got = [(float(r["recall"]), float(r["precision"])) for r in rows if r["system"] == name]
        np.testing.assert_allclose(got, np.stack([curve.x, curve.y], 1), atol=1e-6)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    channels = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_has_readable_contrast_in_both_themes(theme):
    css = (Path(report.__file__).parent / "report.css").read_text(encoding="utf-8")
    block = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[theme]
    colours = dict(re.findall(r"--(\w+): (#\w+);", block))
    pairs = [("ink", ground) for ground in ["paper", "card", "theirs", "mine", "notice"]]
    pairs += [(text, g) for text in ["soft", "accent", "good", "bad"] for g in ["paper", "card"]]
    for text, ground in pairs:
        light, dark = sorted([luminance(colours[text]), luminance(colours[ground])])[::-1]
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


def test_graded_posts_are_written_and_those_of_an_earlier_evaluation_removed(tmp_path):
    post = {"post": "p", "direct": 20, "people": {}, "systems": {}}
    report.write(tmp_path, report_data(), [], [post])
    assert json.loads((tmp_path / "per_post.jsonl").read_text()) == post
    report.write(tmp_path, report_data(), [])
    assert not (tmp_path / "per_post.jsonl").exists()


def exact_data(**changes) -> ReportData:
    row = {
        "hit@1": Interval(0.2, 0.1, 0.3),
        "precision@5": Interval(0.1),
        "gold_cross_entropy": Interval(3.5, 3.4, 3.6),
    }
    better = {**row, "gold_cross_entropy": Interval(3.25, 3.2, 3.3)}
    gain = Difference("gold_cross_entropy", "popular", -0.25, -0.3, -0.2, 0.001)
    parts = {
        "protocol": Protocol("exact", "the sticker that was sent", {}),
        "systems": {"int_ra": System(better), "popular": System(row)},
        "pr_curves": {},
        "differences": [gain],
        "scales": {"int_ra": 20.0},
        "remarks": ["There is no row zero_shot: a reason."],
    }
    return report_data(**(parts | changes))


def test_cross_entropy_is_shown_in_nats_and_low_is_best(tmp_path):
    html = report.html(exact_data())
    assert re.findall(r"<strong>([\d.]+)</strong>", html) == ["20.0", "3.250", "20.0"]
    assert "▲ better" in Outline(html).text()
    assert "−0.250" in html and "in nats, low is good" in html
    assert "precision@5" not in html
    assert "There is no row zero_shot: a reason." in html
    assert json.loads(report.numbers(exact_data()))["systems"]["int_ra"]["precision@5"]
    verdict = report.verdict(exact_data(headline_metric="gold_cross_entropy"))
    assert verdict == [
        "gold_cross_entropy 3.250 [3.200, 3.300]",
        "−0.250 nats against popular [−0.300, −0.200]: better",
    ]


def test_what_real_choices_tell_has_sections_of_its_own_that_are_linked():
    cell = Interval(0.1, 0.05, 0.15)
    row = {"hit@1": cell, "mrr": cell}
    gain = Difference("first", "two_agree", 0.02, 0.01, 0.03, 0.01)
    html = report.html(
        exact_data(
            agreement=Agreement(
                84, 20, dict.fromkeys(("two_agree", "best_one", "best_five"), cell),
                {"int_ra": dict.fromkeys(("first", "five", "ndcg"), cell)}, gain, gain, cell,
                "It names <it> more often.",
            ),
            cases={"echo": Case(1234, 5, False, {"int_ra": row})},
            cold_start=ColdStart(77, 24, 23, {"int_ra": {"all": row, "unseen": row}}),
        )
    )  # fmt: skip
    outline = Outline(html)
    links = {a.get("href") for tag, a in outline.tags if tag == "a"}
    sections = {f"#{a['id']}" for tag, a in outline.tags if tag == "section" and "id" in a}
    assert sections <= links
    text = outline.text()
    for words in (
        "It names <it> more often.", "Of the 84 posts with at least 20 direct replies",
        "1,234 queries of 5 posts", "apart from the headline", "one of 23 stickers",
        "of 24 such stickers", "10.0 [5.0, 15.0]",
    ):  # fmt: skip
        assert words in text
    plain = Outline(report.html(report_data()))
    assert not {"people", "cases", "unseen"} & {a.get("id") for _, a in plain.tags}
