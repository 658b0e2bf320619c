"""From ``model.name`` to a system; adding one takes a module with that class and a line here."""

import importlib
from dataclasses import replace

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from int_ra_jax.models.interface import Facts, Params, Setup, System, split
from int_ra_jax.models.towers.bert import BertModel
from int_ra_jax.models.towers.clip_vision import ClipVisionModel
from int_ra_jax.models.towers.lora import add_lora

# Imported when asked for, so that one system never loads another's code.
SYSTEMS: dict[str, str] = {
    "int_ra": "int_ra_jax.models.systems.int_ra:IntRA",
    "srs": "int_ra_jax.models.systems.srs:SRS",
    "irra": "int_ra_jax.models.systems.irra:IRRA",
    "pcme": "int_ra_jax.models.systems.pcme:PCME",
    "clip": "int_ra_jax.models.systems.clip:CLIP",
    "lgur": "int_ra_jax.models.systems.lgur:LGUR",
    "mod": "int_ra_jax.models.systems.mod:MOD",
}


class Keys(nnx.Rngs):
    """Draws the keys of ``nnx.Rngs(key)``, counted in Python instead of in an array.

    While a system is traced, NNX asks a counter for its sharding at each draw, and JAX answers with
    an error that prints the whole program so far: most of the time of opening a run.

    Args:
      key: a scalar ``jax.random.key``.
    """

    def __init__(self, key: jax.Array) -> None:
        super().__init__()
        self.key = key
        self.drawn = 0

    def params(self) -> jax.Array:
        """Returns the next key for initial parameters."""
        self.drawn += 1
        return jax.random.fold_in(self.key, self.drawn - 1)


def build(config: ConfigDict, facts: Facts, rngs: nnx.Rngs) -> System:
    """Builds the system of ``config.model.name`` with random parameters."""
    model = config.model
    module, name = SYSTEMS[model.name].split(":")
    dtype, rate = jnp.dtype(model.dtype), model.dropout
    text = replace(facts.text, hidden_dropout_prob=rate, attention_probs_dropout_prob=rate)
    towers = (
        BertModel(text, dtype=dtype, rngs=rngs),
        ClipVisionModel(facts.image, dtype=dtype, rngs=rngs),
    )
    setup = Setup(*towers, config, facts, rngs)
    system: System = getattr(importlib.import_module(module), name)(setup)
    # Last, so that the other parameters are drawn as they are without LoRA.
    if model.text.lora_rank:
        add_lora(towers[0], model.text.lora_rank, model.text.lora_alpha, rngs)
    if model.image.lora_rank:
        add_lora(towers[1], model.image.lora_rank, model.image.lora_alpha, rngs)
    for tower in towers:
        tower.remat = model.remat
    return system


def abstract(config: ConfigDict, facts: Facts) -> tuple[nnx.GraphDef, Params]:
    """Returns the structure and the shapes of a system, without computing any parameter."""
    return split(nnx.eval_shape(lambda: build(config, facts, Keys(jax.random.key(0)))))  # type: ignore[arg-type]


def initialise(config: ConfigDict, facts: Facts, key: jax.Array) -> Params:
    """Returns random parameters; may be jitted, and is one program whatever the key.

    Args:
      config: of the system.
      facts: of the data set and the towers.
      key: a scalar ``jax.random.key``, of ``config.seed`` in a training.
    """
    return split(build(config, facts, Keys(key)))[1]  # type: ignore[arg-type]
