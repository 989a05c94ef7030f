"""The two-stage learned attack (DRFL §3)."""

from importlib.util import find_spec
from typing import Any, Literal

import torch

from fedrobust.attacks.checks import broadcast, validate
from fedrobust.attacks.learned.settings import Settings
from fedrobust.config.component import keyword_component
from fedrobust.errors import ConfigError
from fedrobust.federation.attack import Requirements, Truth
from fedrobust.federation.one_call import on_rows
from fedrobust.federation.threat import View
from fedrobust.typing import Updates

State = dict[str, Any]


@keyword_component
class Learned(Settings):
    """Observe and reconstruct, train a policy on a simulated federation, then act by it (DRFL §3).

    Stage one: after round ``wait`` the attack observes, for at most ``observe`` rounds, or, with
    ``observe: {epochs: 3}``, for as many rounds as three epochs of its own data have. In each of
    these rounds it reconstructs a batch by ``inversion`` from the server's last step. Until the end
    of this stage it sends honest updates. The stage ends early once the Wasserstein distance of
    consecutive pools is below ``threshold``. ``data`` says what the data of the simulated clients
    are drawn from: the ``learned`` examples, the ``own`` ones, or ``both``. A policy is trained for
    the state of the federation at that time, so ``wait`` until the model is worth attacking.

    Stage two: ``training`` finds a policy that maximises the sum of discounted rewards in episodes
    of ``horizon`` simulated rounds, with each action held for ``hold`` rounds. With ``horizon:
    rest`` an episode is all that is left of the run, and ends with it. ``encoding`` defines the
    observations and the actions. The reward is the decrease of ρ̂ (``robustness``, the paper's), or
    the increase of the ``worst-case-loss``, of the ``loss`` or of the ``error``, on ``samples``
    fixed examples, with ``ascent`` and the price ``gamma`` (by default the objective's own). An
    episode's sum of rewards is the final harm minus the first. Its unit is the harm at the start of
    the attack, of losses at least a tenth of that of a guess, ln C; with ``reward_unit: absolute``
    it is taken as it is. The error, the share of wrong answers, has no such unit. It has no
    gradient either, so the direction in which it grows is taken to be that of the loss.
    ``precision`` is the precision of the simulated clients and of the reward; small networks are
    always simulated in float64.

    Where the threat model grants the rule, the simulated server uses it (white-box), else the mean
    (black-box). With ``relearn``, the attack trains again after this many rounds of acting, from
    the state of the federation at that time. It then has no new data. With
    ``observe_again``, it observes in this many rounds before each new training, and the pool grows.
    Where it knows that the rule is the mean, and the number of clients, it acts in these rounds as
    well; otherwise it sends honest updates. With ``policy``, a file written by
    ``fedrobust attack learn``, both stages are left out.

    The attacker knows its own data, what every client knows, and the number of clients or a lower
    bound. Where it did not take part in every round so far, the simulation selects it equally
    rarely.

    Reference: DRFL §3. :data:`~fedrobust.attacks.learned.paper.PAPER` is the attack of the paper,
    and its page gives each setting with its source. Differences of the defaults from the paper: an
    episode has a fixed length; an action is held for ``hold`` rounds; ρ̂ and the paper's ζ are
    computed on ``samples`` of the examples that ``data`` names, which by default include the own
    ones; see also ``encoding``, ``inversion`` and ``training``.

    Cost: an inversion for each round observed, then the simulated rounds of the training; both are
    reported. After that, where `harm` is among the directions, two ascents and two gradients on
    `samples` examples a round.

    Example: ``{name: learned, observe: 20, horizon: 300}``
    """

    name: Literal["learned"] = "learned"
    __call__ = on_rows

    @property
    def requires(self) -> Requirements:
        """The number of clients, or a lower bound on it, and the last earlier broadcast.

        The attack acts after ``wait``; without a policy, it first observes the least number of
        rounds. A distance between pools, which may end the observation early, takes the steps of
        two rounds. How many rounds ``observe`` epochs have depends on the run.
        """
        observed, latest = 0, None
        if self.policy is None:
            may_stop = self.inversion is not None and self.threshold > 0
            if isinstance(self.observe, int):
                most = self.observe
                latest = self.wait + 1 + most
            else:
                most = self.observe.epochs  # at least, for an epoch has one round or more
            observed = min(most, 2) if may_stop else most
        return Requirements(
            knowledge={"clients"},
            history=1,
            first_round=self.wait + 1 + observed,
            latest_start=latest,
            start_field="wait",
            uses_model=True,
            uses_rounds=self.horizon == "rest" and (self.policy is None or self.relearn > 0),
            simulates=True,
        )

    def init(self) -> State:
        """Return the state in which nothing is known yet.

        Raises: ``ConfigError`` where a package that it will need is not installed.
        """
        needed = ["gymnasium"]
        if self.policy is None or self.relearn:
            needed += ["ot", *filter(None, [self.training.package])]
        missing = [name for name in needed if find_spec(name) is None]
        if missing:
            raise ConfigError(
                f"a learned attack needs {', '.join(missing)}: pip install 'fedrobust[learned]'"
            )
        return {}

    def craft(self, state: State, view: View, rng: torch.Generator) -> tuple[Updates, State]:
        """Return honest updates while it observes, and the policy's updates after that [m, d]."""
        from fedrobust.attacks.learned import stage_one, stage_two
        from fedrobust.attacks.learned.attacker_state import AttackerState

        validate(self, view, rng)
        known = AttackerState.of(state, view.host.progress)
        known.met, known.rows, acts = known.met + 1, known.rows + view.rows, True
        known.most = max(known.most, view.rows)
        if view.round <= self.wait:
            known.last = view.round
            return view.own, known.saved()
        broadcast(self, view)
        if self.policy is not None and not known.over:
            known.over = True
            stage_two.adopt(known, self, view)
        elif not known.over:
            known.over = stage_one.observe(known, self, view, rng)
            if known.over:
                stage_two.learn(known, self, view, rng)
        elif known.acts and self.relearn:
            due = known.tried + self.relearn - view.round
            if self.observe_again and due <= self.observe_again:
                acts = stage_one.observe_again(known, self, view, rng, due)
            if due <= 0:
                stage_two.learn(known, self, view, rng)
        rows = view.own
        if known.acts and acts:
            rows = stage_two.act(known, self, view, rng)
            if self.observe_again:
                known.own = rows.clone()  # to be subtracted from the step
        known.last = view.round
        return rows, known.saved()

    def report(self, state: State, truth: Truth | None = None) -> dict[str, Any]:
        """Report what was observed, learned and spent, and with ``truth`` the error of the data."""
        from fedrobust.attacks.learned.attacker_state import AttackerState, compared

        known, told = AttackerState.of(state), list[str]()
        if not known.met:
            told = ["it was never selected: it neither observed nor attacked"]
        elif not known.over:
            first = "" if self.policy is not None else f", after it has observed {self._observes}"
            told = [
                f"the run ended before it attacked: it took part in {known.met} rounds, and acts "
                f"after round {self.wait}{first}"
            ]
        troubles = [*known.troubles, *told]
        return known.report() | {"troubles": troubles, "comparison": compared(known, truth)}

    @property
    def _observes(self) -> str:
        """How long it observes, in words."""
        if isinstance(self.observe, int):
            return f"{self.observe} more"
        return f"for {self.observe.epochs} epoch{'s' * (self.observe.epochs > 1)}"

    def pictures(self, state: State, truth: Truth) -> dict[str, Any] | None:
        """Return the last images that were reconstructed, and the real ones nearest to them."""
        from fedrobust.attacks.learned.attacker_state import AttackerState, pictures

        return pictures(AttackerState.of(state), truth)
