"""Draw the samples of each update from a seed and the number of the update: the same ones on every machine."""

import numpy as np
from numpy.typing import NDArray


def drawn(seed: int, samples: int, batch: int, update: int) -> NDArray[np.intp]:
    """Return the samples of an update.

    Every sample is used once before any is used again, in a new random order for each round.

    Args:
        seed: seed of the random order.
        samples: number of samples that there are.
        batch: number of samples in an update.
        update: number of the update, from 0.

    Returns:
        (batch,) numbers of samples, from 0.
    """
    places = np.arange(update * batch, (update + 1) * batch)
    rounds, within = np.divmod(places, samples)
    orders = {int(n): np.random.default_rng([seed, int(n)]).permutation(samples) for n in np.unique(rounds)}
    return np.array([orders[int(n)][place] for n, place in zip(rounds, within, strict=True)], np.intp)


def share(samples: NDArray[np.intp], rank: int, workers: int) -> NDArray[np.intp]:
    """Return the samples that one worker computes.

    Args:
        samples: (batch,) numbers of the samples of an update.
        rank: number of the worker, from 0.
        workers: number of workers, which divides the batch.

    Returns:
        (batch / workers,) numbers of samples.
    """
    return np.asarray(samples.reshape(workers, -1)[rank])
