"""Load a model to audit from a run, from a file of weights, or from a user's own module."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from fedrobust.config import beside
from fedrobust.config.component import component, from_record
from fedrobust.config.explain import explain
from fedrobust.config.trust import CURE, EVERYTHING, NOTHING, Trusted, UntrustedError
from fedrobust.config.yaml import read_yaml
from fedrobust.data import AnyData, Dataset, Npz
from fedrobust.errors import ConfigError, RecordError
from fedrobust.models import LOCAL, AnyModel, BatchNorm, built
from fedrobust.perturb import AnyPerturbation, Pgd
from fedrobust.records.reading import broken, fill, mapping_of, present, tensors_of, unlike
from fedrobust.runs.weights import fill_of_client

_PICKLES = {".pt", ".pth", ".bin", ".ckpt", ".pkl"}
"""How files of weights end that PyTorch reads with pickle."""


@dataclass(frozen=True)
class Source:
    """A model, the data to audit it on, and the attack behind its claim, where that is known.

    ``data`` and ``network`` are the components of the data set and of the model. Surrogates are
    made from them, with their BatchNorm layers treated as ``batch_norm`` says.
    """

    model: nn.Module
    dataset: Dataset
    data: Any
    network: Any
    claim: Pgd | None = None
    batch_norm: BatchNorm = "refuse"


@component
class _Recorded:
    """The part of a run's config that an audit needs. The rest is not read: it may name code."""

    model: AnyModel
    data: AnyData | None
    batch_norm: BatchNorm = "refuse"


@component
class _Claiming:
    attack: AnyPerturbation


def opened(
    where: str,
    data: str | None,
    spec: str | None,
    last: bool,
    trust: bool = False,
    batch_norm: BatchNorm | None = None,
    client: int | None = None,
) -> Source:
    """Load the model ``where``: a run directory, a .safetensors file, or module:name.

    ``data`` and ``spec`` name a data set and a network, by name or as YAML; a run knows its own.
    ``last`` takes a run's last model and not the one that validation chose. For a user's own
    module, ``spec`` is the network of the surrogates. ``batch_norm`` treats the BatchNorm layers of
    ``spec``; a run knows this too. ``trust`` lets a run's config name code as
    its model or its data. ``client`` asks for the model of one client of a run in which each has
    its own.

    Raises: ``UntrustedError`` where a config names code without ``trust``; ``ConfigError`` for
    something that cannot be found or does not fit; ``RecordError`` for a run that is broken or not
    finished; ``DataError`` for the data.
    """
    path = Path(where)
    if os.path.isdir(path):
        if spec is not None:
            raise ConfigError(f"{where} is a run and knows its network: leave --model out")
        if batch_norm is not None:
            raise ConfigError(f"{where} is a run and knows its network: leave --batch-norm out")
        return _of_run(path, data, last, EVERYTHING if trust else NOTHING, client)
    if last:
        raise ConfigError(f"--last is for run directories, and {where} is none: leave it out")
    if not os.path.exists(path) and (path.suffix or ":" not in where or "/" in where):
        raise ConfigError(
            f"{where} does not exist: give a run directory, a .safetensors file, or a module of "
            "your own as package.module:name, without .py"
        )
    if data is None:
        raise ConfigError("name the data to audit on: --data mnist")
    source = _data(data)
    network = None if spec is None else _component(AnyModel, spec, "--model")
    dataset, how = source.load(), batch_norm or "refuse"
    if path.suffix == ".safetensors":
        if network is None:
            raise ConfigError(f"name the network that {path} holds: --model mnist-cnn-small")
        model = _filled(network, path, dataset, how, data=data)
        return Source(model, dataset, source, network, batch_norm=how)
    if path.suffix in _PICKLES:
        code = (
            "import torch; from safetensors.torch import save_file; save_file(torch.load("
            f"{where!r}, weights_only=True), {str(path.with_suffix('.safetensors'))!r})"
        )
        raise ConfigError(
            f"{where} is a pickle, which may run code when it is read. Convert it once; this reads "
            f"weights only: python -c {shlex.quote(code)}"
        )
    if ":" not in where:
        raise ConfigError(
            f"{where} is no run directory and no .safetensors file; a module of your own is "
            "written package.module:name"
        )
    return Source(_own(where), dataset, source, network, batch_norm=how)


