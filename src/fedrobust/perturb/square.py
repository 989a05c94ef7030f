"""Square Attack (Andriushchenko et al. 2020): random search by queries, without gradients."""

import math
from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

from fedrobust.compute.network import answers, batched_logits, margin
from fedrobust.compute.units import slices
from fedrobust.config import arguments
from fedrobust.config.component import component
from fedrobust.config.scalars import Count, Flag, Pixels
from fedrobust.digest import digest
from fedrobust.perturb.geometry import Norm, per_example, require_radius
from fedrobust.perturb.inputs import begin, require_draws
from fedrobust.perturb.perturbation import Draw, adversarial
from fedrobust.typing import Images, Labels, Mask

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""The query numbers, of 10,000, after which the share p of changed pixels is halved again."""

_PLACES = 2**20
"""One call of ``draw`` gives seeds that are alike but for the place, up to so many."""
_TOGETHER = 64
"""The number of neighbouring places whose numbers come from one generator."""


@component
class Square:
    """Random search over squares: a change is kept where it lowers the margin z_y − max_{i≠y} z_i.

    linf: the search starts with vertical stripes of ±ε. Each query sets a square window, with a
    share p of the image, to x₀ ± ε, with one sign for each channel. l2: the search starts with a
    grid of pyramids. Each query moves the mass of one window into another, so that the norm is ε
    before the box cuts. p starts at ``share`` and is halved on a schedule. The attack sees only
    logits, so it is a black-box attack, and gradient masking does not affect it. An example is left
    unchanged once it is misclassified.

    Inputs that are not images [b, c, h, w] are treated as one row of pixels. Where a square is too
    long for an image, the window is an oblong with the same share of it.

    Raises: ``ValueError`` for inputs outside the box.

    Reference: Andriushchenko et al., "Square Attack: a query-efficient black-box adversarial attack
    via random search", ECCV 2020. Differences: windows are drawn for each example separately, not
    for a batch, and the schedule of the windows is scaled to the number of queries.
    """

    eps: Pixels
    queries: Count = 5000
    norm: Norm = "linf"
    share: Pixels = 0.8
    box: Flag = True
    name: Literal["square"] = "square"
    __call__ = adversarial

    @model_validator(mode="after")
    def _eps_in_pixel_units(self) -> "Square":
        require_radius(self.eps, self.norm, self.box)
        return self

    def draw(self, x: Images, generator: torch.Generator) -> Tensor | None:
        """Return a seed for each example.

        What an example gets follows from its seed alone, whatever examples are beside it.
        """
        require_draws(x, generator)
        where = generator.device
        call = torch.randint(2**62 // _PLACES, (1,), generator=generator, device=where)
        return (call * _PLACES + torch.arange(len(x), device=where)).to(x.device)

    def maximize(
        self, model: nn.Module, x: Images, y: Labels, draw: Draw, *, batch: int | None = None
    ) -> Images:
        """Return the points with the least margin that were found for ``x`` [b, ...]."""
        given = x
        model, x, y, size = begin(model, x, y, draw, batch, box=self.box)
        seeds, best = draw(), x.clone()
        if not len(x) or seeds is None:
            return best.to(given.dtype)
        if len(arguments.tensor(seeds, "what draw gives")) != len(x):
            raise ValueError(f"draw must give {len(x)} seeds; it gave {arguments.told(seeds)}")
        for part in slices(len(x), size):
            best[part] = self._search(model, x[part], y[part], _Numbers(seeds[part].long()))
        return best.to(given.dtype)

    def _search(self, model: nn.Module, x: Images, y: Labels, numbers: "_Numbers") -> Images:
        image = x if x.dim() == 4 else x.flatten(1)[:, None, None]
        best = x.clone()
        open_ = torch.arange(len(x), device=x.device)
        delta = (_stripes if self.norm == "linf" else _pyramids)(image, self.eps, numbers)
        lowest = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
        for query in range(self.queries):
            # Drawn for all examples before some are skipped: a skipped one does not change the
            # draws of the others.
            tried = (delta if query == 0 else self._changed(delta, query, numbers))[open_]
            at = self._at(image[open_], tried)
            lead, wrong = _looked(model, at.reshape(x[open_].shape), y[open_])
            better = (lead < lowest[open_]) | wrong
            kept = open_[better]
            # The part that the box cut off can be used elsewhere.
            delta[kept], lowest[kept] = (at - image[open_])[better], lead[better]
            best[kept] = at[better].reshape(best[kept].shape)
            open_ = open_[~wrong]
            if not len(open_):
                break
        return best

    def _at(self, image: Images, delta: Tensor) -> Images:
        """Return the image with the change, scaled to the ball in l2, within the box."""
        if self.norm == "l2":
            length = delta.flatten(1).norm(dim=1).clamp_min(1e-12)
            delta = delta * per_example(self.eps / length, delta)
        return (image + delta).clamp(0, 1) if self.box else image + delta

    def _changed(self, delta: Tensor, query: int, numbers: "_Numbers") -> Tensor:
        _, c, h, w = delta.shape
        p = self.share * 0.5 ** sum(query * 10_000 / self.queries > at for at in _HALVINGS)
        rows, columns = _sides(p, h, w)
        if self.norm == "linf":
            window = _window(h, w, rows, numbers, columns).to(delta.device)
            signs = numbers.signs(c, 1, 1).to(delta)
            return torch.where(window, self.eps * signs, delta)
        rows, columns = (max(3, side) | 1 for side in (rows, columns))
        return _moved(delta, min(rows, h), min(columns, w), self.eps, numbers)


class _Numbers:
    """Random numbers for examples: those of its place, of all that are drawn for a block of places.

    A block draws for all of its places each time, also for examples that are not here: so an
    example's numbers depend on no other example.
    """

    def __init__(self, seeds: Tensor) -> None:
        places = seeds.cpu() % _TOGETHER
        firsts, counts = torch.unique_consecutive(seeds.cpu() - places, return_counts=True)
        self.blocks = [
            (torch.Generator().manual_seed(int(digest(str(first), length=8), 16)), here)
            for first, here in zip(
                firsts.tolist(), torch.split(places, counts.tolist()), strict=True
            )
        ]

    def below(self, high: int, *shape: int) -> Tensor:
        """Return a number from 0 to ``high`` - 1 for each example and entry [b, *shape]."""
        found = [
            torch.randint(high, (_TOGETHER, *shape), generator=source)[here]
            for source, here in self.blocks
        ]
        return torch.cat(found)

    def signs(self, *shape: int) -> Tensor:
        """Return 1 or -1 for each example and entry [b, *shape]."""
        return self.below(2, *shape) * 2 - 1


def _sides(p: float, h: int, w: int) -> tuple[int, int]:
    """Return the sides of a window with a share p of an image, as near to a square as it fits."""
    side = math.sqrt(p * h * w)
    if side > h:
        return h, min(w, max(1, round(p * w)))
    if side > w:
        return min(h, max(1, round(p * h))), w
    return max(1, round(side)), max(1, round(side))


def _moved(delta: Tensor, rows: int, columns: int, eps: float, numbers: _Numbers) -> Tensor:
    """Move the mass of a second window, and what is missing to ε, into a first window."""
    b, c, h, w = delta.shape
    first, second = (_window(h, w, rows, numbers, columns).to(delta.device) for _ in range(2))
    total = delta.square().sum(dim=(1, 2, 3), keepdim=True)
    mass = (delta.square() * (first | second)).sum(dim=(2, 3), keepdim=True)
    missing = (eps**2 - total).clamp_min(0) / c
    here = delta * first
    turned = numbers.below(2, 1, 1, 1).bool()
    shape = torch.where(turned, _pyramid(rows, columns, True), _pyramid(rows, columns, False))
    shape = shape.to(delta)
    placed = torch.zeros_like(delta)
    placed.masked_scatter_(first.expand_as(delta), shape.expand(b, c, rows, columns))
    length = here.square().sum(dim=(2, 3), keepdim=True).sqrt().clamp_min(1e-12)
    placed = placed * numbers.signs(c, 1, 1).to(delta) + here / length
    size = placed.square().sum(dim=(2, 3), keepdim=True).sqrt().clamp_min(1e-12)
    return delta * ~(first | second) + placed / size * (missing + mass).sqrt()


def _window(h: int, w: int, rows: int, numbers: _Numbers, columns: int | None = None) -> Mask:
    """Return a window of rows × columns at a random place of each image [b, 1, h, w]."""
    rows, columns = min(rows, h), min(columns or rows, w)
    top = numbers.below(h - rows + 1, 1, 1, 1)
    left = numbers.below(w - columns + 1, 1, 1, 1)
    down, across = torch.arange(h).view(1, 1, h, 1), torch.arange(w).view(1, 1, 1, w)
    return (down >= top) & (down < top + rows) & (across >= left) & (across < left + columns)


def _stripes(image: Images, eps: float, numbers: _Numbers) -> Tensor:
    """Return ±ε for each channel and column."""
    _, c, _, w = image.shape
    return eps * numbers.signs(c, 1, w).to(image).expand_as(image).clone()


def _pyramids(image: Images, eps: float, numbers: _Numbers) -> Tensor:
    """Return a grid of five by five pyramids of random sign."""
    _, c, h, w = image.shape
    rows, columns = max(1, h // 5), max(1, w // 5)
    delta = torch.zeros_like(image)
    for top in range(0, h - rows + 1, rows):
        for left in range(0, w - columns + 1, columns):
            tile = _pyramid(rows, columns, False).to(image)
            signs = numbers.signs(c, 1, 1).to(image)
            delta[:, :, top : top + rows, left : left + columns] = tile * signs
    return delta / per_example(delta.flatten(1).norm(dim=1).clamp_min(1e-12) / eps, delta)


def _pyramid(rows: int, columns: int, turned: bool) -> Tensor:
    """Return a pyramid and its negative side by side, of norm 1 [rows, columns]."""
    if turned:
        return _pyramid(columns, rows, False).T
    half = rows // 2
    both = torch.cat([_hill(half, columns), -_hill(rows - half, columns)])
    scaled: Tensor = both / both.norm().clamp_min(1e-12)
    return scaled


def _hill(rows: int, columns: int) -> Tensor:
    """Return Σ_k 1/k² over squares around the middle, of side 2k − 1, until one covers all."""
    down = (torch.arange(rows) - rows // 2).abs()[:, None]
    across = (torch.arange(columns) - columns // 2).abs()[None]
    ring = torch.maximum(down.expand(rows, columns), across.expand(rows, columns))
    terms = 1 / torch.arange(1, max(rows, columns) // 2 + 2).double().square()
    sums = terms.flip(0).cumsum(0).flip(0)
    hill: Tensor = sums[ring].float()
    return hill


def _looked(model: nn.Module, x: Images, y: Labels) -> tuple[Tensor, Mask]:
    found = batched_logits(model, x, len(x))
    lead = margin(found, y).to(x.dtype).nan_to_num(nan=-torch.inf)
    return lead, answers(found) != y
