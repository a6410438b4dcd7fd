"""Muon (Jordan et al., 2024): a weight matrix moves by its averaged gradient with all singular values brought near 1.

Ranks share the matrices out. In a deterministic run on a CPU threads do so, too: one thread computes a matrix, in the
same shapes on any number of threads and ranks, so all of them get the same bits. Otherwise matrices of one shape share
products, which take all threads.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from bertfast.distributed.collectives import SharedOut
from bertfast.distributed.threads import thread_pool
from bertfast.distributed.world import World
from bertfast.model import Bert, Layer
from bertfast.ops.product import matrix_product, multiplied_by_kernel

MOMENTUM = 0.95

_TOGETHER = 16
"""The most matrices of one shape in one product on a GPU, and of all ranks' products at a time on CPUs. Not all of
them, so that ranks have some to share out."""

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
        self.relative_rate = relative_rate
        by_shape: dict[tuple[int, int], list[Tensor]] = {}
        for each, count in parameters.items():
            by_shape.setdefault((each.shape[0] // count, each.shape[1]), []).append(each)
        self.parameters = [each for of_shape in by_shape.values() for each in of_shape]
        self._counts = [parameters[each] for each in self.parameters]
        together, shared_out = _TOGETHER, False
        if world.device.type == "cpu":
            shared_out = world.deterministic
            together = 1 if shared_out else max(1, _TOGETHER // world.size)
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        self._momenta: list[Tensor] = []  # of each group: matrices of one shape
        for shape, of_shape in by_shape.items():
            counts = [parameters[each] for each in of_shape]
            momenta = torch.zeros((sum(counts), *shape), dtype=torch.float32, device=world.device)
            pieces = zip(of_shape, momenta.split(counts), strict=True)
            self.state |= {each: {"momentum": piece.view_as(each)} for each, piece in pieces}
            self._momenta += momenta.split(together)
        self._weights = self._grouped(each.detach() for each in self.parameters)
        self._updates = SharedOut([each.shape for each in self._momenta], dtype, world)
        threads = min(torch.get_num_threads(), len(self._momenta))
        self._pool = thread_pool(world.device, threads) if shared_out else None

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], rate: Tensor, factor: Tensor, refused: Tensor) -> None:
        """A step with the gradients of `parameters`, equal on all ranks, and scalars on their device.

        Args:
            rate: Muon's own learning rate; 0 where the step is refused.
            factor, refused: as in `Optimizer.step`.
        """
        by_group = self._grouped(gradients)
        self._each_group(lambda number: self._compute(number, by_group[number], factor, refused))
        self._updates.exchange()
        self._each_group(lambda number: self._apply(number, rate))

    def _compute(self, number: int, gradients: list[Tensor], factor: Tensor, refused: Tensor) -> None:
        """Moves a group's momenta and, where the group is this rank's, computes its update."""
        momentum = self._momenta[number]
        gradient = torch.stack(gradients).mul_(factor)
        torch.where(refused != 0, momentum, gradient, out=gradient)  # a refused gradient may be non-finite
        momentum.lerp_(gradient, 1 - MOMENTUM)
        if number in self._updates.mine:
            update = self._updates.tensors[number]
            update.copy_(orthogonalized(gradient.lerp_(momentum, MOMENTUM), update.dtype))

    def _apply(self, number: int, rate: Tensor) -> None:
        update = self._updates.tensors[number]
        rows, columns = update.shape[1:]
        change = update.float() * (rate * math.sqrt(max(1.0, rows / columns)))
        torch._foreach_sub_(self._weights[number], list(change))

    def _grouped(self, tensors: Iterable[Tensor]) -> list[list[Tensor]]:
        """Each group's matrices in tensors with the parameters' shapes."""
        pairs = zip(tensors, self._counts, strict=True)
        matrices = (matrix for tensor, count in pairs for matrix in tensor.chunk(count))
        return [list(itertools.islice(matrices, len(group))) for group in self._momenta]

    def _each_group(self, work: Callable[[int], None]) -> None:
        numbers = range(len(self._momenta))
        for _ in map(work, numbers) if self._pool is None else self._pool.map(work, numbers):
            pass


def layer_matrices(model: Bert) -> dict[Tensor, int]:
    """The weights of the layers, each with the number of matrices that its rows hold: keys and values are two."""
    counts: dict[Tensor, int] = {}
    for layer in cast(Iterable[Layer], model.layers):
        counts |= {layer.query.weight: 1, layer.key_value.weight: 2, layer.attention_output.weight: 1}
        counts |= {layer.intermediate.weight: 1, layer.output.weight: 1}
    return counts


def orthogonalized(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """U S' V^T for matrices U S V^T, with S' near 1, by steps of Newton-Schulz: X = (a + b X X^T + c (X X^T)^2) X.

    X is first divided by the root of the norm of X X^T, the fourth root of the sum of the singular values' fourth
    powers. That is at least the largest one, and much nearer to it than the norm of X, by which Jordan divides: so he
    needs five steps. Floor for (m, n) with m <= n: 4 m^2 n + 2 m^3 operations a step. Where n > 1.5 m, all steps
    together take less: 4 m^2 n + 18 m^3, as they are taken on X X^T, and the product of their polynomials meets X once
    (Gram Newton-Schulz; Zhang, Amsel, Chen and Dao, 2026).

    Args:
        matrices: (count, rows, columns) float32.
        dtype: of the products, and of the result.

    Returns: (count, rows, columns).
    """
    x = matrices.to(dtype)
    tall = x.shape[1] > x.shape[2]  # then X^T X is the smaller square, and the polynomials stand on the right

    def square_of(x: Tensor) -> Tensor:
        return _products(x.mT, x) if tall else _products(x, x.mT)

    def times(polynomial: Tensor, x: Tensor) -> Tensor:
        return _products(x, polynomial) if tall else _products(polynomial, x)

    square = square_of(x)
    norm = torch.linalg.vector_norm(square, dim=(1, 2), keepdim=True, dtype=torch.float32)
    scale = norm.clamp(min=torch.finfo(torch.float32).tiny).rsqrt().to(dtype)
    square = square * scale.square()
    polynomial = _polynomial(square)
    factor = polynomial * scale
    shorter, longer = sorted(x.shape[1:])
    for _ in range(NEWTON_SCHULZ_STEPS - 1):
        if 2 * longer > 3 * shorter:
            square = _products(_products(polynomial, square), polynomial)
            polynomial = _polynomial(square)
            factor = times(polynomial, factor)
        else:
            x = times(factor, x)
            factor = _polynomial(square_of(x))
    return times(factor, x)


def _polynomial(square: Tensor) -> Tensor:
    """a + b S + c S^2."""
    a, b, c = COEFFICIENTS
    if _one_by_one(square):
        polynomial = _products(square, square).mul_(c).add_(square, alpha=b)
    else:
        polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)
    polynomial.diagonal(dim1=1, dim2=2).add_(a)
    return polynomial


def _products(left: Tensor, right: Tensor) -> Tensor:
    """(count, n, k) and (count, k, m) -> (count, n, m)."""
    if len(left) == 1:
        return matrix_product(left[0], right[0])[None]
    if _one_by_one(left):
        return torch.stack([matrix_product(*pair) for pair in zip(left, right, strict=True)])
    return torch.bmm(left, right)


def _one_by_one(x: Tensor) -> bool:
    """Whether products of several matrices are faster one by one: torch's in float32, where the kernel beats them."""
    return x.dtype == torch.float32 and multiplied_by_kernel(x.device, x.dtype)
