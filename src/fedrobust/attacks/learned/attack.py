"""The two-stage learned attack (DRFL §3)."""

from importlib.util import find_spec
from typing import Any, Literal

import torch

from fedrobust.attacks.checks import validate
from fedrobust.attacks.learned.settings import Settings
from fedrobust.config.component import keyword_component
from fedrobust.errors import ConfigError
from fedrobust.federation.attack import Requirements, Truth
from fedrobust.federation.threat import View
from fedrobust.typing import Updates

State = dict[str, Any]


@keyword_component
class Learned(Settings):
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

    Cost: an inversion for each round observed, then the simulated rounds of its training, both
    reported; after that two ascents and two gradients on `samples` examples a round, where
    `harm` is among the directions.

    Example: ``{name: learned, observe: 20, horizon: 300}``
    """

    name: Literal["learned"] = "learned"

    @property
    def requires(self) -> Requirements:
        """The number of clients, or a lower bound on it, and the broadcast before this one.

        It acts after ``wait``, and where it has no policy yet, after the least that it observes. A
        distance between pools, which may end that early, takes the steps of two rounds.
        """
        observed = 0
        if self.policy is None:
            may_stop = self.inversion is not None and self.threshold > 0
            observed = min(self.observe, 2) if may_stop else self.observe
        return Requirements(
            knowledge={"clients"},
            history=1,
            first_round=self.wait + 1 + observed,
            start_field="wait",
        )

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
        from fedrobust.attacks.learned import stage_one, stage_two
        from fedrobust.attacks.learned.attacker_state import AttackerState

        validate(self, view, rng)
        known = AttackerState.of(state, view.host.progress)
        known.met, known.most = known.met + 1, max(known.most, view.rows)
        if view.round <= self.wait:
            known.last = view.round
            return view.own, known.saved()
        if self.policy is not None and not known.over:
            known.over = True
            stage_two.adopt(known, self, view)
        elif not known.over:
            known.over = stage_one.observe(known, self, view, rng)
            if known.over:
                stage_two.learn(known, self, view, rng)
        elif known.acts and self.relearn and view.round - known.tried >= self.relearn:
            stage_two.learn(known, self, view, rng)
        rows = stage_two.act(known, self, view, rng) if known.acts else view.own
        known.last = view.round
        return rows, known.saved()

    def report(self, state: State, truth: Truth | None = None) -> dict[str, Any]:
        """What was observed, learned and spent; with the truth, how near the data came to it."""
        from fedrobust.attacks.learned.attacker_state import AttackerState, compared

        known, told = AttackerState.of(state), list[str]()
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
        from fedrobust.attacks.learned.attacker_state import AttackerState, pictures

        return pictures(AttackerState.of(state), truth)
