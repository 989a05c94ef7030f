"""The learned attack of the DRFL paper, setting by setting, each with its source.

A config cannot refer to ``PAPER``; ``experiments/drfl/ring-paper.yaml`` and the others spell it
out, and a test compares them with it.
"""

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from fedrobust.attacks.learned.attack import Learned
from fedrobust.attacks.learned.encoding import Compact, Full
from fedrobust.attacks.learned.inversion import Inversion
from fedrobust.attacks.learned.settings import Epochs
from fedrobust.attacks.learned.training import Training
from fedrobust.config.component import to_config

_DDPG = Training(
    algorithm="ddpg",
    start="random",
    steps=25_000,
    hidden=(400, 300),
    learning_rate=1e-3,
    batch_size=100,
    memory=1_000_000,
    learning_starts=100,
    polyak=0.005,
    discount=0.99,
    noise=0.0,
    train_every="episode",
    gradient_steps=-1,
    normalise=False,
    check_every=1,
    check_episodes=1,
    keep="last",
)

_RING = Learned(
    observe=Epochs(3),
    threshold=0.0,
    inversion=Inversion(method="lbfgs", iterations=300),
    data="learned",
    encoding=Full(scale="zeta", sees="parameters"),
    training=_DDPG,
    reward="robustness",
    reward_unit="absolute",
    samples=1000,
    horizon="rest",
    hold=1,
)

PAPER = MappingProxyType(
    {
        "ring": _RING,
        "mnist": replace(
            _RING,
            observe=Epochs(5),
            encoding=Compact(scale="zeta", sees="parameters", layer="last-hidden"),
        ),
    }
)
"""DRFL §3 and §4: the attack on the ring (Figure 2), and the attack on MNIST (Figure 3)."""


@dataclass(frozen=True)
class Setting:
    """One row of the table: a setting, what the paper says of it, where, and our field.

    ``field`` is the path of the setting in ``PAPER``; it is empty where the setting is no field.
    ``figure`` is the experiment whose setting it is. ``deviation`` is the number of a difference
    among ``DEVIATIONS``, or 0.
    """

    what: str
    paper: str
    source: str
    field: str = ""
    figure: Literal["ring", "mnist", "both"] = "both"
    deviation: int = 0


_ONE, _TWO, _RING_DATA, _MNIST_DATA = "§3, stage one", "§3, stage two", "§4, synthetic", "§4, MNIST"
_LIBRARY = "the library’s defaults"
SETTINGS = (
    Setting("observation, ring", "3 epochs", _RING_DATA, "observe", "ring"),
    Setting("observation, MNIST", "5 epochs", _MNIST_DATA, "observe", "mnist"),
    Setting(
        "end of stage one", "distance of consecutive pools < 0.005", _ONE, "threshold", "both", 8
    ),
    Setting("gradient matching", "DLG", _ONE, "inversion.method"),
    Setting("labels", "learned, as a softmax", _ONE, "inversion.labels", deviation=10),
    Setting("its iterations", "300", _ONE, "inversion.iterations", deviation=1),
    Setting("it starts from", "the attacker’s own data", _ONE),
    Setting("the simulated clients’ data", "the learned distribution", _ONE, "data"),
    Setting("state, ring", "θ", _TWO, "encoding.sees", "ring"),
    Setting("action, ring", "a gradient", _TWO, "encoding.name", "ring"),
    Setting("state, MNIST", "the last hidden layer", _TWO, "encoding.layer", "mnist", deviation=7),
    Setting("its form", "parameters, in [−inf, inf]", _MNIST_DATA, "encoding.sees", "mnist"),
    Setting("action, MNIST", "one factor of the gradient", _TWO, "encoding.name", "mnist"),
    Setting("rescaling", "to [ζmin, ζmax]", _TWO, "encoding.scale"),
    Setting("reward", "ρ̂(θ^{t−1}) − ρ̂(θ^t)", "§3, the RL problem", "reward", deviation=9),
    Setting("its unit", "as printed", "§3, the RL problem", "reward_unit", deviation=2),
    Setting("ρ̂ and ζ are taken on", "all learned examples", "§2, §3", "samples", deviation=3),
    Setting("an episode", "all T − k rounds that are left", _TWO, "horizon"),
    Setting("an action is held for", "one round", "§3, the RL problem", "hold"),
    Setting("policy learner", "DDPG", _TWO, "training.algorithm"),
    Setting("its start", "random weights", _LIBRARY, "training.start"),
    Setting("networks", "[400, 300]", _LIBRARY, "training.hidden"),
    Setting("learning rate", "0.001", _LIBRARY, "training.learning_rate"),
    Setting("batch", "100", _LIBRARY, "training.batch_size"),
    Setting("replay memory", "1,000,000", _LIBRARY, "training.memory", deviation=4),
    Setting("first update after", "100 steps", _LIBRARY, "training.learning_starts"),
    Setting("target networks, τ", "0.005", _LIBRARY, "training.polyak"),
    Setting(
        "discount", "0.99; the text argues with β = 1", _LIBRARY, "training.discount", deviation=5
    ),
    Setting("exploration noise", "none", _LIBRARY, "training.noise"),
    Setting("updates after", "each episode", _LIBRARY, "training.train_every"),
    Setting("their number", "the steps of the episode (−1)", _LIBRARY, "training.gradient_steps"),
    Setting("normalised states and rewards", "no", _LIBRARY, "training.normalise"),
    Setting("the policy that acts", "the last one", _LIBRARY, "training.keep"),
    Setting(
        "length of the training",
        "2 minutes (ring), 7 minutes (MNIST)",
        "§4",
        "training.steps",
        deviation=6,
    ),
)
"""Every setting of the paper's attack, in the order in which it is used."""

