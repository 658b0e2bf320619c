"""The one training loop: batch, step, log, validate, save.

Start order, logged: the workdir's newest complete checkpoint > checkpoint.resume_from > pretrained
towers > random. A batch is f(seed, step), so a killed run continues with the same bits.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from int_ra_jax.common import config as configuration
from int_ra_jax.common import hosts
from int_ra_jax.common import phases as phase
from int_ra_jax.common.log import MetricLog, Phases, log_start
from int_ra_jax.common.params import flatten, replace_leaves
from int_ra_jax.common.types import Batch, Resident
from int_ra_jax.data.batches import Buckets, make_batches, measure
from int_ra_jax.data.text import Unread, context_length
from int_ra_jax.evaluation.judge import judge, validate
from int_ra_jax.models import registry
from int_ra_jax.models.interface import Params, split
from int_ra_jax.run import workdir as runs
from int_ra_jax.run.checkpoint import Checkpoints
from int_ra_jax.run.compiled_programs import kept_programs
from int_ra_jax.run.encode import Encoder
from int_ra_jax.run.workdir import PRIMARY_METRIC, Run
from int_ra_jax.training import optim, resident, sharding
from int_ra_jax.training.create import create_workdir
from int_ra_jax.training.preemption import PreemptionGuard
from int_ra_jax.training.profiler import PROFILE, ProfileWindow
from int_ra_jax.training.standardise import measured
from int_ra_jax.training.step import TrainState, TrainStep, create_state, make_train_step

_SHOWN = ("train/loss/total", "train/loss/retrieval", "train/intention/accuracy")


class NotFiniteError(FloatingPointError):
    """The loss or a gradient was not finite; the message names the step."""


@dataclasses.dataclass
class Trainer:
    """What the loop works with, assembled once by ``prepare``."""

    run: Run
    mesh: Mesh
    total_steps: int
    optimizer: optax.GradientTransformation
    trainable: frozenset[str]
    train_step: TrainStep
    abstract_state: TrainState
    encoder: Encoder
    unread: Unread
    buckets: Buckets | None = None
    resident: Resident | None = None

    @property
    def stale(self) -> bool:
        """Whether gallery columns are read from embeddings that are refreshed now and then."""
        negatives = self.run.system.negatives
        return bool(negatives.bank and not negatives.live)

    @property
    def placement(self) -> hosts.Placement:
        """Where batches lie, and which of their rows this process reads."""
        return sharding.placement(self.mesh)


def train(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Trains a system until its epochs, ``train.max_steps`` or a SIGTERM, and saves.

    Several processes call it together, each with its own devices; all return the same.

    Args:
      config: validated configuration.
      workdir: of the run; continued where it holds a checkpoint of the same configuration.

    Returns:
      The metrics of the last validation (empty where there was none).

    Raises:
      NotFiniteError: at the first step whose loss or gradient is not finite, after saving nothing
        of it; the last good checkpoint stays.
      ValueError: if the workdir or a checkpoint belongs to another configuration.
    """
    with kept_programs(config.train.compilation_cache, workdir):
        return _train(config, workdir, time.monotonic())


