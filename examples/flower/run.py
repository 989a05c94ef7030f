"""Run a real federation on this machine: a SuperLink and three SuperNodes, one of them malicious.

``python examples/flower/run.py --out runs/federation``, in an environment with Flower
(``make setup-flower``). All processes listen on the loopback address only, and are ended when this
script ends. Started again with the same ``--out``, a run that was stopped goes on.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
HOST = "127.0.0.1"
CLIENTS, MALICIOUS = 3, 2


def main() -> int:
    """Start the federation, wait for its end, and make the page and the audit."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--out", type=Path, default=Path("runs/federation"))
    options.add_argument("--rounds", type=int, default=4)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--honest", action="store_true", help="nobody attacks")
    options.add_argument("--samples", type=int, default=100, help="examples of the audit")
    asked = options.parse_args()
    out = asked.out.resolve()
    started: list[subprocess.Popen[bytes]] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as home:
        try:
            federate(out, Path(home), asked.rounds, asked.seed, asked.honest, started)
        finally:
            end(started)
    if not (out / "summary.json").is_file():
        print(f"the run has not ended: start again with --out {asked.out} to go on with it")
        return 1
    command("fedrobust", "report", out)
    audit = out.with_name(f"{out.name}-audit")
    command("fedrobust", "audit", out, "--samples", asked.samples, "--out", audit, "--resume")
    print(f"page: {out / 'report' / 'index.html'}\naudit: {audit / 'audit.json'}")
    return 0


def federate(out: Path, home: Path, rounds: int, seed: int, honest: bool, started: list) -> None:
    """Start all processes, submit the app, and follow the run until it ends."""
    env = os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
    link, *nodes = free_ports(1 + CLIENTS)
    (home / "config.toml").write_text(
        '[superlink]\ndefault = "loopback"\n\n[superlink.loopback]\n'
        f'address = "{HOST}:{link}"\ninsecure = true\n'
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    log = (out.parent / f"{out.name}.log").open("ab")

    def start(name: str, *arguments: object) -> None:
        words = [str(BIN / name), "--insecure", *map(str, arguments)]
        # Each has a group of its own, so that what it starts ends with it.
        process = subprocess.Popen(words, env=env, stdout=log, stderr=log, start_new_session=True)
        started.append(process)

    start(
        "flower-superlink",
        "--host",
        HOST,
        "--port",
        link,
        "--disable-runtime-dependency-installation",
    )
    await_port(link, started[0])
    for number, port in enumerate(nodes):
        config = f"partition-id={number}"
        if number == MALICIOUS and not honest:
            config += " malicious=true"
        start(
            "flower-supernode",
            "--superlink",
            f"{HOST}:{link}",
            "--host",
            HOST,
            "--port",
            port,
            "--node-config",
            config,
        )
    settings = f"out='{out}' rounds={rounds} seed={seed}"
    subprocess.run(
        [BIN / "flwr", "run", HERE, "loopback", "--stream", "--run-config", settings],
        env=env,
        check=False,
    )


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def await_port(port: int, process: "subprocess.Popen[bytes]", seconds: float = 60) -> None:
    """Wait until ``process`` listens on ``port``."""
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                sys.exit("the SuperLink does not start: see the log beside --out")
            time.sleep(0.2)


def end(started: list) -> None:
    """End all processes of all groups that were started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in reversed(started):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                continue
        for process in started:
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                continue


def command(name: str, *arguments: object) -> None:
    """Run a command of this environment."""
    subprocess.run([BIN / name, *map(str, arguments)], check=True)


if __name__ == "__main__":
    sys.exit(main())