def _of_run(
    path: Path, data: str | None, last: bool, trusted: Trusted, client: int | None
) -> Source:
    file = path / ("model.safetensors" if last else "best.safetensors")
    if not present(path / "config.yaml"):
        cells = path / "cells"
        inside = f"; it is a sweep: audit one of {cells}" if cells.is_dir() else ""
        raise RecordError(f"{path} is no run directory: it holds no config.yaml{inside}")
    if not present(file):
        raise RecordError(
            f"{path} holds no {file.name}: finish the run with --resume, or try "
            f"{'without --last' if last else '--last'}"
        )
    config = path / "config.yaml"
    content = mapping_of(config)
    needed = {key: content[key] for key in ("model", "data", "batch_norm") if key in content}
    if data is not None:
        needed["data"] = None
    try:
        recorded = from_record(_Recorded, needed, trusted)
        claim = _claim(content.get("evaluation"))
    except UntrustedError as error:
        raise UntrustedError(f"{config}: {error}; {CURE}") from error
    except ConfigError as error:
        raise broken(config, error) from error
    if data is None and recorded.data is None:
        raise broken(config, "its data is missing")
    if recorded.batch_norm in LOCAL and client is None:
        raise ConfigError(
            f"{path} was run with batch_norm: {recorded.batch_norm}, so that each client has a "
            "model of its own. In Python, audit that of one client: Run.client_model(client)"
        )
    source = recorded.data if data is None else _data(data)
    dataset = source.load()
    how = recorded.batch_norm
    model = _filled(recorded.model, file, dataset, how, client, data=data, of_run=True)
    return Source(model, dataset, source, recorded.model, claim, how)


def _claim(evaluation: object) -> Pgd | None:
    """Return the attack behind a run's claim if it is PGD. A user's own attack is not loaded."""
    if not isinstance(evaluation, Mapping) or "attack" not in evaluation:
        raise ConfigError("its evaluation.attack is missing")
    if isinstance(evaluation["attack"], Mapping) and "opaque" in evaluation["attack"]:
        return None  # an object of somebody's own, which no file can rebuild
    try:
        attack = from_record(_Claiming, {"attack": evaluation["attack"]}).attack
    except UntrustedError:  # somebody's own attack is not PGD
        return None
    except ConfigError as error:
        raise ConfigError(f"evaluation.{error}") from error
    return attack if isinstance(attack, Pgd) else None


def _filled(
    spec: Any,
    file: Path,
    dataset: Dataset,
    batch_norm: BatchNorm,
    client: int | None = None,
    *,
    data: str | None,
    of_run: bool = False,
) -> nn.Module:
    """Return the network of ``spec`` with the weights of ``file``.

    The network is made for the examples of ``dataset``, which a user named as ``data``; a run's own
    data fit its network. Raises: ``ConfigError`` where those of the user need other weights.
    """
    draw, shape, classes = torch.Generator().manual_seed(0), dataset.shape, dataset.classes
    found = built(spec, shape, classes, draw, trains=False, batch_norm=batch_norm)
    if found.own is not None and client is not None:
        fill_of_client(found.model, found.own, file, client)
        return found.model
    if data is not None and (lacks := unlike(tensors_of(file), found.model.state_dict())):
        examples = f"--data {data} has examples {list(shape)} of {classes} classes"
        if of_run:
            raise ConfigError(
                f"{examples}, and for these the network of the run needs other weights than it "
                f"has: {lacks} ({file}). Name data like those of the run"
            )
        raise RecordError(
            f"{file} holds the weights of another network: {lacks}. {examples}; name the network "
            "that it belongs to, and data for that network"
        )
    fill(found.model, file)
    return found.model


def _data(text: str) -> Any:
    """Make a data set from its name, from YAML, or from the path of a .npz file."""
    if text.endswith(".npz"):
        return Npz(path=text)
    return _component(AnyData, text, "--data")


def _component(kind: Any, text: str, option: str) -> Any:
    """Make a component from its name, or from YAML such as {name: elu-cnn, width: 16}."""
    try:
        return TypeAdapter(kind).validate_python(read_yaml(text))
    except ValidationError as error:
        raise ConfigError(f"{option} {text}: {explain(error, kind)}") from error


def _own(where: str) -> nn.Module:
    module, _, name = where.partition(":")
    try:
        found = getattr(beside.module(module), name)
        model = found if isinstance(found, nn.Module) or not callable(found) else found()
    except Exception as error:  # a user's module may fail in any way
        hint = beside.hint(module, error)
        raise ConfigError(f"{where}: {type(error).__name__}: {error}{hint}") from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{where} is no torch.nn.Module, and gives none when called")
    return model
