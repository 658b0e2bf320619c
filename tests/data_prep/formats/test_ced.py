"""CED: replies of a microblog become conversations with the sticker that each writer sent."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from fuzz import releases
from hypothesis import given
from hypothesis import strategies as st

from data_prep.formats import ced, packs
from data_prep.formats.importing import import_published
from data_prep.formats.reading import InputDirectory
from data_prep.problems import Problems
from int_ra_jax.common.ledger import Ledger
from int_ra_jax.data.validation import read_prepared, validate

REAL = Path(__file__).parents[4] / "shared" / "data" / "choices_zh"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="needs the shared data")


def pack(root):
    (root / "images").mkdir(parents=True)
    rows = []
    for number, (name, codes) in enumerate({"d_haha": ["哈哈"], "d_lei": ["泪", "淚"]}.items()):
        (root / f"images/{name}.png").write_bytes(releases.picture(number))
        rows.append({"id": name, "name": codes[0], "codes": codes, "image": f"images/{name}.png"})
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (root / "stickers.jsonl").write_text(text, "utf-8")
    return root


def reply(mid, text, parent="", uid=None):
    date = "2012-05-04 10:00:00"
    return {
        **{"mid": mid, "parent": parent, "uid": uid or f"u{mid}", "text": text, "date": date},
        "kids": [],
    }


def clone(root, posts, kind="non-rumor"):
    """Writes {post: (text, replies)} as a clone of the corpus has them."""
    for folder in ("original-microblog", f"{kind}-repost"):
        (root / "CED_Dataset" / folder).mkdir(parents=True, exist_ok=True)
    for name, (text, replies) in posts.items():
        post = json.dumps({"text": text, "time": 1}, ensure_ascii=False)
        (root / f"CED_Dataset/original-microblog/{name}.json").write_text(post, "utf-8")
        path = root / f"CED_Dataset/{kind}-repost/{name}.json"
        path.write_text(json.dumps(replies, ensure_ascii=False), "utf-8")
    (root / "CED_Dataset" / "original-microblog" / ".DS_Store").write_bytes(b"\0\1")
    (root / "CED_Dataset" / "original-microblog" / "._1_a.json").write_bytes(b"\0\1")
    return root


TOPICS = [
    "今天天气真好啊大家出门",
    "国家队昨晚赢得了比赛冠军",
    "新电影下周三全国上映了",
    "超市白菜价格又上涨许多",
]


def chosen(tmp_path, *replies, post=TOPICS[0], **options):
    """Imports one post's replies beside three posts that every split needs; returns the rows."""
    posts = {f"{n}_x": (text, [reply("z", f"{n}[哈哈]")]) for n, text in enumerate(TOPICS[1:], 1)}
    source = clone(tmp_path / "in", {"9_x": (post, list(replies)), **posts})
    stickers = str(pack(tmp_path / "pack"))
    import_published("ced", source, tmp_path / "out", stickers=stickers, **options)
    assert validate(tmp_path / "out") == []
    prepared = read_prepared(tmp_path / "out")
    rows = [row for split in prepared.conversations.values() for row in split]
    ledger = prepared.info["ledger"]
    left_out = sum(reason["count"] for reason in ledger["left_out"].values())
    assert ledger["records_in"] == ledger["kept"] + left_out == len(replies) + 3
    assert ledger["kept"] == len(rows)
    return [row for row in rows if row.extra["thread"] == "9"], ledger["left_out"], prepared


