import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from graphcast_batch.training.sample_order import drawn, share

SAMPLES = st.integers(1, 40)
BATCHES = st.integers(1, 50)


@given(seed=st.integers(0, 2**32), samples=SAMPLES, batch=BATCHES)
def test_every_sample_comes_once_before_any_comes_again(seed, samples, batch):
    rounds = 3
    updates = -(-rounds * samples // batch)

    order = np.concatenate([drawn(seed, samples, batch, update) for update in range(updates)])

    for each in order[: rounds * samples].reshape(rounds, samples):
        assert sorted(each) == list(range(samples))


def test_the_order_is_another_for_each_round_and_seed():
    first, second = drawn(7, 100, 100, 0), drawn(7, 100, 100, 1)

    assert not np.array_equal(first, second)
    assert not np.array_equal(first, drawn(8, 100, 100, 0))
    np.testing.assert_array_equal(first, drawn(7, 100, 100, 0))


@given(seed=st.integers(0, 100), samples=SAMPLES, each=st.integers(1, 8), workers=st.integers(1, 8))
def test_workers_share_the_samples_of_an_update(seed, samples, each, workers):
    every = drawn(seed, samples, each * workers, 3)

    shares = [share(every, rank, workers) for rank in range(workers)]

    assert {part.size for part in shares} == {each}
    np.testing.assert_array_equal(np.concatenate(shares), every)
