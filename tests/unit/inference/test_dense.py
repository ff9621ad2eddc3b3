"""The fast linear layer is the linear layer."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from inference.model import dense
from inference.model.dense import Dense, linear


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(1, 7), (785, 768), (4, 33, 130)])
@pytest.mark.parametrize("wide", [1, 3, 384])
def test_it_computes_what_torch_computes(shape: tuple[int, ...], wide: int) -> None:
    """With and without a bias, for any number of rows, also of rows that are columns."""
    rows, weight, bias = randn(*shape), randn(wide, shape[-1], seed=1), randn(wide, seed=2)
    with torch.no_grad():
        bare = rows.double() @ weight.double().t()
        for given, expected in ((None, bare), (bias, bare + bias)):
            found = linear(rows, weight, given).double()
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
        columns = rows.flatten(0, -2).t()
        expected = columns.double() @ columns.double().t()
        torch.testing.assert_close(
            linear(columns, columns).double(), expected, rtol=1e-4, atol=1e-3
        )


def test_a_row_is_the_same_among_others_and_on_any_number_of_threads() -> None:
    """Bit for bit, in the shapes that the eyes have."""
    rows, weight = randn(1024, 384), randn(1152, 384, seed=1)
    threads = torch.get_num_threads()
    with torch.no_grad():
        torch.set_num_threads(1)
        alone = linear(rows, weight)
        torch.set_num_threads(2)
        assert torch.equal(linear(rows, weight), alone)
        assert torch.equal(linear(rows[:500], weight), alone[:500])
    torch.set_num_threads(threads)


def test_gradients_autocast_and_other_precisions_are_left_to_torch(monkeypatch) -> None:
    """What the fast way cannot do is never asked of it."""
    rows, layer = randn(5, 4), Dense(4, 3)
    asked = []
    monkeypatch.setattr(dense, "_ONEDNN", lambda *_: asked.append(1) or rows)
    layer(rows).sum().backward()
    assert layer.weight.grad is not None
    with torch.no_grad():
        assert linear(rows.double(), layer.weight.double()).dtype == torch.float64
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(rows).dtype == torch.bfloat16
        assert not asked
        layer(rows)
        assert asked
        monkeypatch.setattr(dense, "_ONEDNN", None)
        assert torch.equal(layer(rows), F.linear(rows, layer.weight, layer.bias))
