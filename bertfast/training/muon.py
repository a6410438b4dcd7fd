"""Muon (Jordan et al., 2024): a weight matrix moves by its averaged gradient with all singular values brought near 1.

Threads and ranks share the matrices out. One thread computes a matrix, in the same shapes on any number of threads and
ranks, so all of them get the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from bertfast.distributed.collectives import SharedOut
from bertfast.distributed.threads import thread_pool
from bertfast.distributed.world import World
from bertfast.model import Bert, Layer
from bertfast.ops.product import matrix_product

MOMENTUM = 0.95

_TOGETHER = 16
"""The most matrices of one shape in one product on a GPU. Not all of them, so that ranks have some to share out."""

# Jordan's: three steps bring singular values of at least 0.018 of the norm in `orthogonalized` to between 0.68 and
# 1.21. The Polar Express (Amsel et al., 2025) brings them nearer to 1, but models learned less with it
# (docs/recipes.md).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 3


class Muon:
    """Muon for `parameters`, each with the number of matrices that its rows hold.

    With G a matrix's gradient times the step's factor and M its momentum, both (rows, columns):
    M += (1 - 0.95) (G - M); W -= rate sqrt(max(1, rows / columns)) orthogonalized(G + 0.95 (M - G)).
    `relative_rate` is its rate as a multiple of AdamW's. The products are computed in `dtype`.
    """

    def __init__(
        self, parameters: Mapping[Tensor, int], relative_rate: float, dtype: torch.dtype, world: World
    ) -> None:
        self.parameters, self.relative_rate, self._counts = list(parameters), relative_rate, list(parameters.values())
        self.state = {each: {"momentum": torch.zeros_like(each)} for each in self.parameters}
        self._weights = self._matrices(each.detach() for each in self.parameters)
        self._momenta = self._matrices(each["momentum"] for each in self.state.values())
        self._groups = groups(self._weights, 1 if world.device.type == "cpu" else _TOGETHER)
        shapes = [(len(group), *self._weights[group[0]].shape) for group in self._groups]
        self._updates = SharedOut(shapes, dtype, world)
        self._pool = thread_pool(world.device, min(torch.get_num_threads(), len(self._groups)))

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], rate: Tensor, factor: Tensor, refused: Tensor) -> None:
        """A step with the parameters' `gradients`, equal on all ranks, and scalars on their device.

        Args:
            rate: Muon's own learning rate; 0 where the step is refused.
            factor, refused: as in `Optimizer.step`.
        """
        matrices = self._matrices(gradients)
        self._each_group(lambda number: self._compute(number, matrices, factor, refused))
        self._updates.exchange()
        self._each_group(lambda number: self._apply(number, rate))

    def _compute(self, number: int, gradients: Sequence[Tensor], factor: Tensor, refused: Tensor) -> None:
        """Moves a group's momenta and, where the group is this rank's, computes its update."""
        momenta = [self._momenta[i] for i in self._groups[number]]
        momentum = _stacked(momenta)
        gradient = _stacked([gradients[i] for i in self._groups[number]]) * factor
        gradient = torch.where(refused != 0, momentum, gradient)  # a refused gradient may be non-finite
        momentum.lerp_(gradient, 1 - MOMENTUM)
        if len(momenta) > 1:
            torch._foreach_copy_(momenta, list(momentum))
        if number in self._updates.mine:
            update = self._updates.tensors[number]
            update.copy_(orthogonalized(gradient.lerp(momentum, MOMENTUM), update.dtype))

    def _apply(self, number: int, rate: Tensor) -> None:
        update = self._updates.tensors[number]
        rows, columns = update.shape[1:]
        change = update.float() * (rate * math.sqrt(max(1.0, rows / columns)))
        torch._foreach_sub_([self._weights[i] for i in self._groups[number]], list(change))

    def _matrices(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """The matrices in tensors with the parameters' shapes."""
        pairs = zip(tensors, self._counts, strict=True)
        return [matrix for tensor, count in pairs for matrix in tensor.chunk(count)]

    def _each_group(self, work: Callable[[int], None]) -> None:
        numbers = range(len(self._groups))
        for _ in map(work, numbers) if self._pool is None else self._pool.map(work, numbers):
            pass


def layer_matrices(model: Bert) -> dict[Tensor, int]:
    """The weights of the layers, each with the number of matrices that its rows hold: keys and values are two."""
    counts: dict[Tensor, int] = {}
    for layer in cast(Iterable[Layer], model.layers):
        counts |= {layer.query.weight: 1, layer.key_value.weight: 2, layer.attention_output.weight: 1}
        counts |= {layer.intermediate.weight: 1, layer.output.weight: 1}
    return counts


def groups(matrices: Sequence[Tensor], together: int) -> list[list[int]]:
    """The numbers of the matrices in each product: of one shape, at most `together` of them."""
    by_shape: dict[torch.Size, list[int]] = {}
    for number, matrix in enumerate(matrices):
        by_shape.setdefault(matrix.shape, []).append(number)
    return [numbers[i : i + together] for numbers in by_shape.values() for i in range(0, len(numbers), together)]


def orthogonalized(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """U S' V^T for matrices U S V^T, with S' near 1 (Newton-Schulz): X = a X + (b X X^T + c (X X^T)^2) X for each step.

    X is first divided by the root of the norm of X X^T, the fourth root of the sum of the singular values' fourth
    powers. That is at least the largest one, and much nearer to it than the norm of X, by which Jordan divides: so he
    needs five steps. Floor for (m, n) with m <= n: 4 m^2 n + 2 m^3 operations a step.

    Args:
        matrices: (count, rows, columns) float32.
        dtype: of the products, and of the result.

    Returns: (count, rows, columns).
    """
    x = matrices.to(dtype)
    tall = x.shape[1] > x.shape[2]  # then X^T X is the smaller square, and the polynomial stands on the right
    a, b, c = COEFFICIENTS
    for step in range(NEWTON_SCHULZ_STEPS):
        square = _products(x.mT, x) if tall else _products(x, x.mT)
        if step == 0:
            norm = torch.linalg.vector_norm(square, dim=(1, 2), keepdim=True, dtype=torch.float32)
            scale = norm.clamp(min=torch.finfo(torch.float32).tiny).rsqrt().to(dtype)
            x, square = x * scale, square * scale.square()
        polynomial = _products(square, square).mul_(c).add_(square, alpha=b)
        x = (_products(x, polynomial) if tall else _products(polynomial, x)).add_(x, alpha=a)
    return x


def _stacked(matrices: list[Tensor]) -> Tensor:
    """(rows, columns) each -> (count, rows, columns): a view of one, a copy of several."""
    return matrices[0][None] if len(matrices) == 1 else torch.stack(matrices)


def _products(left: Tensor, right: Tensor) -> Tensor:
    """(count, n, k) and (count, k, m) -> (count, n, m)."""
    return matrix_product(left[0], right[0])[None] if len(left) == 1 else torch.bmm(left, right)