DEVIATIONS = MappingProxyType(
    {
        1: "DLG's published code makes 300 calls of L-BFGS, of up to twenty iterations each. Here "
        "300 iterations are made. Twenty times as many would take up to twenty times as long as "
        "stage one takes ([what it takes](performance.md#the-learned-attack)).",
        2: "A ρ̂ above 100, or one that is not finite, counts as 100. The paper has no bound.",
        3: "They are taken on 1,000 of the learned examples, drawn once. Three epochs have 15,072, "
        "with which a run on the ring would take longer than 15 minutes "
        "([by how much](performance.md#the-learned-attack)).",
        4: "At most 1 GiB of steps are remembered: all of them on the ring.",
        5: "The library's 0.99 is played as `paper`, and 1 as `beta-1`.",
        6: "The paper gives minutes and no number of steps. 25,000 steps are played, in whole "
        "episodes: six on the ring, and ten times as many steps as in `ring-learned` "
        "([what an episode takes](performance.md#the-learned-attack)).",
        7: "The two configs for MNIST, `mnist-paper` and `mnist-learned-paper`, see the output "
        "layer instead of the last hidden layer. The last hidden layer has 409,728 numbers, and "
        "25,632 at quarter width, with which an update of DDPG takes thirty times as long.",
        8: "The paper does not say how it is measured. By the Wasserstein distance with "
        "‖x − x′‖₂ / (s √D), s the deviation of the data, and 1 for another label, it shrinks "
        "as 1/t whatever was learned, since the newest batch is an ever smaller part of the pool: "
        "in the records of `ring-learned` it is 0.02 to 0.04 after 20 rounds. Below 0.005 it would "
        "end stage one long before the paper's epochs, so that it ends nothing here.",
        9: "The paper does not say by which ascent ρ̂ is found. Here it has 15 steps of 1/√t, where "
        "clients of the ring take 8 of 1.5/√t.",
        10: "The paper does not say which labels its simulated clients have. Here each example has "
        "the likeliest one of its softmax. The gradient of these examples is another one than the "
        "one that was matched: the records give the mismatch of both.",
    }
)
"""The differences from the paper by their numbers, with what the paper's own way would cost."""

LIBRARY = (
    "Stable-Baselines3 before 2.3. The paper cites nothing later than 2020, the year of the first "
    "releases with DDPG (0.8.0 in August, 0.9.0 and 0.10.0 in October). Version 2.3.0 (March 2024) "
    'is the first with other defaults: its changelog has `train_freq=(1, "episode"), '
    "gradient_steps=-1, batch_size=100` for all versions before (until 0.11.0 written as "
    "`n_episodes_rollout=1, train_freq=-1`). The others are in `stable_baselines3/ddpg/ddpg.py` "
    "and, for the networks, `stable_baselines3/td3/policies.py`."
)
"""Where the library's defaults come from."""


def value(setting: Setting, figure: Literal["ring", "mnist"]) -> Any:
    """Return our value of ``setting``, as in a config; None where it is no field."""
    found: Any = to_config(PAPER[figure])
    for name in filter(None, setting.field.split(".")):
        found = found[name]
    return found if setting.field else None