def _train(config: ConfigDict, workdir: Path, began: float) -> dict[str, float]:
    phases = Phases(workdir)
    with phases(phase.OPEN):
        trainer = prepare(config, workdir)
    run = trainer.run
    with PreemptionGuard() as guard, run.checkpoints() as checkpoints, hosts.announced():
        with phases(phase.PARAMETERS):
            state, resumed = start(trainer, checkpoints)
        with phases(phase.FROZEN_CACHE):
            placement = trainer.placement
            kept = trainer.resident = resident.build(run, state.params, placement)
            trainer.encoder = Encoder(run, kept.bank, kept.labels, placement)
            judged = judge(run, "valid", selection_protocol(config.eval.protocol))
            cached = kept.context_hidden is not None
            hidden = trainer.encoder.hidden(state.params, "valid") if cached else None
        first = int(state.step)
        stop = min(trainer.total_steps, config.train.max_steps or trainer.total_steps)
        batches = make_batches(
            run.dataset, run.tokenizer, config.text, "train", config.train.batch_size,
            config.seed, first, placement.share, placement.shares, trainer.buckets,
            run.composed("train"),
        )  # fmt: skip
        eval_steps = config.train.eval_steps or stop
        save_steps = config.checkpoint.steps or eval_steps
        refresh_steps = run.system.negatives.refresh_steps
        results: dict[str, float] = {}
        with (
            phases(phase.TRAINING),
            MetricLog(
                workdir, stop, batch_size=config.train.batch_size,
                resume_step=first if resumed else None, tensorboard=config.log.tensorboard,
            ) as log,
            ProfileWindow(config.log.profile_steps, workdir / PROFILE) as profile,
        ):  # fmt: skip

            def fetch() -> Batch:
                with log.waiting():
                    batch = next(batches)
                return place(batch, trainer.mesh)

            upcoming: Any = fetch() if first < stop else None
            for step in range(first + 1, stop + 1):
                if trainer.stale and (step - 1) % refresh_steps == 0:
                    state = refresh(trainer, state)
                profile.before(step)
                state, metrics = trainer.train_step(state, upcoming, trainer.resident)
                norms = metrics.pop("leaf_gradient_norms")
                if step < stop:  # while the device works on this one
                    upcoming = fetch()
                profile.after(step, metrics)
                if step == first + 1:
                    warn_without_gradient(norms)
                    log.first_step(step, time.monotonic() - began)
                validated = None
                # Read once: a signal that arrives from here on is the next step's.
                interrupted = guard.agreed()
                last = step == stop or interrupted
                if step % config.train.log_steps == 0 or last:
                    check_finite(state, checkpoints)
                    named = {f"train/{k}": v for k, v in metrics.items()}
                    log.write(step, named, show=[name for name in _SHOWN if name in named])
                if step % eval_steps == 0 or step == stop:
                    check_finite(state, checkpoints)
                    with log.untimed():
                        validated = results = validate(
                            trainer.encoder, state.evaluated_params, judged, "valid", hidden
                        )
                    named = {f"valid/retrieval/{k}": v for k, v in validated.items()}
                    log.write(step, named, show=tuple(named))
                if step % save_steps == 0 or last or validated:
                    check_finite(state, checkpoints)
                    save(checkpoints, run, state, step, validated)
                if interrupted:
                    logging.info("stopped by a signal after step %d; start again to go on", step)
                    break
    return results


def selection_protocol(protocol: str) -> str:
    """Returns what the validation of a training is judged by, whose best checkpoint is kept.

    Never ``paper``, which reads test labels. Where only the sticker that was sent is right, that is
    also what a run is selected by.
    """
    return "exact" if protocol == "exact" else "multi"


def _measured(run: Run) -> tuple[np.ndarray, Unread]:
    """Returns how long train's conversations are and what is not read, as another run left them."""
    if composed := run.composed("train"):
        return composed.lengths, composed.unread

    def compute() -> dict[str, np.ndarray]:
        lengths, unread = measure(run.dataset, run.tokenizer, run.config.text, "train")
        return {"lengths": lengths, "unread": unread.to_array()}

    def sources() -> Iterator[str | bytes]:
        yield from run.texts("train")
        yield from run.code(("data/batches.py",))

    kept = run.shared.get_all("lengths-train", sources, compute)
    return np.asarray(kept["lengths"]), Unread.from_array(np.asarray(kept["unread"]))


