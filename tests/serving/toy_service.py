"""A gallery in memory and a retriever that ranks by id: a service without a trained run."""

import dataclasses
import io
from types import SimpleNamespace

import numpy as np
from PIL import Image

from int_ra_jax.common.ledger import Ledger
from int_ra_jax.common.types import RankedList, RankedSticker
from int_ra_jax.retrieval.gallery import Gallery
from int_ra_jax.retrieval.retriever import Retriever
from int_ra_jax.retrieval.stickers import GallerySticker, stated
from int_ra_jax.serving.settings import Limits

KEY = "a-key-that-is-long-enough"
LIMITS = Limits(per_second=1e6, burst=10**6)
ASKED = {"turns": [{"speaker": "ann", "text": "All is gold!"}], "reply_speaker": "bo"}
LOOKED = np.float32([[0, 0], [0, 4]])  # at one corner


def picture(colour="gold", size=(24, 24), form="PNG", **options):
    """Returns an encoded picture of two colours."""
    image = Image.new("RGB", size, colour)
    image.paste("black", (2, 2, size[0] // 2 + 2, size[1] // 2 + 2))
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


class ToyGallery(Gallery):
    """A dict; counts its changes, as ``version``."""

    def __init__(self, stickers=()):
        self.held = {one.id: one for one in stickers}
        self.changes = 0
        self.may_write = True

    def put(self, stickers, progress=None, given=stated):
        ledger = Ledger()
        for one in stickers:
            before = self.held.get(one.id, one)
            fields = {name: getattr(one, name) for name in {"picture", *given(one)}}
            self.held[one.id] = dataclasses.replace(before, **fields)
            ledger.judge(one.id, lambda: None)
        self.changes += 1
        return ledger

    def change(self, id, **fields):
        before = self.held[id]
        if "attributes" in fields:
            fields["attributes"] = {**before.attributes, **fields["attributes"]}
        self.held[id] = dataclasses.replace(before, **fields)
        self.changes += 1
        return self.held[id]

    def remove(self, ids):
        gone = [self.held.pop(one) for one in ids if one in self.held]
        self.changes += bool(gone)
        return len(gone)

    def remove_pack(self, name):
        return self.remove([one.id for one in self.stickers(name)])

    def get(self, id):
        return self.held[id]

    def read(self, ids, *, pictures=False):
        return {
            one: self.held[one] if pictures else dataclasses.replace(self.held[one], picture=b"")
            for one in ids
            if one in self.held
        }

    def picture(self, id):
        return self.held[id].picture, self.held[id].media_type

    def flagged(self, name):
        return [one.id for one in self.held.values() if getattr(one, name)]

    def stickers(self, pack=None, *, offset=0, limit=None, without=()):
        found = [one for _, one in sorted(self.held.items()) if pack in (None, one.pack)]
        found = [one for one in found if one.id not in without]
        yield from found[offset : None if limit is None else offset + limit]

    def packs(self, *, without_flags=()):
        packs = {}
        for one in self.held.values():
            if not any(getattr(one, flag) for flag in without_flags):
                packs[one.pack] = packs.get(one.pack, 0) + 1
        return packs

    def __len__(self):
        return len(self.held)

    def __contains__(self, id):
        return id in self.held

    def warm(self):
        self.warmed = True

    version = property(lambda self: self.changes)
    checksum = property(lambda self: "00ff")
    writable = property(lambda self: self.may_write)


class ToyRetriever(Retriever):
    """Ranks by id; notes the size of each batch."""

    def __init__(self, gallery):
        self.toy, self.batches = gallery, []

    gallery = property(lambda self: self.toy)
    width = property(lambda self: 4)
    run = SimpleNamespace(
        config=SimpleNamespace(
            model=SimpleNamespace(name="toy"), data=SimpleNamespace(resize="squeeze")
        ),
        dataset=SimpleNamespace(intentions=("joy", "sadness")),
    )

    def warm(self, batches, *, top_k=5):
        pass

    def warm_typed(self):
        pass

    def warm_attention(self):
        pass

    def _list(self, top_k, packs=None, exclude=(), without_packs=()):
        passing = [
            one for _, one in sorted(self.toy.held.items())
            if not one.hidden and (packs is None or one.pack in packs)
            if one.id not in exclude and one.pack not in without_packs
        ][:top_k]  # fmt: skip
        stickers = [
            RankedSticker(rank, one.id, 1 / rank, "", dict(one.attributes))
            for rank, one in enumerate(passing, 1)
        ]
        return RankedList(stickers, "joy", {"joy": 0.75, "sadness": 0.25}, tokens=3, eligible=9)

    def reply_many(self, conversations, *, top_k=5, asked=()):
        self.batches.append((len(conversations), top_k))
        return [self._list(top_k, one.packs, one.exclude, one.without_packs) for one in asked]

    def reply(self, conversation, *, top_k=5, packs=None, exclude=(), without_packs=(), **others):
        return self._list(top_k, packs, exclude, without_packs)

    def search(self, words, *, top_k=5, packs=None, without_packs=(), **others):
        return self._list(top_k, packs, without_packs=without_packs)

    def attention(self, sticker):
        return {name: LOOKED for name, text in sticker.attributes.items() if text}

    def similar(self, sticker, *, top_k=5, packs=None, without_packs=(), **others):
        self.toy.held[sticker]
        return self._list(top_k, packs, (sticker,), without_packs)


def toy_gallery():
    """Returns a gallery of three stickers in two packs."""
    return ToyGallery(
        GallerySticker(
            id=name, picture=picture(colour), pack=pack, name=f"a {colour} square",
            tags=(colour,), words="", language="", media_type="image/png",
            intentions={"joy": 0.9, "sadness": 0.1},
        )
        for name, colour, pack in (
            ("a", "gold", "warm"), ("b", "crimson", "warm"), ("c", "teal", "冷"),
        )
    )  # fmt: skip


def ids(answer):
    """Returns the ids of an answer's stickers, the best first."""
    assert answer.status_code == 200, answer.text
    return [one["sticker"]["id"] for one in answer.json()["stickers"]]
