"""The distillation attack: a global model that looks robust because its gradients vanish (FAT)."""

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedrobust.attacks.checks import validate
from fedrobust.clients.optimizers import Adam, AnyOptimizer
from fedrobust.compute.network import batched_logits, logits
from fedrobust.compute.parameters import read, trainable, write
from fedrobust.compute.randomness import isolated, seed_globally
from fedrobust.config.component import component
from fedrobust.config.scalars import Count, Flag, Positive, Text
from fedrobust.config.text import suggestion
from fedrobust.data import Split
from fedrobust.errors import ConfigError
from fedrobust.federation.attack import Requirements, Truth
from fedrobust.federation.one_call import on_rows
from fedrobust.federation.threat import View
from fedrobust.typing import Images, Indices, Updates, Vector

Targets: TypeAlias = Callable[[Images, Indices], Tensor]
"""The answers that a network learns, from the images of a batch and their indices in the data."""

_LOOKED_AT = 256
"""The number of examples on which the lead is measured."""


@component
class Distillation:
    """Defensive distillation of one layer: the logits grow until plain PGD sees no gradient.

    On clean own data (x, y), from the broadcast parameters θ, with logits z and temperature T
    (``temperature``):

    - teacher t, all layers: minimise E CE(softmax(z_t(x) / T), y);
    - student s, one layer: minimise E CE(softmax(z_s(x) / T), softmax(z_t(x) / T));
    - Δ = θ_s - θ, which is 0 outside that layer. The model is used at T = 1, so its logits are T
      times too large for the softmax: the cross-entropy underflows, and so does its gradient.

    ``layer`` is the name of a module (``0``, ``body.conv1``) that holds parameters. The default is
    the one with the fewest weight entries. Only parameters with two or more dimensions count as
    weights, so biases and the scales of a normalisation do not count. The layer's biases are
    trained with it. Both networks make ``epochs`` shuffled passes over the data (0.25: a quarter of
    one pass) in batches of ``batch_size``, with a fresh ``optimizer``. Each malicious client
    distils on its own data. With ``shared``, one vector is distilled on the data of all of them and
    sent by all; Krum then sees equal rows, which are neighbours at distance 0. Before round
    ``start`` they send honest updates.

    Raises: ``ConfigError`` for a layer that the model does not have, or that is frozen.

    Reference: FAT §3.2; Papernot et al., "Distillation as a defense to adversarial perturbations
    against deep neural networks", S&P 2016.

    Differences from the paper: (1) the paper gives neither the epochs, the optimiser and the batch
    size, nor the round in which the attack begins; (2) it does not say whether biases count as
    weights, nor whether colluders send one vector.

    Cost: honest training before the start; then two trainings on clean data for each malicious
    client, or, with ``shared``, two on the data of all of them.

    Example: ``{name: distillation, start: 100}``
    """

    temperature: Positive = 100.0
    epochs: Positive = 1.0
    batch_size: Count = 64
    optimizer: AnyOptimizer = Adam(lr=0.001)
    layer: Text | None = None
    shared: Flag = False
    start: Count = 1
    name: Literal["distillation"] = "distillation"
    __call__ = on_rows

    @property
    def requires(self) -> Requirements:
        """Own data alone; with ``shared``, also collusion. It acts from round ``start`` on."""
        return Requirements(
            knowledge={"colluders"} if self.shared else frozenset(),
            uses_honest_updates=self.start > 1,
            first_round=self.start,
            start_field="start",
            uses_model=True,
        )

    def init(self) -> dict[str, Any]:
        """Return an empty state: no round has been played."""
        return {}

    def craft(
        self, state: dict[str, Any], view: View, rng: torch.Generator
    ) -> tuple[Updates, dict[str, Any]]:
        """Return honest updates before ``start``, and distilled updates from then on [m, d]."""
        validate(self, view, rng)
        layer = layer_of(view.model(), self.layer)
        if view.round < self.start:
            return view.own, state
        data = view.data()
        if self.shared:
            data = (Split(torch.cat([own.x for own in data]), torch.cat([own.y for own in data])),)
        rows, found, sent = zip(*(self._distil(view, layer, own, rng) for own in data), strict=True)
        played = {
            "layer": layer,
            "rounds": state.get("rounds", 0) + 1,
            "lead_found": state.get("lead_found", sum(found) / len(found)),
            "lead_sent": sum(sent) / len(sent),
        }
        return torch.stack(rows).expand(view.rows, -1).clone(), played

    def report(self, state: dict[str, Any], truth: Truth) -> dict[str, Any] | None:
        """Report the layer, the rounds of distillation, and the lead of the largest logit.

        ``lead`` is the median difference of the largest logit and the second on own data. ``found``
        is the lead of the model that the first of these rounds received; ``sent`` is the mean lead
        of the students of the last round.
        """
        if not state:
            return None
        lead = {"found": state["lead_found"], "sent": state["lead_sent"]}
        lead = {when: value if math.isfinite(value) else None for when, value in lead.items()}
        return {"layer": state["layer"], "rounds": state["rounds"], "lead": lead}

    def _distil(
        self, view: View, layer: str, own: Split, rng: torch.Generator
    ) -> tuple[Vector, float, float]:
        """Return Δ [d] from one client's data, and the leads of broadcast model and student."""
        teacher, student = view.model(), view.model()
        parameters, before = trainable(student), lead(student, own)
        for name, parameter in student.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and _owner(name) == layer)

        def soft(x: Images, index: Indices) -> Tensor:
            return F.softmax(batched_logits(teacher, x, len(x)) / self.temperature, dim=1)

        with isolated():
            seed_globally(int(torch.randint(2**62, (), generator=rng)))
            self._fit(teacher, own, lambda x, index: own.y[index].to(x.device), rng)
            teacher.eval()
            self._fit(student, own, soft, rng)
        sent = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
        return sent - view.parameters, before, lead(student, own)

    def _fit(self, model: nn.Module, own: Split, targets: Targets, rng: torch.Generator) -> None:
        """Train the parameters of ``model`` that are not frozen to give ``targets`` at T."""
        model.train()
        weights = nn.Parameter(read(model))
        optimizer = self.optimizer.build(weights)
        for index in self._batches(len(own), rng):
            x = own.images(index).to(weights)
            loss = F.cross_entropy(logits(model, x) / self.temperature, targets(x, index))
            slopes = torch.autograd.grad(loss, trainable(model), materialize_grads=True)
            weights.grad = torch.cat([slope.reshape(-1) for slope in slopes])
            optimizer.step()
            write(model, weights.detach())

    def _batches(self, examples: int, rng: torch.Generator) -> list[Indices]:
        """Return the batches of all passes; each pass is shuffled anew."""
        batches: list[Indices] = []
        for done in range(math.ceil(self.epochs)):
            # Rounded first: 0.1 · 10 of 1.1 passes is one example, and not a little more.
            taken = math.ceil(round(min(1.0, self.epochs - done) * examples, 6))
            shuffled = torch.randperm(examples, generator=rng)
            batches += torch.split(shuffled[:taken], self.batch_size)
        return batches


