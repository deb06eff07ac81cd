"""Arms that compare.py runs, in turns: what one is, its check, and all that its rounds gave."""

import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from peers_programs import Child, Failure
from switch_logits import compare, read_logits


@dataclass
class Arm:
    """`run` measures a round at a batch size, `check` warms up and compares logits. Both give a line as JSON has it."""

    name: str
    dtype: str
    is_sida: bool
    run: Callable[[int], dict]
    check: Callable[[int], dict]


@dataclass
class Results:
    """Lines of rounds, and of checks, by batch and arm; both keep the order of the arms."""

    arms: list[Arm]
    rounds: dict[tuple[int, str], list[dict]] = field(default_factory=dict)
    checks: dict[tuple[int, str], dict] = field(default_factory=dict)
    skipped: dict[tuple[int, str], str] = field(default_factory=dict)

    def batches(self) -> list[int]:
        return sorted({batch for batch, _ in self.checks} | {batch for batch, _ in self.skipped})

    def of(self, batch: int) -> list[Arm]:
        return [arm for arm in self.arms if self.rounds.get((batch, arm.name))]

    def values(self, batch: int, arm: Arm, key: str) -> list[float]:
        return [line[key] for line in self.rounds[batch, arm.name] if key in line]

    def ratios(self, batch: int, arm: Arm, other: Arm) -> list[float]:
        """How many times as many sequences per second, round by round."""
        pairs = zip(self.values(batch, arm, "sequences_per_s"), self.values(batch, other, "sequences_per_s"),
                    strict=True)
        return [mine / theirs for mine, theirs in pairs]

    def best_peer(self, batch: int) -> Arm | None:
        peers = [arm for arm in self.of(batch) if not arm.is_sida]
        return max(peers, key=lambda arm: statistics.median(self.values(batch, arm, "sequences_per_s")), default=None)


def check_all(results: Results, batches: list[int], say: Callable[[str], None]) -> None:
    """Compares the logits of each arm at each batch size. Where one differs nothing is measured."""
    wrong = []
    for batch in batches:
        for arm in results.arms:
            line = arm.check(batch)
            if "skipped" in line:
                results.skipped[batch, arm.name] = line["skipped"]
                say(f"batch {batch}, {arm.name}: skipped: {line['skipped']}")
                continue
            results.checks[batch, arm.name] = line
            said = line.get("reason") or (f"error {line['max_abs_error_over_norm']:.2g} at most, "
                                          f"{line['rows_over']:.2%} of rows over {line['tolerance']:g}")
            say(f"batch {batch}, {arm.name}: logits {'agree' if line['ok'] else 'DIFFER'}: {said}")
            if not line["ok"]:
                wrong.append(f"{arm.name} at batch {batch}")
    if wrong:
        raise Failure(f"logits differ, so nothing is measured: {', '.join(wrong)}")


def run_all(results: Results, batches: list[int], rounds: int, seed: int, say: Callable[[str], None]) -> None:
    """Each round has every arm once, in a shuffled order, batch size by batch size."""
    order = random.Random(seed)
    for number in range(1, rounds + 1):
        for batch in order.sample(batches, len(batches)):
            arms = [arm for arm in results.arms if (batch, arm.name) not in results.skipped]
            for arm in order.sample(arms, len(arms)):
                line = arm.run(batch)
                results.rounds.setdefault((batch, arm.name), []).append(line)
                say(f"round {number} of {rounds}, batch {batch}, {arm.name}: {line['sequences_per_s']:.3f} sequences/s")


def child_arm(name: str, child: Child, served: str, dtype: str) -> Arm:
    return Arm(name, dtype, False, lambda batch: child.ask("run", served, batch),
               lambda batch: child.ask("check", served, batch))


def sida_arm(name: str, dtype: str, run: Callable[[int, list[str]], tuple[dict, Path]], options: list[str],
             reference: Path, bar: Callable[[dict], tuple[float, float]]) -> Arm:
    """`bar` tells from the account, from the kernels that were used, by how much how many rows may differ."""

    def check(batch: int) -> dict:
        account, logits = run(batch, options)
        result = compare(read_logits(logits), read_logits(reference), *bar(account))
        return result | {"logits_sha256": account["logits_sha256"], "isa": account.get("isa")}

    return Arm(name, dtype, True, lambda batch: run(batch, options)[0], check)
