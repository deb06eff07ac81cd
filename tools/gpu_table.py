#!/usr/bin/env python3
"""Draws the results of scripts/gpu-check as Markdown: results.jsonl, from which a stage's last run counts.

    python3 tools/gpu_table.py results.jsonl > table.md

Draws what there is: stages that failed or never ran leave their reason, and no figures.
"""

import json
import statistics
import sys
from pathlib import Path

# Columns of the end-to-end table: heading and key.
ARM_COLUMNS = [("ms p50", "latency_ms_p50"), ("ms p99", "latency_ms_p99"), ("sequences/s", "sequences_per_s"),
               ("MiB read", "expert_bytes_read"), ("MIN MiB", "min_expert_bytes_read"), ("stall s", "stall_s")]
LONG = {"logits_sha256"}  # the first digits tell them apart
MARKS = ("stage", "begun", "status")


def read(path: Path) -> dict[str, list[dict]]:
    """Lines by stage, from its last beginning on. A line that isn't JSON is told, not hidden."""
    stages: dict[str, list[dict]] = {}
    for number, text in enumerate(path.read_text().splitlines(), 1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            print(f"gpu_table: {path}:{number}: {error}", file=sys.stderr)
            continue
        if "begun" in line:
            stages[line["stage"]] = []
        stages.setdefault(line["stage"], []).append(line)
    return stages


def cell(value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict | list):
        return json.dumps(value)
    return "" if value is None else str(value).replace("|", "\\|")


def table(heading: list[str], rows: list[list]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join("| " + " | ".join(cell(value) for value in line) + " |\n" for line in lines)


def stage_table(stages: dict[str, list[dict]]) -> str:
    rows = []
    for stage, lines in stages.items():
        end = next((line for line in lines if "status" in line), {"status": "cut off"})
        rows.append([stage, end["status"], end.get("seconds"), end.get("reason")])
    return table(["stage", "result", "s", "why"], rows)


def inventory(lines: list[dict]) -> str:
    return "".join(table(["what", "is"], [[key, value] for key, value in line.items() if key not in MARKS])
                   for line in lines if "processor" in line)


def plain(lines: list[dict]) -> str:
    """One table for each run of lines that have the same keys."""
    text, keys, rows = "", None, []
    for line in [*lines, {}]:
        names = [key for key in line if key not in MARKS]
        if names != keys and rows:
            text += table(keys, rows) + "\n"
            rows = []
        keys = names
        if names:
            rows.append([str(line[key])[:12] if key in LONG else line[key] for key in names])
    return text


def exactness(lines: list[dict]) -> str:
    rows = [[line["device_budget"], line.get("policy"), line.get("prefetch"), str(line.get("logits_sha256", ""))[:12],
             line.get("expert_misses"), line.get("failed")] for line in lines if "device_budget" in line]
    text = table(["device budget", "policy", "prefetch", "logits", "misses", "failed"], rows) if rows else ""
    return text + "\n" + plain([line for line in lines if "summary" in line])


def arm_value(runs: list[dict], key: str) -> float | None:
    values = [run[key] for run in runs if isinstance(run.get(key), int | float)]
    return statistics.median(values) if values else None


def end_to_end(lines: list[dict]) -> str:
    """The figures of one data set after the other; a line that names it comes before them."""
    text, part, data = "", [], None
    for line in [*lines, {"arm": "none", "data": None}]:
        if line.get("arm") != "none":
            part.append(line)
            continue
        if part:
            text += (f"\n### {data}\n\n" if data else "") + arms_of_data(part)
        part, data = [], line["data"]
    return text


def arms_of_data(lines: list[dict]) -> str:
    """Ratios are of median latencies: the first batches of a run fill the tiers, and the peers' are filled before."""
    arms: dict[str, list[dict]] = {}
    for line in lines:
        if "arm" in line and "check" not in line:
            arms.setdefault(line["arm"], []).append(line)
    bases = {name: arm_value(arms.get(name, []), "latency_ms_p50") for name in ("standard", "transformers", "offload")}
    rows = []
    for arm, runs in arms.items():
        skipped = next((run["skipped"] for run in runs if "skipped" in run), None)
        values = [arm_value(runs, key) for _, key in ARM_COLUMNS]
        values = [value / 2**20 if "MiB" in name and value is not None else value
                  for (name, _), value in zip(ARM_COLUMNS, values, strict=True)]
        own = arm_value(runs, "latency_ms_p50")
        ratios = [base / own if base and own else None for base in bases.values()]
        rows.append([arm, *values, *ratios, skipped])
    checks = [[line["arm"], line["against"], line.get("dtype"), line.get("max_abs_error_over_norm"),
               line.get("median_abs_error_over_norm"), line.get("rows_over"), "yes" if line.get("ok") else "no"]
              for line in lines if line.get("check") == "logits"]
    text = ""
    if checks:
        headings = ["arm", "logits against", "type", "largest error / norm", "median", "rows over", "passes"]
        text += table(headings, checks)
    if rows:
        headings = ["arm", *(name for name, _ in ARM_COLUMNS), *(f"x {name}" for name in bases), "skipped"]
        text += "\n" + table(headings, rows)
    return text


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    path = Path(sys.argv[1])
    if not path.is_file():
        sys.exit(f"gpu_table: {path}: no such file")
    stages = read(path)
    print(f"# GPU check\n\n{stage_table(stages)}")
    drawers = {"exactness": exactness, "e2e": end_to_end}
    for stage, lines in stages.items():
        results = [line for line in lines if "begun" not in line and "status" not in line]
        if not results:
            continue
        text = ""
        if stage == "inventory":
            text = inventory(results) + "\n"
            results = [line for line in results if "processor" not in line]
        print(f"## {stage}\n\n{text}{drawers.get(stage, plain)(results).strip()}\n")


if __name__ == "__main__":
    main()
