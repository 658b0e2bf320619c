"""What a training step of the demo costs under the alternatives to its frozen text layers.

    python -m benchmarks.demo_alternatives --prepared_dir=DIR --workdir=DIR

Each alternative is the demo preset with one key changed. All are compiled first; then their steps
are timed in turn, so that a slow moment of the machine falls on all of them alike. The cache of the
frozen layers' output is timed once, as the demo pays it.
"""

import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import app, flags

from configs import int_ra
from int_ra_jax.common.log import set_up_console

_PREPARED = flags.DEFINE_string("prepared_dir", None, "Prepared directory.", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Emptied and written to.", required=True)
_STEPS = flags.DEFINE_integer("steps", 7, "Timed steps of each alternative.")

ALTERNATIVES: dict[str, dict[str, Any]] = {
    "demo": {},
    "text: frozen wholly, not cached": {"train.cache_frozen": False},
    "text: last layer trains, cached": {"model.text.frozen_layers": 5},
    "text: last layer trains, not cached": {
        "model.text.frozen_layers": 5,
        "train.cache_frozen": False,
    },
    "text tower trains wholly": {"model.text.frozen_layers": 0},
}


def prepare(name: str, changes: dict[str, Any]) -> tuple[Callable[[], float], float]:
    """Returns a function that times one step in seconds, and the seconds its cache took."""
    # Here, because they load tensorflow, which the device-only benchmarks do without.
    from int_ra_jax.data.batches import make_batches
    from int_ra_jax.training import loop, resident

    config = int_ra.get_config("demo")
    with config.unlocked():
        config.update_from_flattened_dict(changes)
        config.data.prepared_dir = _PREPARED.value
        config.data.tfds_dir = str(Path(_WORKDIR.value) / "tfds")
    workdir = Path(_WORKDIR.value) / name.replace(" ", "_").replace(":", "")
    shutil.rmtree(workdir, ignore_errors=True)
    trainer = loop.prepare(config, workdir)
    run = trainer.run
    with run.checkpoints() as checkpoints:
        state, _ = loop.start(trainer, checkpoints)
    begin = time.monotonic()
    trainer.resident = resident.build(run, state.params, trainer.placement)
    jax.block_until_ready(trainer.resident)
    cached = time.monotonic() - begin
    batches = make_batches(
        run.dataset, run.tokenizer, config.text, "train", config.train.batch_size, config.seed
    )
    holder = [state]

    def step() -> float:
        batch = loop.place(next(batches), trainer.mesh)
        start = time.monotonic()
        holder[0], metrics = trainer.train_step(holder[0], batch, trainer.resident)
        jax.block_until_ready(metrics)
        return time.monotonic() - start

    step()  # compiles
    return step, cached


def main(argv: Sequence[str]) -> None:
    """Prints a table: milliseconds a step (median), the ratio to the demo, seconds of caching."""
    del argv
    set_up_console()
    prepared = {name: prepare(name, changes) for name, changes in ALTERNATIVES.items()}
    times: dict[str, list[float]] = {name: [] for name in prepared}
    for _ in range(_STEPS.value):
        for name, (step, _) in prepared.items():
            times[name].append(step())
    median = {name: statistics.median(values) for name, values in times.items()}
    device = jax.devices()[0].device_kind
    print(f"\n{device}, {jax.local_device_count()} device(s), median of {_STEPS.value} steps")
    print(f"{'alternative':38s} {'ms/step':>9s} {'x demo':>7s} {'cache s':>8s}")
    for name, value in median.items():
        ratio = value / median["demo"]
        print(f"{name:38s} {1000 * value:9.0f} {ratio:7.2f} {prepared[name][1]:8.1f}")


if __name__ == "__main__":
    app.run(main)