def test_a_reply_has_the_post_and_the_chain_above_it_as_its_context(tmp_path):
    rows, left_out, prepared = chosen(
        tmp_path,
        reply("a", "真的吗？"),
        reply("b", "回复@小王: 当然了", parent="a"),
        reply("c", "笑死[哈哈][哈哈]", parent="b"),
        reply("d", "[淚]"),
    )
    by_sticker = {row.sticker: row for row in rows}
    funny, sad = by_sticker["d_haha"], by_sticker["d_lei"]
    assert [turn.text for turn in funny.turns] == [TOPICS[0], "真的吗？", "当然了", "笑死"]
    assert funny.turns[-1].speaker == funny.reply_speaker == "u3"
    assert funny.extra["times"] == 2
    assert funny.extra["case"] == "own_words"
    assert not funny.extra["direct"]
    assert [turn.text for turn in sad.turns] == [TOPICS[0]]
    assert sad.extra["case"] == "alone"
    assert sad.extra["direct"]
    assert left_out["no sticker of the pack"]["count"] == 2
    assert left_out["no sticker of the pack"]["first"].endswith("non-rumor-repost/9_x.json[0]")
    gallery = {entry.id: entry for entry in prepared.stickers}
    assert gallery["d_haha"].intentions[0] == funny.intention == "amusement"
    assert gallery["d_lei"].tags == ("泪", "淚")


def test_only_one_kind_of_known_code_counts_and_an_unknown_one_beside_it_does_not(tmp_path):
    rows, left_out, _ = chosen(
        tmp_path,
        reply("a", "好[哈哈][泪]"),
        reply("b", "好[哈哈][爱心传递]"),
        reply("c", "见[有了核威慑，他终于可以休闲了？][哈哈]"),
        reply("d", "好[哈哈]"),
        reply("e", "好[哈哈]"),
    )
    assert len(rows) == 2
    assert {name: noted["count"] for name, noted in left_out.items()} == {
        "stickers of several kinds": 1,
        "beside a code that is not in the pack": 1,
        "the same reply to the same context": 1,
    }


def test_names_links_and_long_numbers_are_masked_everywhere(tmp_path):
    rows, _, _ = chosen(
        tmp_path,
        reply("a", "打 13800138000 找@张三 看http://t.cn/zx1 [哈哈]"),
        post="@李四 的电话 4008123123 见http://t.cn/abc今天天气真好啊",
    )
    (row,) = rows
    text = " ".join(turn.text for turn in row.turns)
    assert text == "@某人 的电话 某号码 见今天天气真好啊 打 某号码 找@某人 看"
    assert "ua" not in json.dumps(row.to_json())


def test_a_sticker_that_stands_in_the_context_is_an_echo(tmp_path):
    rows, _, _ = chosen(
        tmp_path, reply("a", "太惨[淚]"), reply("b", "同感[泪]", parent="a"), reply("c", "嗯[泪]")
    )
    echo = {row.turns[-1].text: row.extra["echo"] for row in rows}
    assert echo == {"太惨": False, "同感": True, "嗯": False}


def test_a_circle_of_parents_ends_and_a_long_chain_is_cut(tmp_path):
    circle = [reply("a", "甲", parent="b"), reply("b", "乙[哈哈]", parent="a")]
    chain = [reply(f"c{n}", f"第{n}句", parent=f"c{n - 1}") for n in range(20)]
    rows, _, _ = chosen(tmp_path, *circle, *chain, reply("d", "完[哈哈]", parent="c19"))
    assert all(len(row.turns) <= 1 + ced.MAX_PARENTS + 1 for row in rows)
    assert len(rows) == 2


def test_records_that_are_no_replies_are_counted_and_do_not_stop_the_import(tmp_path):
    bad = [7, None, {"mid": "a"}, {**reply("b", "好[哈哈]"), "text": None}]
    rows, left_out, _ = chosen(tmp_path, *bad, reply("c", "好[哈哈]"))
    assert len(rows) == 1
    assert left_out["reply without mid, parent, uid, text or date"]["count"] == 4


def test_rumours_are_read_only_where_asked_for(tmp_path):
    source = clone(
        tmp_path / "in", {"8_x": ("谣言一条请勿相信转发了", [reply("a", "[泪]")])}, "rumor"
    )
    clone(source, {f"{n}_x": (t, [reply("z", f"{n}[哈哈]")]) for n, t in enumerate(TOPICS)})
    stickers = str(pack(tmp_path / "pack"))
    for rumours, count in ((False, 4), (True, 5)):
        out = tmp_path / f"out_{rumours}"
        import_published("ced", source, out, stickers=stickers, rumours=rumours)
        assert read_prepared(out).info["ledger"]["kept"] == count


