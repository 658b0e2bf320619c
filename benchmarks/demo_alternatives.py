"""What a training step of the demo costs under the alternatives to its frozen text layers.

    python -m benchmarks.demo_alternatives --prepared_dir=DIR --workdir=DIR [--steps=7] [--out=FILE]

Each alternative is the demo preset with one or two keys changed. All are compiled first; then their
steps are timed in turn, so that a slow moment of the machine falls on all of them alike. The cache
of the frozen layers' output is timed once, as the demo pays for it.
"""

import argparse
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from benchmarks import command
from configs import int_ra
from int_ra_jax.common.log import set_up_console

ALTERNATIVES: dict[str, dict[str, Any]] = {
    "demo": {},
    "text: the whole tower frozen, not cached": {"train.cache_frozen": False},
    "text: last layer trains, cached": {"model.text.frozen_layers": 5},
    "text: last layer trains, not cached": {
        "model.text.frozen_layers": 5,
        "train.cache_frozen": False,
    },
    "the whole text tower trains": {"model.text.frozen_layers": 0},
}


def prepare(
    name: str, changes: dict[str, Any], prepared_dir: Path, folder: Path
) -> tuple[Callable[[], float], float]:
    """Returns a function that times one step in seconds, and the seconds its cache took.

    Args:
      name: of the alternative.
      changes: key of the config -> value.
      prepared_dir: of the data.
      folder: takes the records and a workdir named after the alternative, which is emptied.
    """
    # Here, because they load tensorflow, which the device-only benchmarks do without.
    from int_ra_jax.data.batches import make_batches
    from int_ra_jax.training import loop, resident

    config = int_ra.get_config("demo")
    with config.unlocked():
        config.update_from_flattened_dict(changes)
        config.data.prepared_dir = str(prepared_dir)
        config.data.tfds_dir = str(folder / "tfds")
    workdir = folder / name.replace(" ", "_").replace(":", "")
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

    def step() -> float:
        nonlocal state
        batch = loop.place(next(batches), trainer.mesh)
        start = time.monotonic()
        state, metrics = trainer.train_step(state, batch, trainer.resident)
        jax.block_until_ready(metrics)
        return time.monotonic() - start

    step()  # compiles
    return step, cached


def main() -> None:
    """Prints a table: milliseconds a step (median), the ratio to the demo, seconds of caching."""
    arguments = _parse()
    set_up_console()
    prepared = {
        name: prepare(name, changes, arguments.prepared_dir, arguments.workdir)
        for name, changes in ALTERNATIVES.items()
    }
    times: dict[str, list[float]] = {name: [] for name in prepared}
    for _ in range(arguments.steps):
        for name, (step, _) in prepared.items():
            times[name].append(step())
    median = {name: statistics.median(values) for name, values in times.items()}
    rows = [
        {
            "alternative": name,
            "ms/step": f"{1000 * median[name]:.0f}",
            "x demo": f"{median[name] / median['demo']:.2f}",
            "cache s": f"{cached:.1f}",
        }
        for name, (_, cached) in prepared.items()
    ]
    text = (
        f"{jax.devices()[0].device_kind}, {jax.local_device_count()} device(s), median of "
        f"{arguments.steps} steps\n\n{command.table(rows)}"
    )
    caches = {name: cached for name, (_, cached) in prepared.items()}
    command.publish(arguments, text, seconds=times, cache_seconds=caches)


def _parse() -> argparse.Namespace:
    parser = command.parser(__doc__)
    parser.add_argument("--prepared_dir", type=Path, required=True, help="prepared directory")
    parser.add_argument("--workdir", type=Path, required=True, help="emptied and written to")
    parser.add_argument("--steps", type=int, default=7, help="timed steps of each alternative")
    return parser.parse_args()


if __name__ == "__main__":
    main()
