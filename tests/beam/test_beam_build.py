"""Records built by Apache Beam are those built here; needs `make test-beam`."""

import pytest

pytest.importorskip("apache_beam", reason="Beam has an environment of its own: make test-beam")

from fixtures.prepared import make_prepared_directory

from int_ra_jax.data import chunks, schema
from int_ra_jax.data.sticker_int import prepare
from int_ra_jax.data.validation import PreparedDataError


@pytest.mark.parametrize(
    "options",
    [
        ("--runner=DirectRunner",),
        # Two processes: whatever a worker needs has to travel there.
        (
            "--runner=DirectRunner",
            "--direct_num_workers=2",
            "--direct_running_mode=multi_processing",
        ),
    ],
    ids=["one process", "two processes"],
)
def test_records_are_those_of_a_build_without_beam(options, tmp_path, monkeypatch):
    monkeypatch.setattr(chunks.cut, "__defaults__", (7,))  # many chunks
    directory = make_prepared_directory(tmp_path / "d", num_conversations=60)
    here = prepare(directory, tmp_path / "here")
    beam = prepare(directory, tmp_path / "beam", options)
    assert beam.content_hash == here.content_hash
    assert (beam.intentions, beam.info) == (here.intentions, here.info)
    for split in schema.SPLITS:
        assert beam.conversations(split) == here.conversations(split)
    assert beam.stickers == here.stickers
    assert [beam.image(row) for row in range(12)] == [here.image(row) for row in range(12)]


def test_a_directory_with_problems_starts_no_pipeline(tmp_path):
    directory = make_prepared_directory(tmp_path / "d", num_conversations=6)
    (directory / "intentions.txt").write_text("joy\n")
    with pytest.raises(PreparedDataError, match="unknown intention"):
        prepare(directory, tmp_path / "beam", ("--runner=DirectRunner",))
    assert not (tmp_path / "beam").exists()
