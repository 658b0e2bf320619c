"""What an encoder computes once, it computes alike for every batch."""

import dataclasses

import jax
import numpy as np
from fixtures.trained import tiny_config

from int_ra_jax.models import registry
from int_ra_jax.models.interface import merge
from int_ra_jax.run.encode import Encoder
from int_ra_jax.training import create


def test_names_are_read_once_and_say_what_they_say_in_every_batch(trained, tmp_path, monkeypatch):
    config = tiny_config(
        trained.prepared, data__tfds_dir=str(trained.workdir / "tfds"),
        model__text__frozen_layers=-1,
    )  # fmt: skip
    run = create.create_workdir(config, tmp_path / "run")
    encoder = Encoder(run)
    params = registry.initialise(config, run.facts, jax.random.key(0))
    assert encoder.labels.hidden is None
    once = encoder.labels_read(params)
    assert once.hidden.shape[:2] == once.tokens.ids.shape
    read = encoder.contexts(params, "valid")
    anew = jax.jit(
        lambda params, batch: merge(run.graphdef, params).encode_context(
            dataclasses.replace(batch, labels=encoder.labels)
        )
    )
    given = []

    def noted(params, batch, labels):
        given.append(labels.hidden)
        return anew(params, batch)

    monkeypatch.setattr(encoder, "encode_context", noted)
    np.testing.assert_allclose(encoder.contexts(params, "valid").query, read.query, atol=1e-5)
    assert given and all(hidden is not None for hidden in given)
    known = dataclasses.replace(encoder.labels, hidden=once.hidden)
    assert Encoder(run, labels=known).labels_read(params) is known
