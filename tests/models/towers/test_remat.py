import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures.tiny_towers import TINY_BERT, TINY_CLIP
from flax import nnx
from jax.ad_checkpoint import print_saved_residuals

from configs import int_ra
from int_ra_jax.common.params import flatten
from int_ra_jax.models import interface, registry
from int_ra_jax.models.towers.bert import BertConfig, BertModel
from int_ra_jax.models.towers.clip_vision import ClipVisionConfig, ClipVisionModel

DEEP = BertConfig(64, 32, 4, 2, 128, max_position_embeddings=64)
DEEP_IMAGE = ClipVisionConfig(32, 128, 4, 2, image_size=32, patch_size=8)


def compiled_gradient(tower, *arguments, **options):
    """Compiles value and gradient of a tower; returns the program and the tower's parameters."""
    graphdef, params = nnx.split(tower)

    def loss(params, *arguments):
        tokens = nnx.merge(graphdef, params)(*arguments, **options)
        return (tokens**2 * jnp.arange(tokens.size).reshape(tokens.shape)).mean()

    lowered = jax.jit(jax.value_and_grad(loss)).lower(params, *arguments)
    # The scheduler that a CPU has by default would compute everything again as early as it can.
    return lowered.compile(
        {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    ), params


def towers(kind):
    """Returns the same tower without and with rematerialisation, and something to encode."""
    if kind == "text":
        build, shape = BertModel, DEEP
        ids = jnp.asarray(np.random.default_rng(0).integers(0, 64, (4, 32)), jnp.int32)
        inputs, options = (ids, ids > 5, ids % 2), {"key": jax.random.key(0)}
    else:
        build, shape, options = ClipVisionModel, DEEP_IMAGE, {}
        inputs = (jax.random.normal(jax.random.key(0), (8, 32, 32, 3)),)
    plain, recomputed = (build(shape, rngs=nnx.Rngs(0)) for _ in range(2))
    recomputed.remat = True
    return plain, recomputed, inputs, options


@pytest.mark.parametrize("kind", ["text", "image"])
def test_rematerialisation_changes_no_gradient(kind):
    plain, recomputed, inputs, options = towers(kind)
    program, params = compiled_gradient(plain, *inputs, **options)
    lean, _ = compiled_gradient(recomputed, *inputs, **options)
    (loss, gradients), (lean_loss, lean_gradients) = program(params, *inputs), lean(params, *inputs)
    np.testing.assert_allclose(lean_loss, loss, rtol=1e-6)
    for (name, ours), wanted in zip(
        flatten(lean_gradients).items(), flatten(gradients).values(), strict=True
    ):
        np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=2e-5, err_msg=name)
    if kind == "text":  # in the image tower a CPU's scheduler gives most of it away again
        used, needed = (x.memory_analysis().temp_size_in_bytes for x in (program, lean))
        assert needed < 0.6 * used, (needed, used)


@pytest.mark.parametrize("kind", ["text", "image"])
def test_what_is_kept_of_a_layer_is_its_input(kind, capsys):
    _, tower, inputs, options = towers(kind)
    mask = inputs[1:2] if kind == "text" else ()
    hidden = tower.prefix(*inputs, 0)
    layers = tower.encoder.layer if kind == "text" else tower.encoder.layers
    arguments = (*mask, options.get("key")) if kind == "text" else ()

    def loss(hidden):
        return tower.run(layers, hidden, 0, len(layers), lambda index: arguments).sum()

    print_saved_residuals(loss, hidden)
    kept = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert [shape for shape in kept if shape.startswith(f"f32[{hidden.shape[0]},")] == [
        f"f32[{','.join(map(str, hidden.shape))}]"
    ] * len(layers)


def test_the_config_switches_it_on_in_both_towers():
    for remat in (False, True):
        config = int_ra.get_config("smoke")
        config.model.remat = remat
        facts = interface.Facts(
            TINY_BERT,
            TINY_CLIP,
            3,
            12,
            (1, 1, 1),
            interface.SpecialIds(0, 1, 2, 3),
        )
        system = interface.merge(*registry.abstract(config, facts))
        assert (system.text.remat, system.image.remat) == (remat, remat)
