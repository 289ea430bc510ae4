import pytest
import torch
from counting import peak_memory, synchronizations
from torchvision.ops import nms

CPU = torch.device("cpu")


def test_the_most_that_is_held_at_a_time():
    def function():
        a = torch.zeros(1000)  # 4 bytes each
        b = torch.zeros(500)
        del a
        return b, torch.zeros(250)

    assert peak_memory(function, CPU) == 6000
    assert peak_memory(function, CPU) == 6000


def test_gradients_and_what_they_need_count():
    weight = torch.zeros(100, 100, requires_grad=True)  # 40,000 bytes, there before

    def function():
        (weight.exp().exp() * 2).sum().backward()
        weight.grad = None

    # Kept: both results of exp. Beside them at most: the product, the gradients of two of them.
    assert 80_000 < peak_memory(function, CPU) <= 200_100


values = torch.arange(6.0)
positive = values > 2


def _fill():
    values.clone()[positive] = 0.0


def _assign():
    values.clone()[positive] = torch.ones(3)


@pytest.mark.parametrize(
    ("function", "number"),
    [
        (lambda: values.sum() + 1, 0),
        (lambda: values.sum().item(), 1),
        (lambda: bool(positive.all()), 1),
        (lambda: values.tolist(), 1),
        (lambda: values.to(torch.float64), 0),
        (lambda: positive.nonzero(), 1),
        (lambda: values[positive], 1),
        (lambda: values[torch.tensor([2, 1])], 0),
        (_fill, 0),
        (_assign, 1),
        (lambda: torch.where(positive, values, 0), 0),
        (lambda: values.unique(), 1),
        (lambda: values.repeat_interleave(torch.tensor([1, 2, 0, 0, 1, 1])), 1),
        (lambda: nms(torch.rand(6, 4), values, 0.5), 1),
    ],
)
def test_what_makes_a_host_wait(function, number):
    assert synchronizations(function, CPU) == number
