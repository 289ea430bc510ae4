import torch
from detectron2.structures import Instances
from hypothesis import given, settings
from hypothesis import strategies as st

from ohem_d2.modeling.reading import read_in_chunks


@settings(max_examples=50, deadline=None)
@given(numbers=st.lists(st.integers(0, 9), min_size=1, max_size=4), size=st.integers(1, 5))
def test_chunks_are_put_together_again(numbers, size):
    values = torch.arange(float(sum(numbers))).split(numbers)
    rois = [Instances((9, 9), value=v) for v in values]
    calls = []

    def read(chunk):
        calls.append([len(x) for x in chunk])
        all_values = torch.cat([x.value for x in chunk])
        return all_values, all_values[:, None] * 2

    scores, deltas = read_in_chunks(read, rois, size)
    assert scores.equal(torch.cat(values))
    assert deltas.equal(torch.cat(values)[:, None] * 2)
    assert max(map(max, calls)) <= size
    assert len(calls) == max(1, -(-max(numbers) // size))
