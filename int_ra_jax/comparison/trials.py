"""What each system tries: drawn from its space with a seed, or suggested by Optuna's TPE sampler.

DIR/trials.db is Optuna's SQLite storage, with one study for each system, config and space:
``optuna-dashboard sqlite:///DIR/trials.db`` shows it. A trial is in it before its run begins, so
that a table that was stopped goes on with what it had drawn.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from int_ra_jax.common import config as configuration
from int_ra_jax.comparison.table_config import Entry, Point, draw


class Trials:
    """The trials of a table's systems, in DIR/trials.db once they are begun."""

    def __init__(self, workdir: Path, search: ConfigDict) -> None:
        """Opens nothing yet.

        Args:
          workdir: of the table.
          search: as configs/table.py has it.
        """
        self._path, self._search = workdir / "trials.db", search
        self._storage: Any = None
        self._studies: dict[str, Any] = {}

    def drawn(self, entry: Entry) -> list[Point]:
        """Returns the trials that are certain, by number: those begun, and the seeded draw's."""
        if not entry.budget:
            return []
        begun = [self._values(entry, trial) for trial in self._study(entry).trials]
        rest = [] if self._suggests(entry) else draw(entry.space, entry.budget, self._search.seed)
        return [*begun, *(point for point in rest if point not in begun)][: entry.budget]

    def begin(self, entry: Entry, number: int) -> None:
        """Draws trials up to a number, each once, and puts them on record."""
        from optuna.trial import TrialState, create_trial

        study = self._study(entry)
        while (begun := len(study.trials)) <= number:
            point = self._suggested(entry) if self._suggests(entry) else self.drawn(entry)[begun]
            trial = create_trial(
                state=TrialState.RUNNING,
                params={key: repr(value) for key, value in point.items()},
                distributions=_distributions(entry),
            )
            study.add_trial(trial)

    def tell(self, entry: Entry, number: int, validation: float) -> None:
        """Puts the best validation mAP of a trial on record, once."""
        study = self._study(entry)
        if not study.trials[number].state.is_finished():
            study.tell(number, validation)

    def close(self) -> None:
        """Closes the file."""
        if self._storage is not None:
            self._storage.remove_session()
            self._storage.engine.dispose()

    def _suggests(self, entry: Entry) -> bool:
        return self._search.get("sampler", "random") == "tpe" and entry.points > entry.budget

    def _suggested(self, entry: Entry) -> Point:
        """Asks TPE for a point that was not tried, as a function of the trials and the seed."""
        import optuna

        tried = self._study(entry).trials
        # In memory, and with a seed for each number: a table that was stopped must be told the
        # same, and a point that is refused must not stay on record. TPE avoids what is pending.
        sampler = optuna.samplers.TPESampler(
            seed=self._search.seed + len(tried), n_startup_trials=min(10, entry.budget // 2)
        )
        study = optuna.create_study(sampler=sampler, direction="maximize")
        study.add_trials(tried)
        known = [trial.params for trial in tried]
        while (asked := study.ask(_distributions(entry))).params in known:
            pass
        return self._values(entry, asked)

    def _values(self, entry: Entry, trial: Any) -> Point:
        named = {key: {repr(x): x for x in choices} for key, choices in entry.space.items()}
        return {key: named[key][trial.params[key]] for key in entry.space}

    def _study(self, entry: Entry) -> Any:
        if entry.name not in self._studies:
            import optuna

            # Other choices or another config are another search, whatever its name in the table.
            # The config is the trials': how long the chosen one trains is no part of the search.
            tried = entry.resolved(**entry.trial)
            content = json.dumps([configuration.fingerprint(tried), entry.space])
            try:
                self._studies[entry.name] = optuna.create_study(
                    study_name=f"{entry.name} {hashlib.sha256(content.encode()).hexdigest()[:12]}",
                    storage=self._opened(), direction="maximize", load_if_exists=True,
                )  # fmt: skip
            except Exception as error:  # of SQLite, SQLAlchemy, Alembic or Optuna
                reason = str(error).partition("\n")[0]
                raise ValueError(
                    f"{self._path} cannot be used ({reason}); move it away: what is done stands in "
                    "the runs' own folders, and the search is noted anew"
                ) from error
        return self._studies[entry.name]

    def _opened(self) -> Any:
        import optuna

        if self._storage is None:
            optuna.logging.set_verbosity(optuna.logging.WARNING)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Another program may look at it, such as optuna-dashboard.
            patient = {"connect_args": {"timeout": 60}}
            self._storage = optuna.storages.RDBStorage(f"sqlite:///{self._path}", patient)
        return self._storage


def _distributions(entry: Entry) -> dict[str, Any]:
    """Returns the choices as texts: Optuna stores no tuples."""
    from optuna.distributions import CategoricalDistribution

    return {key: CategoricalDistribution([repr(x) for x in xs]) for key, xs in entry.space.items()}