def prepare(config: ConfigDict, workdir: Path) -> Trainer:
    """Opens the workdir and compiles nothing yet; every problem of the config shows here."""
    mesh = sharding.make_mesh(dict(config.mesh))
    sharding.check_batch_size(config.train.batch_size, mesh)
    run = create_workdir(config, workdir)
    system = run.system
    total_steps = configuration.total_steps(config, run.dataset.size("train"))
    optimizer, info = optim.make_optimizer(
        config.optim, run.abstract_params, system.param_groups(),
        total_steps=total_steps, frozen=system.frozen_patterns(),
    )  # fmt: skip
    for line in optim.describe(info).splitlines():
        logging.info("%s", line)
    negatives = system.negatives
    stale = negatives.bank and not negatives.live
    bank_shape = (len(run.dataset.stickers), system.embedding_width) if stale else None
    averaged = info.trainable if config.train.ema_decay else frozenset()
    abstract = jax.eval_shape(
        lambda params: create_state(params, optimizer, config.seed, bank_shape, averaged),
        run.abstract_params,
    )
    shardings = sharding.state_shardings(abstract, mesh, system.sharding_rules)
    abstract = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        abstract, shardings,
    )  # fmt: skip
    step = jax.jit(
        make_train_step(
            run.graphdef, optimizer, info.trainable,
            micro_batches=config.train.micro_batches, ema_decay=config.train.ema_decay,
            gather=sharding.gather_for_use(shardings.params, mesh),
        ),
        in_shardings=(shardings, sharding.batch_sharding(mesh), sharding.replicated(mesh)),
        out_shardings=(shardings, sharding.replicated(mesh)),
        donate_argnums=0,
    )  # fmt: skip
    lengths, unread = _measured(run)
    buckets = None
    if config.train.bucket_tokens:
        widest = context_length(config.text, run.dataset.has_knowledge)
        multiple, window = config.train.bucket_tokens, config.train.bucket_batches
        buckets = Buckets(lengths, multiple=multiple, window=window, widest=widest)
    encoder = Encoder(run, placement=sharding.placement(mesh))
    return Trainer(
        run, mesh, total_steps, optimizer, info.trainable, step, abstract, encoder, unread,
        buckets,
    )  # fmt: skip


def start(trainer: Trainer, checkpoints: Checkpoints) -> tuple[TrainState, bool]:
    """Returns the first state and whether it continues a run; logs where it came from."""
    run, config = trainer.run, trainer.run.config
    resumed = not checkpoints.empty
    if resumed:
        state, step = checkpoints.restore_intact("latest", trainer.abstract_state, accept=run.check)
        origin = f"checkpoint of step {step} in {run.workdir}"
    elif config.checkpoint.resume_from:
        other = runs.open_run(Path(config.checkpoint.resume_from))
        params, step = other.restore_best(trainer.abstract_state.params)
        state, origin = _new(trainer, params), f"{config.checkpoint.resume_from}, step {step}"
    else:
        params, origin = initial_params(trainer)
        state = _new(trainer, params)
    sizes = {path: int(np.prod(leaf.shape)) for path, leaf in flatten(state.params).items()}
    trained = sum(size for path, size in sizes.items() if path in trainer.trainable)
    log_start(
        mesh=trainer.mesh,
        batch_size=config.train.batch_size,
        total_steps=trainer.total_steps,
        parameters={"all": (sum(sizes.values()), trained)},
        notes={"starts from": origin, **_data_notes(run, trainer.unread)},
    )
    return state, resumed


def initial_params(trainer: Trainer) -> tuple[Params, str]:
    """Returns random parameters, with the pretrained towers' in their place, and their origin.

    What a checkpoint lacks, such as the low-rank updates of a tower, stays as it was drawn. Each
    array is created, or read from host memory, in the parts that the devices hold.
    """
    run, config = trainer.run, trainer.run.config
    shardings = jax.tree.map(lambda leaf: leaf.sharding, trainer.abstract_state.params)
    loaded, origins = _pretrained(config, where := flatten(shardings))
    kept = {path: place for path, place in where.items() if path not in loaded}

    def drawn(key: jax.Array) -> dict[str, jax.Array]:
        # What is not returned, of a pretrained tower, is not drawn either: most of the time.
        leaves = flatten(registry.initialise(config, run.facts, key))
        return {path: leaves[path] for path in kept}

    # The key is an argument, so that another seed finds the program compiled.
    random = sharding.create_sharded(drawn, kept, jax.random.key(config.seed))
    params = measured(run, replace_leaves(shardings, {**random, **loaded}), trainer.placement)
    return params, " and ".join([*origins, "random for the rest"])


