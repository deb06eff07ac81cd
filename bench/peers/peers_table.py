"""A comparison as Markdown: where it was run, medians with their spread, and ratios."""

import datetime
import os
import platform
import re
import shlex
import statistics
import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from peers_arms import Arm, Results

PACKAGES = ("torch", "transformers", "accelerate", "numpy")
Column = tuple[str, Callable[[Results, int, Arm], str]]


def spread(values: list[float], digits: int = 4) -> str:
    """Median, least and most."""
    if not values:
        return ""
    numbers = [f"{value:.{digits}g}" for value in (statistics.median(values), min(values), max(values))]
    return f"{numbers[0]} ({numbers[1]}..{numbers[2]})"


def median(key: str, scale: float = 1.0, digits: int = 4) -> Callable[[Results, int, Arm], str]:
    def cell(results: Results, batch: int, arm: Arm) -> str:
        values = results.values(batch, arm, key)
        return f"{scale * statistics.median(values):.{digits}g}" if values else ""

    return cell


def disk_rate(results: Results, batch: int, arm: Arm) -> str:
    pairs = zip(results.values(batch, arm, "disk_bytes_read"), results.values(batch, arm, "wall_s"), strict=True)
    return f"{statistics.median(read / seconds for read, seconds in pairs) / 1e6:.0f}"


def checked(key: str) -> Callable[[Results, int, Arm], str]:
    return lambda results, batch, arm: f"{results.checks[batch, arm.name][key]:.2g}"


RESIDENT: list[Column] = [
    ("batch", lambda results, batch, arm: str(batch)),
    ("arm", lambda results, batch, arm: arm.name),
    ("dtype", lambda results, batch, arm: arm.dtype),
    ("sequences/s", lambda results, batch, arm: spread(results.values(batch, arm, "sequences_per_s"))),
    ("wall s", median("wall_s")),
    ("ms p50", median("latency_ms_p50")),
    ("ms p99", median("latency_ms_p99")),
    ("process at most, MiB", median("peak_rss_bytes", 1 / 2**20)),
    ("logits' error", checked("max_abs_error_over_norm")),
    ("rows over", checked("rows_over")),
]
OFFLOADED: list[Column] = RESIDENT[:5] + [
    ("stall s", median("stall_s")),
    ("experts read, MiB", median("expert_bytes_read", 1 / 2**20, 6)),
    ("from disk, MiB", median("disk_bytes_read", 1 / 2**20, 6)),
    ("from disk, MB/s", disk_rate),
    ("MIN, MiB", median("min_expert_bytes_read", 1 / 2**20, 6)),
    ("process at most, MiB", median("peak_rss_bytes", 1 / 2**20)),
    ("group at most, MiB", median("cgroup_peak_bytes", 1 / 2**20)),
    *RESIDENT[-2:],
]


def draw(header: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]


def table(results: Results, columns: list[Column]) -> list[str]:
    rows = [[cell(results, batch, arm) for _, cell in columns]
            for batch in results.batches() for arm in results.of(batch)]
    return draw([heading for heading, _ in columns], rows)


def ratios(results: Results) -> list[str]:
    """sida's arms over each peer, and what each batch size's fastest peer is."""
    rows = []
    for batch in results.batches():
        best = results.best_peer(batch)
        for arm in (arm for arm in results.of(batch) if arm.is_sida):
            for peer in (peer for peer in results.of(batch) if not peer.is_sida):
                rows.append([str(batch), arm.name, peer.name, spread(results.ratios(batch, arm, peer)),
                             "yes" if peer is best else ""])
    return draw(["batch", "arm", "over", "ratio", "fastest peer"], rows) if rows else []


def processor() -> str:
    text = Path("/proc/cpuinfo").read_text()
    found = re.search(r"model name\s*: (.*)", text)
    features = [word for word in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if re.search(rf"\b{word}\b", text)]
    return f"{found[1] if found else platform.machine()}, {os.cpu_count()} cores ({', '.join(features) or 'no AVX2'})"


def memory() -> str:
    found = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    return f"{int(found[1]) / 2**20:.1f} GiB of memory" if found else "memory unknown"


def packages() -> str:
    known = []
    for name in PACKAGES:
        try:
            known.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            pass
    return ", ".join([*known, f"Python {platform.python_version()}"])


def commit() -> str:
    """Of the repository that this file lies in. The program that ran is told by its own version."""
    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(Path(__file__).parent), *words], capture_output=True, text=True,
                              check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    found = git("rev-parse", "--short=10", "HEAD")
    if not found:
        return "commit unknown"
    return f"commit {found}" + (" with changes" if git("status", "--porcelain", "--untracked-files=no") else "")


def command_line(words: list[str]) -> str:
    """Paths by their last part: where somebody keeps models says nothing."""
    return shlex.join(Path(word).name if "/" in word else word for word in words)


def report(title: str, facts: list[str], results: Results, columns: list[Column], command: list[str]) -> str:
    lines = [f"# {title}", "", f"- {datetime.date.today().isoformat()}, {commit()}",
             f"- {processor()}, {memory()}, Linux {platform.release()}", f"- {packages()}"]
    lines += [f"- {fact}" for fact in facts]
    lines += ["", "```sh", command_line(command), "```", "", *table(results, columns), "", *ratios(results)]
    skipped = [f"- batch {batch}, {name}: {reason}" for (batch, name), reason in results.skipped.items()]
    if skipped:
        lines += ["", "Skipped:", "", *skipped]
    return "\n".join(lines) + "\n"
