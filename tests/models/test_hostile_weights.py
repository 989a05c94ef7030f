"""Weights that somebody made to harm, and networks that no machine holds."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from damaged import refused, tensors
from modest import modestly
from safetensors.torch import save_file
from torch import nn

from fedrobust.errors import ResourceError
from fedrobust.models import EluCnn, LeafCnn, MnistCnn, build, build_model
from fedrobust.records import reading


def f32(*shape: int, at: tuple[int, int]) -> dict[str, Any]:
    return {"dtype": "F32", "shape": list(shape), "data_offsets": list(at)}


FILES: dict[str, bytes] = {
    "nothing": b"",
    "seven bytes": b"1234567",
    "a header beyond the file": tensors({}, length=2**62),
    "a header of no length": tensors({}, length=0),
    "a header that is longer than the file": tensors({}, length=100),
    "a header that is no JSON": tensors(b"hello   "),
    "a header of a list": tensors([]),
    "a header of 10,000 levels": tensors(b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
    "a header that is no text": tensors(b"\xff" * 8),
    "tensors that overlap": tensors({"a": f32(2, at=(0, 8)), "b": f32(2, at=(4, 12))}, bytes(12)),
    "tensors at one place": tensors({"a": f32(2, at=(0, 8)), "b": f32(2, at=(0, 8))}, bytes(8)),
    "a hole": tensors({"a": f32(2, at=(0, 8)), "b": f32(2, at=(16, 24))}, bytes(24)),
    "more than there is": tensors({"a": f32(10**15, at=(0, 4 * 10**15))}, bytes(8)),
    "another size": tensors({"a": f32(3, at=(0, 8))}, bytes(8)),
    "a size that wraps around": tensors({"a": f32(2**32, 2**32, at=(0, 0))}),
    "a side below 0": tensors({"a": f32(-1, at=(0, 4))}, bytes(4)),
    "places that go back": tensors({"a": f32(2, at=(8, 0))}, bytes(8)),
    "places beyond 64 bits": tensors({"a": f32(1, at=(2**64 - 4, 2**64))}, bytes(4)),
    "another type": tensors({"a": f32(1, at=(0, 4)) | {"dtype": "O32"}}, bytes(4)),
    "more bytes than are named": tensors({"a": f32(1, at=(0, 4))}, bytes(8)),
}


@pytest.mark.parametrize("kind", FILES)
def test_hostile_weights(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(FILES[kind])
    with modestly():
        said = refused(
            tmp_path, "model.safetensors is broken", lambda: reading.fill(nn.Linear(2, 2), path)
        )
    assert len(said) < 1000


def test_weights_of_nothing_by_anything(tmp_path: Path) -> None:
    """A side of 10¹⁵, of no values: it is a tensor, and none of the network."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(
        tensors({"weight": f32(10**15, 0, at=(0, 0)), "bias": f32(2, at=(0, 8))}, bytes(8))
    )
    said = "holds the weights of another network: weight is .* there"
    with modestly():
        refused(tmp_path, said, lambda: reading.fill(nn.Linear(2, 2), path))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_weights_of_another_kind_are_of_another_network(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "model.safetensors"
    for given, fits in ((dtype, False), (torch.float16, True), (torch.float64, True)):
        save_file({"weight": torch.ones(2, 2), "bias": torch.ones(2).to(given)}, path)
        model = nn.Linear(2, 2)
        if fits:
            reading.fill(model, path)
            assert model.bias.tolist() == [1, 1]
        else:
            said = f"of another network: bias is of {given} there, of torch.float32 in the network"
            refused(tmp_path, said, lambda: reading.fill(model, path))  # noqa: B023


class Wide:
    """Somebody's own network, with a layer as wide as a config says."""

    def __init__(self, width: int, depth: int = 1) -> None:
        self.width, self.depth, self.built = width, depth, 0

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        self.built += 1
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(math.prod(shape), self.width)]
        layers += [nn.Linear(self.width, self.width) for _ in range(self.depth - 1)]
        return nn.Sequential(*layers, nn.Linear(self.width, classes))


class Padding:
    """Few parameters, and much between them."""

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        return nn.Sequential(
            nn.ZeroPad2d(2**17), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, classes)
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (Wide(2**31 - 1), (1, 8, 8)),
        (Wide(2**15, depth=200), (1, 8, 8)),
        (Padding(), (1, 8, 8)),
        (MnistCnn(), (1, 2**14, 2**14)),
        (LeafCnn(), (1, 2**14, 2**14)),
        (EluCnn(), (1, 2**18, 2**12)),
    ],
)
def test_a_network_that_no_machine_holds_is_not_built(spec: Any, shape: tuple[int, ...]) -> None:
    build_model(Wide(2), (1, 8, 8), 10, torch.Generator(), trains=False)  # what is loaded once
    with (
        modestly(seconds=2),
        pytest.raises(
            ResourceError, match=r"too large for this machine on examples of shape .* GiB"
        ),
    ):
        build_model(spec, shape, 10, torch.Generator(), trains=False)


def test_what_fits_is_built_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether its size was looked at changes neither the weights nor what is drawn next."""
    for spec, shape in ((MnistCnn(), (1, 28, 28)), (Wide(8), (1, 8, 8))):
        found = []
        for plenty in (0, 2**40):
            monkeypatch.setattr(build, "_PLENTY", plenty)
            torch.manual_seed(3)
            generator = torch.Generator().manual_seed(5)
            model = build_model(spec, shape, 10, generator, trains=True)  # type: ignore[arg-type]
            found.append((*(p.detach().clone() for p in model.parameters()), torch.rand(3)))
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_network_of_ones_own_that_trains_is_built_once() -> None:
    spec = Wide(4)
    build_model(spec, (1, 8, 8), 10, torch.Generator())
    assert spec.built == 1


def test_a_size_that_cannot_be_told_stops_nothing() -> None:
    class Odd:
        def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
            model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))
            model[1].bias.data.numpy()[:] = 3.0  # which the meta device has not
            return model

    model = build_model(Odd(), (1, 8, 8), 10, torch.Generator(), trains=False)
    assert float(model.state_dict()["1.bias"][0]) == 3.0
