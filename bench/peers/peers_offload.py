"""compare.py --offload: experts on disk, every arm in a memory cgroup of one size, from a cold page cache."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from peers_arms import Arm, Results, child_arm, sida_arm
from peers_cgroup import Group, disk_bandwidth, drop_page_cache
from peers_programs import Child, Failure, Sida, run

PLANNED = ["--prefetch", "oracle", "--policy", "next-use"]


def limit_bytes(inspected: dict, options: argparse.Namespace) -> int:
    """A share of the experts, the dense weights, and what Python weighs."""
    return int(inspected["expert_bytes_total"] * options.share / 100) + inspected["dense_bytes"] + \
        options.python_mib * 2**20


class Cold:
    """Runs with nothing in the page cache, inside a group of the given size."""

    def __init__(self, sida: Sida, files: list[Path], limit: int, parent: Path | None):
        self.sida, self.files, self.limit, self.parent = sida, files, limit, parent

    def classify(self, batch: int, options: list[str]) -> tuple[dict, Path]:
        """A fresh process of sida in a fresh group."""
        group = Group("sida", self.limit, self.parent)
        try:
            drop_page_cache(self.files)
            account, logits = self.sida.classify(batch, options, group.words)
            return account | {"cgroup_peak_bytes": group.peak_bytes()}, logits
        finally:
            group.remove()

    def asked(self, arm: Arm, group: Group) -> Arm:
        """The same for an arm of a child, whose group has its whole life in it."""
        def run_cold(batch: int) -> dict:
            drop_page_cache(self.files)
            time.sleep(0.2)  # reads of what was dropped under somebody else's feet aren't this arm's
            return arm.run(batch) | {"cgroup_peak_bytes": group.peak_bytes()}

        return Arm(arm.name, arm.dtype, arm.is_sida, run_cold, arm.check)


def prepare(script: Path, python: str, options: argparse.Namespace, dtype: str) -> None:
    """Writes accelerate's copy of the experts, outside of any group, unless it is there."""
    run([python, str(script), "--model", str(options.model), "--folder", str(options.folder), "--dtype", dtype,
         "--prepare"], "hf_offload --prepare")


def make_arms(cold: Cold, group: Group, child: Child, dtype: str, reference: Path, options: argparse.Namespace,
              sida_options: list[str], bar: Callable[[dict], tuple[float, float]]) -> list[Arm]:
    budget = ["--budget", f"{options.share:g}%", *sida_options]
    planned = [*budget, *PLANNED, "--lookahead", str(options.lookahead)]
    known = {
        "sida-lfru": lambda: sida_arm("sida, LFRU", dtype, cold.classify, budget, reference, bar),
        "sida-oracle": lambda: sida_arm("sida, oracle", dtype, cold.classify, planned, reference, bar),
        "disk": lambda: cold.asked(child_arm("accelerate, disk", child, "disk", dtype), group),
    }
    return [known[name]() for name in options.arms]


def facts(sida: Sida, inspected: dict, limit: int, options: argparse.Namespace) -> list[str]:
    """What the table's readers need beside it. Measures the disk."""
    drop_page_cache([sida.model])
    bandwidth = disk_bandwidth(sida.model, inspected["record_bytes"], 4)
    return [f"each arm in a memory cgroup of {limit / 2**20:.0f} MiB without swap: {options.share:g} % of "
            f"{inspected['expert_bytes_total'] / 2**20:.0f} MiB of experts, {inspected['dense_bytes'] / 2**20:.0f} MiB "
            f"of dense weights, and {options.python_mib} MiB; the page cache dropped before each round",
            f"disk: {bandwidth / 1e6:.0f} MB/s by O_DIRECT reads of {inspected['record_bytes'] / 2**20:.2g} MiB in "
            f"order by 4 threads"]


def same_bits(results: Results, whole: dict[int, str]) -> list[str]:
    """A budget may change no answer of sida's. Returns what can be said of that."""
    hashes = {(batch, name): check["logits_sha256"] for (batch, name), check in results.checks.items()
              if "logits_sha256" in check}
    for (batch, name), found in hashes.items():
        if found != whole[batch]:
            raise Failure(f"{name} at batch {batch}: other logits than with all experts in memory")
    return ["the same bits of logits from sida at this budget and with all experts in memory"] if hashes else []
