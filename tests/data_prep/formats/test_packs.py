"""Packs of stickers as a gallery, and animated stickers as pictures."""

import gzip
import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from data_prep.formats import animations, pack_manifests
from data_prep.formats.galleries import import_packs
from data_prep.formats.importing import import_published
from data_prep.problems import BadInputError
from int_ra_jax.data import images, validation
from int_ra_jax.data.schema import STICKERS_FILE

TRAY = "sign of the pack, no sticker"
MISSING = "file not in the pack"


def picture(seed, form="WEBP"):
    """Draws a still picture, unlike that of any other seed."""
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((2, 2, 12 + seed, 28), fill=(40 * seed % 256, 90, 200))
    content = io.BytesIO()
    image.save(content, form)
    return content.getvalue()


def lottie(**keys):
    """Writes a red square, half seen through, that goes from left to right in a second."""
    still = {"a": 0, "k": [0, 0, 0]}
    moving = {"a": 1, "k": [{"t": 0, "s": [20, 50, 0]}, {"t": 29, "s": [80, 50, 0]}]}
    moving["k"][0] |= {"i": {"x": [1], "y": [1]}, "o": {"x": [0], "y": [0]}}
    full, turn = {"a": 0, "k": [100, 100, 100]}, {"a": 0, "k": 0}
    square = [
        {"ty": "rc", "p": still, "s": {"a": 0, "k": [30, 30]}, "r": turn},
        {"ty": "fl", "c": {"a": 0, "k": [1, 0, 0, 1]}, "o": {"a": 0, "k": 100}},
        {"ty": "tr", "p": still, "a": still, "s": full, "r": turn, "o": {"a": 0, "k": 100}},
    ]
    drawn = {"o": {"a": 0, "k": 50}, "r": turn, "p": moving, "a": still, "s": full}
    layer = {
        "ddd": 0,
        "ind": 1,
        "ty": 4,
        "nm": "a",
        "sr": 1,
        "ks": drawn,
        "ip": 0,
        "op": 30,
        "st": 0,
    }
    layer["shapes"] = [{"ty": "gr", "it": square}]
    size = {"v": "5.5.2", "fr": 30, "ip": 0, "op": 30, "w": 100, "h": 100, "ddd": 0}
    return json.dumps(size | {"assets": [], "layers": [layer]} | keys).encode()


def was(content):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("animation/secondary.json", "{}")
        archive.writestr("animation/animation.json", content)
    return packed.getvalue()