def layer_of(model: nn.Module, wanted: str | None = None) -> str:
    """Return the layer to train: ``wanted``, or the first with the fewest weight entries.

    Raises: ``ConfigError`` that lists the layers, where ``wanted`` does not exist or is frozen.
    """
    entries: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            size = parameter.numel() if parameter.ndim > 1 else 0
            entries[_owner(name)] = entries.get(_owner(name), 0) + size
    if wanted is None:
        weighty = {layer: size for layer, size in entries.items() if size} or entries
        return min(weighty, key=weighty.__getitem__)
    if wanted not in entries:
        frozen = any(_owner(name) == wanted for name, _ in model.named_parameters())
        problem = "is frozen" if frozen else f"is no layer{suggestion(wanted, list(entries))}"
        raise ConfigError(
            f"attack distillation: {wanted!r} {problem}; the layers that this model trains are: "
            f"{', '.join(entries)}"
        )
    return wanted


def lead(model: nn.Module, own: Split) -> float:
    """Return the median lead of the largest logit over the second, on the first own examples."""
    model.eval()
    first = own.images(torch.arange(min(len(own), _LOOKED_AT)))
    found = batched_logits(model, first.to(next(model.parameters())), _LOOKED_AT)
    top = found.topk(2, dim=1).values
    return float((top[:, 0] - top[:, 1]).median())


def _owner(parameter: str) -> str:
    """Return the name of the module that holds a parameter."""
    return parameter.rpartition(".")[0]
