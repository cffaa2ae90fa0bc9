"""The bootstrap interval of a mean over people, the same on every machine and under every version of NumPy."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
SEED = 20240703
CONFIDENCE = 0.95

FloatArray = npt.NDArray[np.float64]


def bootstrap_interval(values: FloatArray) -> tuple[float, float]:
    """95 % percentile interval of the mean of `values` [N] under resampling."""
    return interval(values[resampled_indices(len(values))].mean(axis=1))


def interval(drawn: FloatArray) -> tuple[float, float]:
    """The 95 % percentile interval of what was drawn [RESAMPLES]."""
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(drawn, [tail, 100.0 - tail])
    return float(low), float(high)


@lru_cache(maxsize=8)
def resampled_indices(count: int) -> npt.NDArray[np.intp]:
    """Which of `count` people each resample has, [RESAMPLES, count]."""
    # NumPy keeps a bit generator's raw stream stable between releases, but not `Generator.integers`; a stored
    # interval must still follow from its subjects years later. The bias of the modulo is below count / 2**64.
    raw = np.random.PCG64(SEED).random_raw(RESAMPLES * count)
    return (raw % np.uint64(count)).astype(np.intp).reshape(RESAMPLES, count)
