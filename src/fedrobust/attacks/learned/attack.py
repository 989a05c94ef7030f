"""The two-stage learned attack (DRFL §3)."""

import os
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Gt
from pydantic import AllowInfNan, Strict, model_validator

from fedrobust.attacks.attack import Truth
from fedrobust.attacks.checks import validate
from fedrobust.attacks.learned.encoding import AnyEncoding, Basis
from fedrobust.attacks.learned.inversion import Inversion
from fedrobust.attacks.learned.training import Training
from fedrobust.config.component import Count, NonNegative, Size, Text, keyword_component
from fedrobust.errors import ConfigError
from fedrobust.federation.threat import Knowledge as Granted
from fedrobust.federation.threat import View
from fedrobust.perturb.wasserstein import Ascent
from fedrobust.typing import Updates

State = dict[str, Any]


@keyword_component
class Learned:
    """Observe and reconstruct, train a policy on a simulated federation, then act by it (DRFL §3).

    Stage one: after round ``wait`` it observes, for at most ``observe`` rounds, and reconstructs a
    batch a round by ``inversion`` from the step that the server has made; it sends honest updates
    up to then. It stops once the Wasserstein distance of consecutive pools is below ``threshold``.
    ``data`` says what the simulated clients then draw from: the ``learned`` examples, the ``own``
    ones, or ``both``. A policy learns from where the federation stands when it is trained, so
    ``wait`` until the model is worth attacking.

    Stage two: ``training`` finds a policy that maximises the sum of discounted rewards in episodes
    of ``horizon`` simulated rounds, an action held for ``hold`` of them; ``encoding`` says what it
    sees and does. The reward is the decrease of ρ̂ (``robustness``, the paper's), or the increase of
    the ``worst-case-loss`` or of the ``loss``, on ``samples`` fixed examples, with ``ascent`` and
    the price ``gamma`` (the objective's own unless given). ``precision`` is that of the simulated
    clients' and the reward's arithmetic; small networks are simulated in float64 anyway.

    Where the threat model grants the rule, the simulated server uses it (white-box), else the mean
    (black-box). With ``relearn``, it trains again after that many rounds of acting, from where the
    federation then stands. With ``policy``, a file written by ``fedrobust attack learn``, both
    stages are left out.

    It knows its own data, what every client knows, and the number of clients or a lower bound.
    Where it was not in every round so far, the simulation leaves it out as often.

    Reference: DRFL §3. Differences from the paper: an episode has ``horizon`` rounds, not all the
    T − k that are left; an action is held for ``hold`` of them; ρ̂ and the paper's ζ are taken on
    ``samples`` of the examples that ``data`` names, by default the own ones among them; and see
    ``encoding``, ``inversion`` and ``training``. ``full`` or ``compact`` with scale ``zeta``,
    ``PAPER``, ``hold: 1`` and ``data: learned`` come nearest to it.
    """

    wait: Size = 0
    observe: Size = 20
    threshold: NonNegative = 0.005
    inversion: Inversion | None = Inversion()
    data: Literal["learned", "own", "both"] = "both"
    encoding: AnyEncoding = Basis()
    training: Training = Training()
    reward: Literal["robustness", "worst-case-loss", "loss"] = "robustness"
    gamma: Annotated[float, Strict(), AllowInfNan(False), Gt(0)] | None = None
    ascent: Ascent = Ascent(steps=15, rule="decaying")
    samples: Count = 200
    precision: Literal["float32", "bfloat16"] = "float32"
    horizon: Count = 300
    hold: Count = 10
    relearn: Size = 0
    policy: Text | None = None
    name: Literal["learned"] = "learned"

    starts_by: ClassVar[str] = "wait"
    needs: ClassVar[frozenset[Granted]] = frozenset({"clients"})
    least: ClassVar[int] = 1
    trains: ClassVar[bool] = True
    memory: ClassVar[int] = 1

    @model_validator(mode="after")
    def _fits(self) -> "Learned":
        if self.hold > self.horizon:
            raise ValueError(f"hold = {self.hold} is longer than horizon = {self.horizon}")
        if self.precision == "bfloat16" and self.ascent.searches:
            raise ValueError("ascent: one that searches its step needs precision float32")
        if self.data == "learned" and self.inversion is None and self.policy is None:
            raise ValueError("data: learned needs an inversion: set data: own, or leave it out")
        if self.policy is not None:
            from fedrobust.attacks.learned.files import opened

            if not os.path.isfile(self.policy):
                is_there = "no file, but a folder" if os.path.isdir(self.policy) else "no file"
                raise ValueError(
                    f"policy: {self.policy} is {is_there}; fedrobust attack learn writes one"
                )
            with opened(self.policy):
                pass
        return self

    @property
    def begins(self) -> int:
        """After ``wait``, and where it has no policy yet, after the least that it observes.

        A distance between pools, which may end it early, takes the steps of two rounds.
        """
        if self.policy is not None:
            return self.wait + 1
        may_stop = self.inversion is not None and self.threshold > 0
        return self.wait + 1 + (min(self.observe, 2) if may_stop else self.observe)

    def init(self) -> State:
        """Nothing is known yet.

        Raises: ``ConfigError`` where what it will need is not installed.
        """
        needed = ["gymnasium"]
        if self.policy is None or self.relearn:
            needed += ["ot"] + ["stable_baselines3"] * self.training.learns
        missing = [name for name in needed if find_spec(name) is None]
        if missing:
            raise ConfigError(
                f"a learned attack needs {', '.join(missing)}: pip install 'fedrobust[learned]'"
            )
        return {}

    def craft(self, state: State, view: View, rng: torch.Generator) -> tuple[Updates, State]:
        """Honest updates while it observes; what the policy says after that [m, d]."""
        from fedrobust.attacks.learned import observing, pipeline
        from fedrobust.attacks.learned.knowledge import Knowledge

        validate(self, view, rng)
        known = Knowledge.of(state)
        known.met, known.most = known.met + 1, max(known.most, view.rows)
        if view.round <= self.wait:
            known.last = view.round
            return view.own, known.saved()
        if self.policy is not None and not known.over:
            known.over = True
            pipeline.adopt(known, self, view)
        elif not known.over:
            known.over = observing.observe(known, self, view, rng)
            if known.over:
                pipeline.learn(known, self, view, rng)
        elif known.acts and self.relearn and view.round - known.tried >= self.relearn:
            pipeline.learn(known, self, view, rng)
        rows = pipeline.act(known, self, view, rng) if known.acts else view.own
        known.last = view.round
        return rows, known.saved()

    def report(self, state: State, truth: Truth | None = None) -> dict[str, Any]:
        """What was observed, learned and spent; with the truth, how near the data came to it."""
        from fedrobust.attacks.learned.knowledge import Knowledge, compared

        known, told = Knowledge.of(state), list[str]()
        if not known.met:
            told = ["it was never selected: it neither observed nor attacked"]
        elif not known.over:
            first = (
                "" if self.policy is not None else f", after it has observed {self.observe} more"
            )
            told = [
                f"the run ended before it attacked: it took part in {known.met} rounds, and acts "
                f"after round {self.wait}{first}"
            ]
        troubles = [*known.troubles, *told]
        return known.report() | {"troubles": troubles, "comparison": compared(known, truth)}

    def pictures(self, state: State, truth: Truth) -> dict[str, Any] | None:
        """The last images that were reconstructed, beside the real ones nearest to them."""
        from fedrobust.attacks.learned.knowledge import Knowledge, pictures

        return pictures(Knowledge.of(state), truth)
