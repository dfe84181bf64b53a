"""Other pruners, each in an environment and a process of its own, at the same MACs.

A child opens the network, scores it once on the same 1,000 images, then answers requests: a pruning
ratio in its own terms and a file to write. The ratio that leaves the MACs asked for is found by
bisection with this product's counter, so that all networks in a column cost the same.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from benchmarks.accuracy.ours import macs, task_digest
from benchmarks.accuracy.results import MACS_TOLERANCE, Measured, Results, source_digest
from benchmarks.tasks import Task
from graph_ops.errors import PrunerError

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = REPOSITORY / "benchmarks" / "peers"
ENVIRONMENTS = REPOSITORY / ".venv-peers"
TRIES = 9
SMALLEST_STEP = 1e-3


@dataclass(frozen=True)
class Peer:
    """One way to prune of one program.

    Attributes:
        label: For tables.
        program: `torch_pruning` or `onnxsim`: the child's script, environment and requirements.
        criterion: What the child scores by.
        spread: `uniform`: the same ratio in every layer; `global`: one ranking over all layers.
    """

    label: str
    program: str
    criterion: str
    spread: str

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        return ENVIRONMENTS / self.program / "bin" / "python"

    @property
    def version(self) -> str:
        """A name for what its results depend on: every script, and the pinned requirements."""
        return source_digest(SCRIPTS, SCRIPTS / f"{self.program}.txt")


PEERS = tuple(
    Peer(f"{title} {criterion}, {spread}", program, criterion, spread)
    for title, program, criteria in (
        ("Torch-Pruning", "torch_pruning", ("Taylor", "Hessian", "L2")),
        ("onnxsim", "onnxsim", ("L2", "Wanda")),
    )
    for criterion in criteria
    for spread in ("uniform", "global")
)


class PeerError(Exception):
    """A peer could not prune; the message is its own."""


class Child:
    """A peer's process.

    Args:
        command: What to start; the peer's script and the arguments of `child.py`.
        folder: Where its networks are written.
    """

    def __init__(self, command: list[str], folder: Path) -> None:
        self._folder = folder
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        self._written = 0

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()
        self._log.close()

    def prune(self, ratio: float) -> bytes:
        """The network with a share of its channels pruned, in the peer's own terms.

        Raises:
            PeerError: the peer says why not, or ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        path = self._folder / f"{self._written}.onnx"
        self._written += 1
        try:
            self._process.stdin.write(json.dumps({"ratio": ratio, "path": str(path)}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PeerError("its process ended") from None
        reply = self._process.stdout.readline()
        if not reply:
            raise PeerError("its process ended")
        problem = json.loads(reply)["error"]
        if problem:
            raise PeerError(problem)
        return path.read_bytes()


@dataclass
class Bisection:
    """Finds the ratio that leaves given MACs; every network it saw serves the next target too.

    Attributes:
        prune: From a ratio in [0, 1) to a network.
        cost: MACs of a network, of the original's.
        seen: Ratio → (MACs left, network).
        failures: Ratio → why there is no network.
    """

    prune: Callable[[float], bytes]
    cost: Callable[[bytes], float]
    seen: dict[float, tuple[float, bytes]] = field(default_factory=dict)
    failures: dict[float, str] = field(default_factory=dict)

    def reach(self, target: float) -> tuple[float, bytes]:
        """The nearest network to a target: (MACs left, network).

        Raises:
            PeerError: there is none at all.
        """
        for _ in range(TRIES):
            if self.seen and self._distance(target) <= MACS_TOLERANCE * target / 4:
                break
            too_large = [r for r, (left, _) in self.seen.items() if left > target]
            too_small = [r for r, (left, _) in self.seen.items() if left <= target]
            low = max(too_large, default=0.0)
            high = min([r for r in (*too_small, *self.failures, 1.0) if r > low], default=1.0)
            if high - low < SMALLEST_STEP:
                break
            self._try((low + high) / 2)
        if not self.seen:
            raise PeerError(next(iter(self.failures.values()), "it prunes nothing"))
        return min(self.seen.values(), key=lambda found: abs(found[0] - target))

    def _distance(self, target: float) -> float:
        return min(abs(left - target) for left, _ in self.seen.values())

    def _try(self, ratio: float) -> None:
        try:
            model = self.prune(ratio)
            self.seen[ratio] = (self.cost(model), model)
        except (PeerError, PrunerError) as error:
            self.failures[ratio] = str(error)


@contextmanager
def opened(task: Task, peer: Peer) -> Iterator[Child]:
    """A peer's process, with the network and the images in files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(task.model)
        (folder / "bundle.npz").write_bytes(task.bundle())
        script = SCRIPTS / f"with_{peer.program}.py"
        output = "probabilities" if task.is_softmaxed else "logits"
        command = [str(peer.python), str(script), name, peer.criterion, peer.spread, output]
        with Child(command, folder) as child:
            yield child


def measured(
    task: Task, peer: Peer, targets: tuple[float, ...], results: Results
) -> list[Measured | None]:
    """Accuracy of a peer's networks at every target."""

    def key(target: float) -> list[str]:
        return [task_digest(task), peer.version, peer.criterion, peer.spread, str(target)]

    def nothing() -> Measured:
        raise LookupError

    try:
        return [results.get(key(target), nothing) for target in targets]
    except LookupError:
        pass
    if not peer.python.exists():
        print(f"{peer.label}: no environment; `make peers` makes it", file=sys.stderr)
        return [None for _ in targets]
    whole = macs(task.model)
    with opened(task, peer) as child:
        bisection = Bisection(child.prune, lambda model: macs(model) / whole)

        def at(target: float) -> Measured:
            try:
                left, model = bisection.reach(target)
                return Measured(task.accuracy(model), left)
            except PeerError as error:
                return Measured(error=str(error))

        # The target is bound as the default of an argument: each is measured at once.
        return [results.get(key(t), lambda t=t: at(t)) for t in targets]  # type: ignore[misc]
