"""Seed the random numbers of a perturbation by what it is for, so that any part of it can be made again alone."""

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Draw:
    """One perturbation of one initial state, as far as random numbers depend on it.

    Attributes:
        seed: seed of the ensemble, at least 0.
        number: number of the random field: that of the perturbed state, or of its pair.
        init_time: initial time; fractions of a second do not count.
    """

    seed: int
    number: int
    init_time: np.datetime64

    def generator(self, name: str, level: int | None) -> np.random.Generator:
        """Return a generator of the random numbers of one variable at one level.

        Each variable and level has a stream of its own, so that it does not matter which others are perturbed, nor in
        which order, process or thread. The stream of normal numbers is the same for each call with one version of
        NumPy on one kind of machine; NumPy promises no more (its reference, numpy.random, "Compatibility policy").

        Args:
            name: name of the variable.
            level: level in hPa; None for a variable that is not on levels.
        """
        seconds = int(self.init_time.astype("datetime64[s]").astype(np.int64))
        label = f"{self.seed} {self.number} {seconds} {level} {name}"
        # A digest is an even seed for any label, also for times before 1970, which are negative.
        entropy = int.from_bytes(hashlib.sha256(label.encode()).digest(), "little")
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
