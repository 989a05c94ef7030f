"""Attacks on training: the updates that malicious clients send."""

from fedrobust.attacks.a_little_is_enough import ALittleIsEnough
from fedrobust.attacks.distillation import Distillation
from fedrobust.attacks.gaussian_noise import GaussianNoise
from fedrobust.attacks.inner_product import InnerProduct
from fedrobust.attacks.label_flip import LabelFlip
from fedrobust.attacks.learned import Learned
from fedrobust.attacks.local_model_poisoning import LocalModelPoisoning
from fedrobust.attacks.mimic import Mimic
from fedrobust.attacks.min_max import MinMax
from fedrobust.attacks.min_sum import MinSum
from fedrobust.attacks.shrink import Shrink
from fedrobust.attacks.sign_flip import SignFlip
from fedrobust.attacks.wrappers.budgeted import Budgeted
from fedrobust.attacks.wrappers.delayed import Delayed
from fedrobust.attacks.wrappers.jittered import Jittered
from fedrobust.attacks.wrappers.optimized import Optimized
from fedrobust.attacks.zero_update import ZeroUpdate
from fedrobust.clients.poisoning import Poisons
from fedrobust.federation.attack import ATTACK, AnyAttack, Attack, Requirements

ATTACKS = ATTACK.of(
    GaussianNoise,
    ZeroUpdate,
    Shrink,
    SignFlip,
    InnerProduct,
    ALittleIsEnough,
    LocalModelPoisoning,
    MinMax,
    MinSum,
    Mimic,
    LabelFlip,
    Distillation,
    Learned,
    Budgeted,
    Delayed,
    Jittered,
    Optimized,
)
"""All attacks. Add a new attack here."""

__all__ = [
    "ATTACKS",
    "ALittleIsEnough",
    "AnyAttack",
    "Attack",
    "Budgeted",
    "Delayed",
    "Distillation",
    "GaussianNoise",
    "InnerProduct",
    "Jittered",
    "LabelFlip",
    "Learned",
    "LocalModelPoisoning",
    "Mimic",
    "MinMax",
    "MinSum",
    "Optimized",
    "Poisons",
    "Requirements",
    "Shrink",
    "SignFlip",
    "ZeroUpdate",
]
