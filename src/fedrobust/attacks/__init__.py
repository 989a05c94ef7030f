"""Attacks on training: what malicious clients send."""

from typing import TYPE_CHECKING, Any, TypeAlias

from fedrobust.attacks.a_little_is_enough import ALittleIsEnough
from fedrobust.attacks.attack import Attack, Poisons
from fedrobust.attacks.gaussian_noise import GaussianNoise
from fedrobust.attacks.inner_product import InnerProduct
from fedrobust.attacks.sign_flip import SignFlip
from fedrobust.component import one_of

ATTACKS: tuple[type, ...] = (GaussianNoise, SignFlip, InnerProduct, ALittleIsEnough)
if TYPE_CHECKING:
    AnyAttack: TypeAlias = Attack
else:
    AnyAttack: Any = one_of("attack", *ATTACKS, has=("craft",))

__all__ = [
    "ATTACKS",
    "ALittleIsEnough",
    "AnyAttack",
    "Attack",
    "GaussianNoise",
    "InnerProduct",
    "Poisons",
    "SignFlip",
]
