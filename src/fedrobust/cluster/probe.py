"""Ask each node of a Ray cluster, and check that all of them can take part."""

import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fedrobust.config.text import listed, shortened
from fedrobust.errors import ResourceError, WriteError
from fedrobust.files import reason

SECONDS = 60.0
"""The most seconds that the nodes may take to answer. A node's first answer starts a process."""


@dataclass(frozen=True)
class Node:
    """A node of the cluster that is alive: its identifier, its name, and what it has."""

    id: str
    name: str
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Answer:
    """What a node answered. ``failure`` is None unless it failed, or gave no answer in time."""

    node: Node
    value: Any = None
    failure: str | None = None


@dataclass(frozen=True)
class About:
    """What a node says of itself: fedrobust's version there, and the kind of its processor."""

    node: Node
    version: str
    processor: str


def nodes() -> list[Node]:
    """Return the nodes that are alive, in a fixed order. This process must be connected."""
    import ray

    return sorted(
        (
            Node(
                each["NodeID"],
                each.get("NodeName") or each["NodeManagerAddress"],
                int(each["Resources"].get("CPU", 0)),
                int(each["Resources"].get("GPU", 0)),
            )
            for each in ray.nodes()
            if each["Alive"]
        ),
        key=lambda node: (node.name, node.id),
    )


def probe(
    function: Callable[..., Any], *arguments: Any, among: Sequence[Node] | None = None
) -> list[Answer]:
    """Call ``function`` once on each node, all at a time, and return the answers.

    It takes no processor away from other work, so that busy nodes answer too. A function of an
    importable module must be importable on the nodes; a function within a function is sent whole.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(function)
    asked = {
        task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        ).remote(*arguments): node
        for node in (nodes() if among is None else among)
    }
    ready, late = (
        ray.wait(list(asked), num_returns=len(asked), timeout=SECONDS) if asked else ([], [])
    )
    for each in late:
        ray.cancel(each, force=True)
    answers = {each: _answer(asked[each], each) for each in ready}
    answers |= {
        each: Answer(asked[each], failure=f"no answer in {SECONDS:.0f} seconds") for each in late
    }
    return [answers[each] for each in asked]


def _answer(node: Node, reference: Any) -> Answer:
    import ray

    try:
        return Answer(node, ray.get(reference))
    except Exception as error:  # whatever fails there is the node's answer
        text = str(error).strip().splitlines() or [type(error).__name__]
        return Answer(node, failure=shortened(text[-1], 200))


def alike() -> list[About]:
    """Return what each node says of itself; all have this version of fedrobust.

    Their kinds of processor may differ.

    Raises: ``ResourceError`` that names the nodes without fedrobust, or with another version.
    """

    def about() -> tuple[str, str]:  # sent whole, so that a node without fedrobust can answer
        from importlib.metadata import PackageNotFoundError, version

        try:
            there = version("fedrobust")
        except PackageNotFoundError:
            return "", ""
        from fedrobust.compute.execution import processor

        return there, processor("cpu")

    here, found, wrong = version("fedrobust"), list[About](), list[str]()
    for answer in probe(about):
        name = answer.node.name
        if answer.failure is not None:
            wrong.append(f"{name}: {answer.failure}")
        elif answer.value[0] != here:
            there = answer.value[0]
            wrong.append(f"{name} has {f'fedrobust {there}' if there else 'no fedrobust'}")
        else:
            found.append(About(answer.node, *answer.value))
    if wrong:
        raise ResourceError(
            f"every node of the cluster needs fedrobust {here}, as here, but {_told(wrong)}: "
            "install it there in the Python that Ray uses, or take the node out of the cluster"
        )
    return found


def require_shared(folder: Path) -> None:
    """Check that each node reads and writes ``folder`` as this machine does.

    A file with a random text is written into it; the nodes read it, and remove one of their own.

    Raises: ``ResourceError`` that names the nodes which do not; ``WriteError`` where this machine
    cannot write to it.
    """
    folder = folder.resolve()
    token, text = folder / f".probe.{secrets.token_hex(8)}.part", secrets.token_hex(16)

    def shares(token: str, text: str) -> str:
        try:
            with open(token, encoding="utf-8") as file:
                if file.read() != text:
                    return "has another folder there"
            trial = os.path.join(os.path.dirname(token), f".probe.{os.urandom(8).hex()}.part")
            with open(trial, "x", encoding="utf-8"):
                pass
            os.unlink(trial)
        except FileNotFoundError:
            return "does not see it"
        except OSError as error:
            return f"cannot use it ({error.strerror})"
        return ""

    try:
        with open(token, "x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        answers = probe(shares, str(token), text)
    except OSError as error:
        raise WriteError(
            f"cannot write to {folder}: {reason(error)}; choose another --out"
        ) from error
    finally:
        with suppress(OSError):
            token.unlink()
    wrong = [
        f"{each.node.name} {each.failure or each.value}"
        for each in answers
        if each.failure or each.value
    ]
    if wrong:
        raise ResourceError(
            f"{folder} must be a folder that all nodes of the cluster share, but {_told(wrong)}: "
            "choose an --out on a shared disk, at the same path everywhere"
        )


def _told(wrong: list[str]) -> str:
    return "; ".join(listed(wrong, "nodes").splitlines())
