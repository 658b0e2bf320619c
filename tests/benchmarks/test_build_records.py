"""The generated directory is valid, and what runs it notices a failure."""

import pytest

from benchmarks import build_records
from int_ra_jax.data.validation import read_outline


def test_the_generated_directory_is_valid_and_of_the_size_asked_for(tmp_path):
    build_records.generate(tmp_path / "d", 50, 7)
    outline = read_outline(tmp_path / "d")
    assert sum(outline.sizes.values()) == 50
    assert len(outline.prepared.stickers) == 7


def test_memory_and_time_of_a_process_are_measured_and_a_failure_is_told(tmp_path):
    used = build_records.measured(["json.tool", "--help"])
    assert used.seconds > 0 and used.processor_seconds > 0
    assert used.peak_bytes > 2**20
    with pytest.raises(RuntimeError, match=r"No such file"):
        build_records.measured(["json.tool", str(tmp_path / "nothing.json")])
