"""What the addresses answer."""

import asyncio
import base64
import io
import json

import hypothesis
import numpy as np
import pytest
from PIL import Image
from serving.toy_service import ASKED, KEY, LIMITS, ToyRetriever, ids, picture, toy_gallery

from int_ra_jax.retrieval import whether
from int_ra_jax.serving import modes, schemas
from int_ra_jax.serving.service import Service

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_a_reply_has_stickers_pictures_and_reasons(client):
    answer = client.post("/v1/reply", json=ASKED).json()
    assert (answer["intention"], answer["tokens"], answer["eligible"]) == ("joy", 3, 9)
    first = answer["stickers"][0]
    assert (first["rank"], first["score"], first["sticker"]["pack"]) == (1, 1.0, "warm")
    assert first["why"] == {"intention": "joy", "matched": ["gold", "a gold square"]}
    shown = client.get(first["sticker"]["picture"])
    assert shown.content == picture("gold") and shown.headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    ("own_words", "typed", "found"),
    [(False, False, 0.25), (False, True, 0.25), (True, True, 0.25), (True, False, None)],
)
def test_a_reply_says_how_likely_a_sticker_is_at_all(own_words, typed, found):
    weights = np.zeros(whether.width(own_words), np.float32)
    model = whether.Whether(weights, -np.log(3.0), own_words, threshold=0.3, base_rate=0.3)
    service = Service(ToyRetriever(toy_gallery()), LIMITS, whether=model)
    turns = ASKED["turns"] + [{"speaker": "bo", "text": "me too"}] * typed
    asked = schemas.ReplyIn.model_validate(ASKED | {"turns": turns})
    assert asyncio.run(service.reply(asked)).whether == pytest.approx(found)
    service.close()


def test_whether_is_read_from_the_workdir(client, tmp_path):
    assert client.post("/v1/reply", json=ASKED).json()["whether"] is None
    assert modes._whether(tmp_path) is None
    weights = np.zeros(whether.width(False), np.float32)
    whether.Whether(weights, 0.0, False, 0.3, 0.3).save(tmp_path / "whether.npz")
    assert modes._whether(tmp_path).probability(whether.Moment(("hi",))) == 0.5
    (tmp_path / "whether.npz").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"whether\.npz cannot be read"):
        modes._whether(tmp_path)


def test_filters_reach_every_question(client):
    for limited in (
        {"packs": ["冷"]},
        {"packs": ["冷"], "top_k": 1, "adult": True},
        {"without_packs": ["warm", "of nobody"]},
    ):
        assert ids(client.post("/v1/reply", json=ASKED | limited)) == ["c"]
        assert ids(client.post("/v1/search", json={"words": "teal"} | limited)) == ["c"]
        assert ids(client.get("/v1/similar/a", params=limited)) == ["c"]
    assert ids(client.post("/v1/reply", json=ASKED | {"exclude": ["a"], "top_k": 1})) == ["b"]
    assert ids(client.post("/v1/reply", json=ASKED | {"exclude": ["a"], "variety": 0.5})) == [
        "b",
        "c",
    ]
    assert ids(client.post("/v1/reply", json=ASKED | {"packs": []})) == []
    assert ids(client.get("/v1/similar/a", params={"top_k": 2})) == ["b", "c"]


def test_where_the_attributes_of_a_sticker_look_is_told_as_overlays(client):
    said = json.dumps({"attributes": {"facial": "a smile"}})
    form = {"picture": ("a.png", picture("navy"))}
    assert client.put("/v1/stickers/n", files=form, data={"sticker": said}).status_code == 200
    (look,) = client.get("/v1/stickers/n/attention").json()["attributes"].items()
    assert (look[0], look[1]["text"], look[1]["peak"]) == ("facial", "a smile", 4.0)
    kind, _, coded = look[1]["overlay"].partition(",")
    assert kind == "data:image/png;base64"
    overlay = np.asarray(Image.open(io.BytesIO(base64.b64decode(coded))).convert("RGBA"))
    middle = len(overlay) // 2
    assert overlay[:middle, :middle, 3].max() < overlay[-1, -1, 3]  # the corner alone is hot
    none = {"attributes": {}, "middle_square": False}
    assert client.get("/v1/stickers/a/attention").json() == none
    assert client.get("/v1/stickers/none/attention").status_code == 404
    client.patch("/v1/stickers/n", json={"hidden": True})
    others = {"headers": {"Authorization": ""}}
    assert client.get("/v1/stickers/n/attention", **others).status_code == 404


def test_counts_name_routes_and_no_stickers(client):
    client.get("/v1/stickers/a"), client.get("/v1/stickers/b"), client.post("/v1/reply", json=ASKED)
    counts = client.get("/metrics").text
    assert 'route="/v1/stickers/{id}",status="200"} 2.0' in counts
    assert "int_ra_batch_size_count 1.0" in counts and "int_ra_stickers 3.0" in counts


def test_the_page_of_addresses_needs_no_other_website(client):
    page = client.get("/docs").text
    assert "swagger" in page and "https://" not in page.replace("http://127.0.0.1", "")
    described = client.get("/openapi.json").json()
    paths = {path: set(methods) for path, methods in described["paths"].items()}
    assert paths["/v1/stickers/{id}"] == {"get", "put", "patch", "delete"}
    assert paths["/v1/packs/{name}"] == {"get", "put", "delete"}
    assert {"/v1/reply", "/v1/search", "/v1/similar/{id}", "/v1/model", "/readyz"} <= set(paths)


def test_what_the_description_says_holds_for_drawn_requests(client, service):
    schemathesis = pytest.importorskip("schemathesis", reason="draws requests; not installed")
    here = {"Host": "127.0.0.1"}
    schema = schemathesis.openapi.from_asgi("/openapi.json", client.app, headers=here)
    statuses = []
    few = hypothesis.settings(
        max_examples=4, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    for found in schema.get_all_operations():

        @few
        @hypothesis.given(case=found.ok().as_strategy())
        def check(case):
            answer = case.call(headers=here | {"Authorization": f"Bearer {KEY}"})
            statuses.append(answer.status_code)
            assert answer.status_code < 500, answer.content[:500]
            if answer.status_code >= 400:
                assert answer.headers["content-type"] == ["application/problem+json"]

        check()
    assert {200, 422} <= set(statuses)
