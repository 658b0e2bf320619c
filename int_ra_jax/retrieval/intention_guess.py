"""What a new sticker means, guessed from what its attributes say; nothing is trained.

Two things are known of a text: which of the run's own stickers are described alike, and how near it
is to the intentions' names. The first is a kernel estimate over these stickers, mixed with how
often each intention occurs; the second weighs it as a softmax over cosines. How much each counts
is what explains the run's own stickers best, each by the others.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

GUESS_VERSION = 2  # counted up where guesses change: a gallery never mixes two ways
# Tried on the run's own stickers: widths of the kernel and temperatures of the names, in cosines,
# and the weight of the frequencies, in mean weights of a sticker.
_WIDTHS = (0.02, 0.05, 0.1, 0.2, 0.5)
_FREQUENCIES = (0.3, 1.0, 3.0, 10.0, 30.0, 1e6)
_TEMPERATURES = (0.01, 0.02, 0.05, 0.1, 1e6)  # the last ones say that it does not count
_TRIED = 2000  # stickers that settings are chosen on
_LEAST = 1e-12


@dataclass(frozen=True)
class _Settings:
    width: float
    frequency: float
    temperature: float


class IntentionGuess:
    """Guesses intentions from texts' features.

    Args:
      described: of the run's own stickers' attributes; there may be none.
      annotated: their intentions; stickers without any say nothing.
      names: of the intentions' names.
    """

    def __init__(
        self,
        described: Float[np.ndarray, "M Dt"],
        annotated: Bool[np.ndarray, "M K"],
        names: Float[np.ndarray, "K Dt"],
    ) -> None:
        known = annotated.any(1)
        described, annotated = described[known], annotated[known]
        self._mean = described.mean(0) if len(described) else names.mean(0)
        self._names = _unit(names)
        self._described = self._directions(described)
        self._usual = (_unit(described) @ self._names.T).mean(0) if len(described) else 0.0
        self._target = annotated / np.maximum(annotated.sum(1, keepdims=True), 1)
        counts = annotated.sum(0) + 1.0  # smoothed: a rare one is not impossible
        self._frequency = counts / counts.sum()
        self._settings, self._scale = self._choose(described)

    def __call__(self, features: Float[np.ndarray, "N Dt"]) -> Float[np.ndarray, "N K"]:
        """Returns each text's probabilities of the intentions."""
        likeness = self._directions(features) @ self._described.T  # [N, M]
        width = self._settings.width
        weights = np.exp((likeness - 1) / width)
        prior = self._mixed(weights, self._target, self._scale, self._settings.frequency)
        return _weighed(prior, self._beside(features) / self._settings.temperature)

    def _choose(self, described: Float[np.ndarray, "M Dt"]) -> tuple[_Settings, float]:
        """Returns the settings that explain the own stickers best, and a sticker's mean weight."""
        some = np.random.default_rng(0).permutation(len(described))[:_TRIED]
        if len(some) < 2:
            return _Settings(_WIDTHS[-1], _FREQUENCIES[-1], _TEMPERATURES[2]), 1.0
        directions, target = self._described[some], self._target[some]
        likeness, beside = directions @ directions.T, self._beside(described[some])
        best, chosen = np.inf, None
        for width in _WIDTHS:
            weights = np.exp((likeness - 1) / width)
            np.fill_diagonal(weights, 0.0)  # each by the others
            scale = float(weights.mean()) + _LEAST
            for frequency, temperature in itertools.product(_FREQUENCIES, _TEMPERATURES):
                prior = self._mixed(weights, target, scale, frequency)
                guess = _weighed(prior, beside / temperature)
                nats = float(-(target * np.log(guess + _LEAST)).sum(1).mean())
                if nats < best:
                    best, chosen = nats, (_Settings(width, frequency, temperature), scale)
        assert chosen is not None
        return chosen

    def _mixed(
        self,
        weights: Float[np.ndarray, "N M"],
        target: Float[np.ndarray, "M K"],
        scale: float,
        frequency: float,
    ) -> Float[np.ndarray, "N K"]:
        """Returns the weighted mean of the stickers' intentions and their frequencies."""
        said = weights @ target + frequency * scale * self._frequency
        mixed: np.ndarray = said / (weights.sum(1, keepdims=True) + frequency * scale)
        return mixed

    def _beside(self, features: Float[np.ndarray, "N Dt"]) -> Float[np.ndarray, "N K"]:
        """Returns the cosines with the names, less what every sticker's text has with them."""
        found: np.ndarray = _unit(features) @ self._names.T - self._usual
        return found

    def _directions(self, features: Float[np.ndarray, "N Dt"]) -> Float[np.ndarray, "N Dt"]:
        """Returns unit vectors from the stickers' mean: all texts lie near it."""
        return _unit(features - self._mean)


def _weighed(
    prior: Float[np.ndarray, "N K"], logits: Float[np.ndarray, "N K"]
) -> Float[np.ndarray, "N K"]:
    logits = np.log(prior + _LEAST) + logits
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return found


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _LEAST)