def webm(frames=5):
    """Encodes a red square that goes from left to right, on nothing."""
    av = pytest.importorskip("av")
    content = io.BytesIO()
    with av.open(content, "w", format="webm") as container:
        stream = container.add_stream("libvpx-vp9", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuva420p"
        for number in range(frames):
            drawn = np.zeros((64, 64, 4), np.uint8)
            drawn[8:40, 8 * number : 8 * number + 24] = (255, 0, 0, 255)
            frame = av.VideoFrame.from_ndarray(drawn, format="rgba")
            container.mux(stream.encode(frame.reformat(format="yuva420p")))
        container.mux(stream.encode())
    return content.getvalue()


def write(folder, files, packed=None):
    """Writes the files of a pack into a folder, or into a zip in it."""
    folder.mkdir(parents=True, exist_ok=True)
    if packed:
        with zipfile.ZipFile(folder / packed, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return folder / packed
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def gallery(source, out):
    """Imports; returns what is said of each sticker, and {reason: count}, the sum being exact."""
    ledger = import_packs(source, out)
    prepared = validation.read_prepared(out, gallery=True)
    assert ledger.to_json() == prepared.info["ledger"]
    left_out = {name: reason.count for name, reason in ledger.left_out.items()}
    assert ledger.records_in == ledger.kept + sum(left_out.values())
    assert ledger.kept == len(prepared.stickers)
    said = [
        (one.extra.get("name", ""), one.tags, one.extra.get("pack")) for one in prepared.stickers
    ]
    return said, left_out


WHATSAPP = {
    "identifier": "1",
    "name": "Cats",
    "publisher": "Mia",
    "tray_image_file": "icon.png",
    "stickers": [
        {"image_file": "1.webp", "emojis": ["😀", "👍🏽"]},
        {"image_file": "2.webp", "emojis": "💕", "accessibility_text": "a cat waves"},
        {"image_file": "3.webp"},
    ],
}
TELEGRAM = {
    "name": "dogs_by_bot",
    "title": "Dogs",
    "stickers": [
        {"file_id": "CAAC", "file_unique_id": "AgAD", "emoji": "😂", "keywords": ["lol"]},
        {"file_id": "CAAD", "file_unique_id": "AgAE", "emoji": "😭"},
    ],
}
SIGNAL = {
    "title": "Owls",
    "author": "Ida",
    "cover": {"id": 0, "emoji": ""},
    "stickers": [{"id": 0, "emoji": "😀"}, {"id": 1, "emoji": "😭"}],
}
PACKS = {
    "folder": (
        {
            "001_👋.png": picture(1, "PNG"),
            "happy cat.webp": picture(2),
            "again.png": picture(1, "PNG"),
            "more/7.gif": picture(3, "GIF"),
            "notes.txt": "x",
            ".DS_Store": "x",
        },
        [("👋", ("👋",), "pack"), ("happy cat", ("happy cat",), "pack"), ("", (), "more")],
        {"same picture as another sticker": 1, "file of another kind": 1},
    ),
    "whatsapp": (
        {
            "contents.json": json.dumps({"sticker_packs": [WHATSAPP]}),
            "title.txt": "Cats",
            "author.txt": "Mia",
            "icon.png": picture(9, "PNG"),
            "1.webp": picture(1),
            "2.webp": picture(2),
        },
        [("", ("😀", "👍🏽"), "Cats"), ("a cat waves", ("💕", "a cat waves"), "Cats")],
        {MISSING: 1, TRAY: 1},
    ),
    "plain wastickers": (
        {"title.txt": "Cats\n", "author.txt": "Mia", "tray.png": picture(9), "a.webp": picture(1)},
        [("a", ("a",), "Cats")],
        {TRAY: 1},
    ),
    "telegram": (
        {
            "set.json": json.dumps({"ok": True, "result": TELEGRAM}),
            "AgAD.webp": picture(1),
            "x/CAAD.png": picture(2, "PNG"),
        },
        [("", ("😂", "lol"), "Dogs"), ("", ("😭",), "Dogs")],
        {},
    ),
    "telegram, by number": (
        {"set.json": json.dumps(TELEGRAM), "002.webp": picture(2), "001 a.webp": picture(1)},
        [("a", ("😂", "a", "lol"), "Dogs"), ("", ("😭",), "Dogs")],
        {},
    ),
    "signal": (
        {"manifest.json": json.dumps(SIGNAL), "0": picture(1), "1.png": picture(2, "PNG")},
        [("", ("😀",), "Owls"), ("", ("😭",), "Owls")],
        {},
    ),
    "one picture twice": (
        {"emoji.txt": '{"a": "😀", "b": "😭"}', "a.webp": picture(1), "b.webp": picture(1)},
        [("a", ("😀", "a", "😭"), None)],
        {"same picture as another sticker": 1},
    ),
    "signal, by number": (
        {
            "manifest.json": json.dumps(SIGNAL | {"cover": {"id": 7}}),
            "000.webp": picture(1),
            "001.webp": picture(2),
            "007.webp": picture(9),
        },
        [("", ("😀",), "Owls"), ("", ("😭",), "Owls")],
        {TRAY: 1},
    ),
    "signal, by file": (
        {
            "manifest.json": json.dumps(
                SIGNAL
                | {
                    "cover": {"file": "cover.webp"},
                    "stickers": [{"file": "hoo.webp", "emoji": "🦉"}],
                }
            ),
            "cover.webp": picture(9),
            "hoo.webp": picture(1),
        },
        [("hoo", ("🦉", "hoo"), "Owls")],
        {TRAY: 1},
    ),
    "emoji.txt": (
        {"emoji.txt": '{"a": "😀"}', "title.txt": "T", "a.png": picture(1, "PNG"), "b.png": "x"},
        [("a", ("😀", "a"), "T")],
        {"no picture that can be read": 1},
    ),
}


@pytest.mark.parametrize(
    ("name", "packed"),
    [*((name, None) for name in PACKS), ("whatsapp", "a.wastickers"), ("signal", "a.zip")],
)
def test_a_pack_becomes_a_gallery_with_its_names_and_emoji(name, packed, tmp_path):
    files, said, left_out = PACKS[name]
    source = write(tmp_path / "pack", files, packed)
    assert gallery(source, tmp_path / "out") == (said, left_out)
    if packed:  # and from the folder in which the zip lies
        assert gallery(source.parent, tmp_path / "again")[1] == left_out


def test_several_packs_lie_in_one_folder_each_with_its_title(tmp_path):
    write(tmp_path / "all/cats", PACKS["plain wastickers"][0])
    write(tmp_path / "all", {"hi.webp": picture(4)}, "dogs.wastickers")
    write(tmp_path / "all", {"ho.webp": picture(5)}, "dogs.zip")
    within = (tmp_path / "all/dogs.zip").read_bytes()
    write(tmp_path / "all", {"he.webp": picture(6), "dogs.zip": within}, "owls.zip")
    said, left_out = gallery(tmp_path / "all", tmp_path / "out")
    packs = [json.loads(one) for one in (tmp_path / "out" / STICKERS_FILE).read_text().splitlines()]
    assert [one["pack"] for one in packs] == ["Cats", "dogs", "dogs 2", "owls"] and len(said) == 4
    assert left_out == {TRAY: 1, "file of another kind": 1}  # a zip within a zip
    assert packs[0]["author"] == "Mia"


def test_a_gallery_is_read_where_stickers_are_enough_and_refused_elsewhere(tmp_path):
    source = write(tmp_path / "pack", {"a.webp": picture(1)})
    import_published("pack", source, tmp_path / "none", dry_run=True)
    assert not (tmp_path / "none").exists()
    import_published("pack", source, tmp_path / "out")
    assert not validation.inspect(tmp_path / "out", gallery=True).problems
    for read in (validation.read_prepared, validation.read_outline):
        with pytest.raises(ValueError, match="this is a gallery of stickers"):
            read(tmp_path / "out")
    with pytest.raises(FileExistsError):
        import_published("pack", source, tmp_path / "out")
    with pytest.raises(ValueError, match="--language is not read by --format=pack"):
        import_published("pack", source, tmp_path / "new", language="c")


@pytest.mark.parametrize(
    "emoji",
    [
        "👩\u200d💻",
        "❤\ufe0f",
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    ],
)
def test_emoji_of_several_characters_stay_whole(emoji):
    assert pack_manifests.words(f" {emoji}\0\n") == emoji


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"m.json": '{"stickers": [', "a.webp": picture(1)}, r"m\.json:1: not JSON"),
        ({"emoji.txt": "smile", "a.webp": picture(1)}, r"emoji\.txt:1: not JSON"),
        ({"a.txt": "x"}, "no sticker: 1 records in, 0 kept"),
        ({}, "no sticker: 0 records in"),
    ],
)
def test_what_is_no_pack_is_refused_with_the_reason(files, told, tmp_path):
    with pytest.raises(BadInputError, match=told):
        import_packs(write(tmp_path / "pack", files), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_single_file_that_is_no_pack_is_told_what_is(tmp_path):
    write(tmp_path, {"a.webp": picture(1)})
    with pytest.raises(ValueError, match=r"a\.webp is no pack\. Name a folder of pictures"):
        import_packs(tmp_path / "a.webp", tmp_path / "out")


def test_a_pack_out_of_bounds_is_refused(tmp_path):
    bomb = write(tmp_path, {"a": bytes(2**22)}, "a.wastickers")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(2**22))
    bomb.write_bytes(packed.getvalue())
    for source in (bomb, write(tmp_path, {"../a.webp": b"x"}, "b.wastickers")):
        with pytest.raises(ValueError, match="is not unpacked"):
            import_packs(source, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="Name a folder of pictures"):
        import_packs(tmp_path / "nowhere", tmp_path / "out")