def test_training_gets_no_more_of_a_post_than_is_asked_for(tmp_path):
    posts = {f"{n}_x": (t, [reply(f"{k}", f"{k}[哈哈]") for k in range(5)])
             for n, t in enumerate(TOPICS)}  # fmt: skip
    source, stickers = clone(tmp_path / "in", posts), str(pack(tmp_path / "pack"))
    import_published("ced", source, tmp_path / "out", stickers=stickers, per_thread=2)
    prepared = read_prepared(tmp_path / "out")
    sizes = {split: len(rows) for split, rows in prepared.conversations.items()}
    assert sizes == {"train": 4, "valid": 5, "test": 5}
    left_out = prepared.info["ledger"]["left_out"]
    assert left_out["train has 2 rows of the thread already"]["count"] == 6


def test_near_identical_posts_stay_in_one_split():
    texts = {str(n): f"{n} 号今天讲{chr(0x4E00 + 37 * n) * 9}的事" for n in range(60)}
    copies = {f"{name}_copy": f"转发 {text}。" for name, text in texts.items()}
    splits = ced.split_posts({**texts, **copies})
    assert all(splits[name] == splits[f"{name}_copy"] for name in texts)
    assert Counter(splits.values()) == {"train": 96, "valid": 12, "test": 12}
    assert ced.split_posts({**texts, **copies}) == splits


@pytest.mark.parametrize(
    ("options", "message"),
    [({}, "needs --stickers"), ({"stickers": "x", "language": "c"}, "--language is not read")],
)
def test_options_are_asked_for_and_refused_by_name(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        import_published("ced", tmp_path, tmp_path / "out", **options)


def test_a_pack_without_its_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no stickers\.jsonl"):
        packs.load(str(tmp_path), Problems("pack"))


_FIELDS = st.one_of(st.none(), st.integers(), st.text(max_size=9), st.just("[哈哈]"))
_KEYS = st.sampled_from(["mid", "parent", "uid", "text", "date"])


@given(st.lists(st.one_of(_FIELDS, st.dictionaries(_KEYS, _FIELDS)), max_size=8))
def test_the_ledger_holds_whatever_a_file_of_replies_has(tmp_path_factory, records):
    root = tmp_path_factory.mktemp("ced")
    (root / "r.json").write_text(json.dumps(records), "utf-8")

    class Codes:
        codes = {"哈哈": "d_haha"}

    problems = Problems(root)
    thread = ced._Thread("1", "post", "train", Codes)
    ledger, kept = Ledger(), []
    for place, record in thread.records(InputDirectory(root, problems), "r.json"):
        ledger.judge(str(place), lambda r=record: kept.append(thread.choice(r)))
    written = ledger.to_json()
    left_out = sum(reason["count"] for reason in written["left_out"].values())
    assert problems.total or len(records) == written["records_in"] == len(kept) + left_out


@needs_real
def test_nine_posts_of_the_corpus_give_the_rows_that_are_known_of_them(tmp_path):
    def key(thread, turns, own_words, sticker, facts):
        kept = tuple(facts[name] for name in ("month", "times", "direct", "echo"))
        return (thread, tuple(turns), own_words, sticker, *kept)

    import_published("ced", REAL / "raw_sample", tmp_path / "out", stickers=str(REAL))
    got = Counter()
    for split in read_prepared(tmp_path / "out").conversations.values():
        for row in split:
            own = row.extra["case"] == "own_words"
            texts = [turn.text for turn in row.turns]
            said, own_words = (texts[:-1], texts[-1]) if own else (texts, "")
            got[key(row.extra["thread"], said, own_words, row.sticker, row.extra)] += 1
    threads = {row[0] for row in got}
    known = Counter()
    with gzip.open(REAL / "replies.jsonl.gz", "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["thread"] in threads:
                said = [turn["text"] for turn in row["turns"]]
                known[key(row["thread"], said, row["own_words"], row["sticker"], row)] += 1
    assert got == known
    assert sum(got.values()) == 375