def _pretrained(
    config: ConfigDict, where: Mapping[str, NamedSharding]
) -> tuple[dict[str, jax.Array], list[str]]:
    """Returns the pretrained towers' parameters by name, and where each tower came from."""
    text, image, size = config.model.text.source, config.model.image.source, config.data.image_size
    loaded, origins = dict[str, jax.Array](), list[str]()
    if not text and not image:
        return loaded, origins
    from int_ra_jax.models.towers.pretrained import load_image_tower, load_text_tower

    for name, source, load in (
        ("text", text, load_text_tower),
        ("image", image, lambda source: load_image_tower(source, image_size=size)),
    ):
        if not source:
            continue
        with _in_host_memory():
            leaves = flatten({name: split(load(source))[1]})
        loaded |= {path: hosts.put(np.asarray(leaf), where[path]) for path, leaf in leaves.items()}
        origins.append(f"{name} tower {source}")
    return loaded, origins


def refresh(trainer: Trainer, state: TrainState) -> TrainState:
    """Encodes the gallery again, for the columns through which no gradient flows."""
    embedding = trainer.encoder.gallery(state.params).embedding
    target = trainer.abstract_state.bank_embedding.sharding
    return dataclasses.replace(state, bank_embedding=jax.device_put(embedding, target))


def place(batch: Batch, mesh: Mesh) -> Batch:
    """Puts this process's rows of a batch where the step wants them."""
    return sharding.placement(mesh).place(batch)


def save(
    checkpoints: Checkpoints,
    run: Run,
    state: TrainState,
    step: int,
    metrics: dict[str, float] | None,
) -> None:
    """Starts an asynchronous save of everything the next step depends on."""
    metadata = {"fingerprint": run.fingerprint, "step": step}
    if checkpoints.save(step, state, metrics=metrics, metadata=metadata):
        note = "" if metrics is None else f", valid {PRIMARY_METRIC} {metrics[PRIMARY_METRIC]:.4f}"
        logging.info("checkpoint of step %d%s", step, note)


def check_finite(state: TrainState, checkpoints: Checkpoints) -> None:
    """Raises if a step was not finite; parameters have not moved since then."""
    bad = int(state.bad_step)
    if bad >= 0:
        checkpoints.wait()
        kept = checkpoints.latest_step()
        raise NotFiniteError(
            f"loss or gradient was not finite at step {bad + 1}. "
            + (f"The checkpoint of step {kept} is kept" if kept else "No checkpoint exists yet")
            + "; lower --config.optim.lr, or set --config.optim.clip_norm=1."
        )


def warn_without_gradient(norms: dict[str, jax.Array]) -> None:
    """Lists the trainable parameters that this configuration leaves without any gradient."""
    dead = sorted(path for path, norm in jax.device_get(norms).items() if norm == 0)
    if dead:
        logging.warning("no gradient reaches %d parameters: %s", len(dead), ", ".join(dead))


def _new(trainer: Trainer, params: Params) -> TrainState:
    shape = trainer.abstract_state.bank_embedding
    bank_shape = None if shape is None else tuple(shape.shape)
    seed = trainer.run.config.seed
    shardings = jax.tree.map(lambda leaf: leaf.sharding, trainer.abstract_state)
    averaged = trainer.trainable if trainer.run.config.train.ema_decay else frozenset()

    def new(params: Params) -> TrainState:
        # Copied: the state is donated to the first step, and must not alias the caller's arrays.
        copied = jax.tree.map(jnp.copy, params)
        return create_state(copied, trainer.optimizer, seed, bank_shape, averaged)

    return jax.jit(new, out_shardings=shardings)(params)


def _in_host_memory() -> Any:
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX_PLATFORMS names accelerators only
        return contextlib.nullcontext()


def _data_notes(run: Run, unread: Unread) -> dict[str, Any]:
    knowledge = "present" if run.dataset.has_knowledge else "none in this data set"
    return {
        "data": f"{run.dataset.name}: {run.dataset.size('train')} training conversations, "
        f"{len(run.dataset.stickers)} stickers, {len(run.dataset.intentions)} intentions",
        "knowledge": knowledge if run.config.text.knowledge == "append" else "switched off",
        **unread.notes(run.config.text.emoji),
    }
