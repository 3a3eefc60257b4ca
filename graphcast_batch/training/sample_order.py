"""A seed and the number of an update become the samples that it is made from: the same on every machine."""

import numpy as np
from numpy.typing import NDArray


def drawn(seed: int, samples: int, batch: int, update: int) -> NDArray[np.intp]:
    """(batch,) which samples an update takes, counted from 0.

    Every sample comes once before any comes again, in an order that is drawn anew for each round.

    Args:
        seed: of the order.
        samples: how many there are.
        batch: how many to take.
        update: its number, from 0.
    """
    places = np.arange(update * batch, (update + 1) * batch)
    rounds, within = np.divmod(places, samples)
    orders = {int(n): np.random.default_rng([seed, int(n)]).permutation(samples) for n in np.unique(rounds)}
    return np.array([orders[int(n)][place] for n, place in zip(rounds, within, strict=True)], np.intp)


def share(samples: NDArray[np.intp], rank: int, workers: int) -> NDArray[np.intp]:
    """(batch / workers,) those of one of some workers, of (batch,) samples."""
    return np.asarray(samples.reshape(workers, -1)[rank])