ODD = st.recursive(
    st.none() | st.integers() | st.sampled_from(["1.webp", "a", "😀", "../x", "\0", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["stickers", "emoji", "id", "file", "cover", "identifier", "result"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=10, deadline=None)
@given(ODD, st.binary(max_size=30))
def test_whatever_a_manifest_says_the_picture_is_kept_and_the_sum_exact(
    tmp_path_factory, manifest, rubbish
):
    folder = tmp_path_factory.mktemp("pack")
    text = json.dumps({"stickers": manifest, "title": manifest})
    source = write(folder / "in", {"m.json": text, "1.webp": picture(1), "b.png": rubbish})
    ledger = import_packs(source, folder / "out")
    left_out = sum(reason.count for reason in ledger.left_out.values())
    assert ledger.records_in == ledger.kept + left_out and ledger.kept <= 1


FORMS = {
    "tgs": lambda: gzip.compress(lottie()),
    "was": lambda: was(lottie()),
    "webm": webm,
}


@pytest.mark.parametrize("form", FORMS)
def test_an_animation_becomes_a_picture_with_its_frames_and_transparency(form, tmp_path):
    if form != "webm":
        pytest.importorskip("rlottie_python")
    source = write(tmp_path / "in", {f"wave.{form}": FORMS[form]()})
    assert gallery(source, tmp_path / "out") == ([("wave", ("wave",), "in")], {})
    (path,) = (tmp_path / "out/images").iterdir()
    traits = images.traits(path.read_bytes())
    assert traits.frames == (5 if form == "webm" else 12) and images.is_transparent(
        path.read_bytes()
    )
    with Image.open(path) as drawn:
        middles = []
        for number in range(drawn.n_frames):
            drawn.seek(number)
            pixels = np.asarray(drawn.convert("RGBA")).astype(int)
            seen = pixels[..., 3] > 60
            middles.append(np.nonzero(seen)[1].mean() / drawn.width)
            # Half seen through or not, the colour itself is red.
            assert np.abs(pixels[seen].mean(0)[:3] - (255, 0, 0)).max() < 12
    assert (np.diff(middles) > 0).all() and middles[0] < 0.35 and middles[-1] > 0.6


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        gzip.compress(lottie(w=0)),
        gzip.compress(lottie())[:200],
        b"PK\x03\x04",
        b"\x1aE\xdf\xa3 and nothing",
        lottie(assets=[{"id": "a", "u": "/etc/", "p": "secret.png", "e": 0}]),
    ],
)
def test_a_broken_or_hostile_animation_is_left_out_with_a_reason(content, tmp_path):
    pytest.importorskip("rlottie_python")
    with pytest.raises(ValueError, match="animation that cannot be decoded"):
        animations.as_picture(content)


def test_a_decoder_that_is_killed_or_hangs_ends_nothing_else(tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    monkeypatch.setattr(animations.animation_frames, "__file__", str(script))
    monkeypatch.setattr(animations, "_SECONDS", 0.5)
    for does, told in (("os.abort()", "its decoder ended"), ("time.sleep(9)", "more than 0.5 s")):
        script.write_text(f"import os, time\n{does}\n")
        with pytest.raises(ValueError, match=told):
            animations.as_picture(b"{}")


def test_without_its_package_an_animation_is_counted_by_the_packages_name(tmp_path, monkeypatch):
    monkeypatch.setattr(animations.importlib.util, "find_spec", lambda name: None)
    files = {"a.tgs": gzip.compress(b"{}"), "b.webm": b"\x1aE\xdf\xa3", "c.webp": picture(1)}
    _, left_out = gallery(write(tmp_path / "in", files), tmp_path / "out")
    assert left_out == {"animated; pip install rlottie-python": 1, "animated; pip install av": 1}
