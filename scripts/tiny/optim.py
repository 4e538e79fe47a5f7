"""AdamW over a dict of numpy arrays."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Weights = dict[str, Array]


class AdamW:
    """Steps `weights` in place; gradients are clipped to a norm of 1 over all arrays together."""

    def __init__(self, weights: Weights, *, decay: float = 0.01, beta2: float = 0.98) -> None:
        self._weights = weights
        self._decay = decay
        self._beta1, self._beta2 = 0.9, beta2
        self._mean = {name: np.zeros_like(w) for name, w in weights.items()}
        self._square = {name: np.zeros_like(w) for name, w in weights.items()}
        self._step_count = 0

    def step(self, gradients: Weights, rate: float) -> None:
        self._step_count += 1
        norm = math.sqrt(sum(float(np.vdot(g, g)) for g in gradients.values()))
        shrink = np.float32(min(1.0, 1.0 / (norm + 1e-6)))
        bias1 = 1 - self._beta1**self._step_count
        bias2 = 1 - self._beta2**self._step_count
        for name, raw in gradients.items():
            gradient = raw * shrink
            mean, square, weight = self._mean[name], self._square[name], self._weights[name]
            mean += np.float32(1 - self._beta1) * (gradient - mean)
            square += np.float32(1 - self._beta2) * (gradient * gradient - square)
            if weight.ndim > 1:
                weight *= np.float32(1 - rate * self._decay)
            pace = np.float32(rate / bias1)
            weight -= pace * mean / (np.sqrt(square / np.float32(bias2)) + np.float32(1e-8))


def warm_cosine(step: int, step_count: int, peak: float, *, warm_up: int = 40) -> float:
    """Give the learning rate of a step: a linear rise, then half a cosine down to 2 %."""
    rise = min(1.0, (step + 1) / warm_up)
    return peak * rise * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * step / step_count)))
