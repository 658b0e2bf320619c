"""The loop waits for nothing that it need not wait for, and a restart finds what was compiled."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from fixtures.trained import read_jsonl, tiny_config
from jax._src import array as jax_array  # where every read of a device array passes
from jax.experimental.compilation_cache import compilation_cache

from int_ra_jax.run import compiled_programs
from int_ra_jax.run.compiled_programs import PROGRAMS, kept_programs
from int_ra_jax.training import loop
from int_ra_jax.training.loop import train
from int_ra_jax.training.profiler import PROFILE, ProfileWindow

PROFILED = (6, 8)


@pytest.fixture(scope="module")
def watched(trained, tmp_path_factory):
    """A run of 20 steps that logs every fifth, with what was read from the device at which step."""
    workdir = tmp_path_factory.mktemp("watched") / "run"
    config = tiny_config(
        trained.prepared, data__tfds_dir=str(trained.workdir / "tfds"), train__max_steps=20,
        train__log_steps=5, train__eval_steps=10, log__profile_steps=PROFILED,
    )  # fmt: skip
    now, reads, placed = [0], [], []
    value, prepare, place = jax_array.ArrayImpl._value, loop.prepare, loop.place

    def read(array):
        reads.append(now[0])
        return value.fget(array)

    def prepared(*arguments):
        trainer = prepare(*arguments)
        step = trainer.train_step

        def counted(*arguments):
            now[0] += 1
            return step(*arguments)

        trainer.train_step = counted
        return trainer

    def noted(batch, mesh):
        placed.append(now[0])
        return place(batch, mesh)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax_array.ArrayImpl, "_value", property(read))
        patch.setattr(loop, "prepare", prepared)
        patch.setattr(loop, "place", noted)
        train(config, workdir)
    return SimpleNamespace(workdir=workdir, reads=reads, placed=placed)


def test_the_device_is_read_only_where_the_loop_logs(watched):
    assert {step for step in watched.reads if step > 0} == {1, 5, 10, 15, 20}


def test_the_next_batch_is_placed_once_a_step_is_under_way(watched):
    assert watched.placed == list(range(20))


def test_the_first_step_and_the_waiting_are_on_record(watched, trained):
    record = read_jsonl(watched.workdir / "metrics.jsonl")
    assert [line["step"] for line in record if "perf/first_step_sec" in line] == [1]
    assert record[0]["perf/first_step_sec"] > 0
    shares = [line["perf/input_wait_share"] for line in record if "train/loss/total" in line]
    assert len(shares) == 4
    assert all(0 <= share < 1 for share in shares)


def test_the_profiler_records_its_window_and_nothing_else(watched, trained):
    assert list((watched.workdir / PROFILE).rglob("*.xplane.pb"))
    assert not (trained.workdir / PROFILE).exists()


@pytest.mark.parametrize(
    ("window", "steps", "expected"),
    [
        ((3, 4), range(1, 7), ["start", 3, 4, "wait", "stop"]),
        ((3, 3), range(1, 7), ["start", 3, "wait", "stop"]),
        ((3, 9), range(1, 5), ["start", 3, 4, "stop"]),  # the run ends inside
        ((3, 6), range(5, 9), ["start", 5, 6, "wait", "stop"]),  # it was resumed inside
        ((3, 4), range(5, 9), []),  # and here behind
        ((0, 0), range(1, 4), []),
    ],
)
def test_the_window_opens_and_closes_on_its_steps(monkeypatch, tmp_path, window, steps, expected):
    events = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda directory: events.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: events.append("stop"))
    monkeypatch.setattr(jax, "block_until_ready", lambda results: events.append("wait"))
    with ProfileWindow(window, tmp_path) as profile:
        for step in steps:
            profile.before(step)
            if events and events[-1] != "stop":
                events.append(step)
            profile.after(step, None)
    assert events == expected


@pytest.fixture
def no_cache():
    """Takes the tests' own cache of programs away for a while."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs",
             "jax_persistent_cache_min_entry_size_bytes")  # fmt: skip
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    compiled_programs._configure(before)


@pytest.fixture
def compiled(monkeypatch):
    """Counts programs that were found on disk and those that were not."""
    counts = {"hits": 0, "misses": 0}

    def listen(event, **_):
        for name in counts:
            counts[name] += event == f"/jax/compilation_cache/cache_{name}"

    jax.monitoring.register_event_listener(listen)
    yield counts
    jax.monitoring.unregister_event_listener(listen)


def test_a_second_start_compiles_nothing(trained, no_cache, compiled, tmp_path):
    config = tiny_config(
        trained.prepared, data__tfds_dir=str(trained.workdir / "tfds"), train__max_steps=2,
        train__compilation_cache=str(tmp_path / "programs"),
    )  # fmt: skip
    for name in ("first", "second"):
        jax.clear_caches()  # as in a new process
        compiled.update(hits=0, misses=0)
        train(config, tmp_path / name)
        if name == "first":
            assert compiled["misses"] > 10
    assert compiled["misses"] == 0
    assert compiled["hits"] > 10
    assert not (tmp_path / "first" / PROGRAMS).exists()


def test_programs_are_kept_where_the_config_says(no_cache, tmp_path):
    def compile_something(size):
        jax.jit(lambda x: jnp.tanh(x) * size)(jnp.ones(size)).block_until_ready()

    with kept_programs("workdir", tmp_path / "run"):
        compile_something(11)
    assert list((tmp_path / "run" / PROGRAMS).iterdir())
    with kept_programs(str(tmp_path / "shared"), tmp_path / "other"):
        compile_something(12)
    assert list((tmp_path / "shared").iterdir())
    with kept_programs("off", tmp_path / "off"):
        compile_something(13)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "shared"}
    assert jax.config.jax_compilation_cache_dir is None
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "set_already"))
    with kept_programs("workdir", tmp_path / "run2"):
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "set_already")
