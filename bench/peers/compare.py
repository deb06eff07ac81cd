#!/usr/bin/env python3
"""Compares sida with PyTorch peers on one checkpoint: all arms take turns, in several rounds.

    python bench/peers/compare.py --sida build/ci/bin/sida --model DIR --data FILE --rounds 9 --out docs/results/NAME
    python bench/peers/compare.py --sida build/ci/bin/sida --model DIR --packed FILE.sida --data FILE --offload \\
        --folder OFFLOADED --rounds 5 --out docs/results/NAME

Every arm gets the same token ids and threads. Before any time counts, each arm's logits are compared with those of sida
in float32 (--reference-isa). Then, round by round, each arm runs once at each batch size, in a shuffled order. A round
of sida's is a fresh process that answers all inputs once before (--warm-up); a peer is a child that stays loaded, and
sleeps while others run. Ratios are taken within a round. Arms (--arm NAME; all by default):

    sida          as installed here, or once for each --isa
    transformers  the model as installed, eager, once for each --dtype (fp32 and, of a bf16 checkpoint, bf16)
    compiled      the same through torch.compile; compiling takes minutes

With --offload the experts are on disk, each arm in a memory cgroup of --share percent of the experts, the dense
weights and --python-mib; the page cache is dropped before each round. It needs root. sida starts with no expert in
memory. Arms:

    sida-lfru     loads on demand, knowing nothing
    sida-oracle   plans by a perfect prediction, recorded before, unmeasured
    disk          accelerate's disk_offload (hf_offload.py), in the checkpoint's type

--no-amx switches AMX off for all: ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 for PyTorch, `--isa avx512` (or --isa) for sida.
Prints a table; --out PATH also writes PATH.md and PATH.svg.

Exit status: 0; 1 when logits differ, or something fails; 2 for unknown options.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

try:
    import peers_offload
    import peers_svg
    import peers_table
    import switch_inputs
    from peers_arms import Arm, Results, check_all, child_arm, run_all, sida_arm
    from peers_cgroup import Group
    from peers_programs import HERE, Child, Failure, Sida
    from switch_logits import TOLERANCE
except ModuleNotFoundError as missing:
    sys.exit(f"compare: needs {missing.name}: pip install -r {Path(__file__).parent}/requirements.txt")

RESIDENT_ARMS = ["sida", "transformers", "compiled"]
OFFLOAD_ARMS = ["sida-lfru", "sida-oracle", "disk"]


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sida", type=Path, required=True, help="the program")
    parser.add_argument("--model", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--packed", type=Path, help="the same weights as a container, which sida then reads")
    parser.add_argument("--data", type=Path, required=True, help="TSV or JSONL, as of `sida classify --data`")
    parser.add_argument("--rows", type=int, help="only the first inputs")
    parser.add_argument("--batch", type=int, action="append", help="may be given several times; 1 by default")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], action="append", help="of the peers; may be repeated")
    parser.add_argument("--arm", dest="arms", action="append", choices=[*RESIDENT_ARMS, *OFFLOAD_ARMS])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each arm; all cores by default")
    parser.add_argument("--seed", type=int, default=1, help="of the order of arms")
    parser.add_argument("--isa", action="append", help="of sida's kernels; may be repeated")
    parser.add_argument("--reference-isa", default="avx512", help="of the reference; one that computes in float32")
    parser.add_argument("--no-amx", action="store_true", help="for sida and for PyTorch")
    parser.add_argument("--tolerance-fp32", type=float, default=TOLERANCE["fp32"])
    parser.add_argument("--tolerance-bf16", type=float, default=TOLERANCE["bf16"], help="of sida with bf16 kernels")
    parser.add_argument("--peer-tolerance-bf16", type=float, default=TOLERANCE["bf16"], help="of peers in bf16")
    parser.add_argument("--allow-rows", type=float, default=0.0, metavar="SHARE",
                        help="share of rows that may be over it in bf16, where near-equal experts change places")
    parser.add_argument("--out", type=Path, help="write PATH.md and PATH.svg")
    parser.add_argument("--json", type=Path, help="write each round's account to this file, one a line")
    parser.add_argument("--offload", action="store_true")
    parser.add_argument("--folder", type=Path, help="of accelerate's copy of the experts; written where it is missing")
    parser.add_argument("--share", type=float, default=20.0, help="percent of the experts that fit")
    parser.add_argument("--python-mib", type=int, default=1536, help="what the cgroup holds beside weights")
    parser.add_argument("--lookahead", type=int, default=32, help="of the oracle, in batches")
    parser.add_argument("--cgroup-parent", type=Path, help="folder in which groups are made")
    return parser


def parse() -> argparse.Namespace:
    """Options with the defaults that depend on others."""
    parser = make_parser()
    options = parser.parse_args()
    known = OFFLOAD_ARMS if options.offload else RESIDENT_ARMS
    options.arms = [*dict.fromkeys(options.arms or known)]
    options.batch = sorted(set(options.batch or [1]))
    wrong = [arm for arm in options.arms if arm not in known]
    if wrong:
        parser.error(f"--arm {wrong[0]}: {'not with' if options.offload else 'only with'} --offload")
    if options.offload and (options.folder is None or options.packed is None):
        parser.error("--offload needs --folder and --packed")
    if options.no_amx:
        options.isa = options.isa or ["avx512"]
        if any("amx" in isa for isa in options.isa):
            parser.error("--no-amx and an --isa with AMX")
    if options.offload and len(options.isa or []) > 1:
        parser.error("--offload takes one --isa")
    for name in ("rows", "rounds", "threads"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if min(options.batch) < 1:
        parser.error("--batch must be at least 1")
    return options


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def write_ids(options: argparse.Namespace, target: Path) -> int:
    """Inputs as token ids: nobody's tokeniser is measured, and all get the same. Returns how many."""
    for file in (options.data, options.model / "config.json"):
        if not file.is_file():
            raise Failure(f"{file}: no such file")
    rows = switch_inputs.read_rows(options.data, options.rows)
    eos = json.loads((options.model / "config.json").read_text()).get("eos_token_id", 1)
    switch_inputs.tokenize(rows, options.model, eos)
    lines = [{"ids": row.ids} | ({} if row.label is None else {"label": row.label}) for row in rows]
    target.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return len(rows)


class Comparison:
    """One run of this program: its inputs, its reference, and the children that must be closed at the end."""

    def __init__(self, options: argparse.Namespace, scratch: Path):
        self.options, self.scratch = options, scratch
        self.data = scratch / "ids.jsonl"
        self.rows = write_ids(options, self.data)
        self.sida = Sida(options.sida, options.packed or options.model, self.data, options.threads, scratch)
        self.inspected = self.sida.inspect()
        self.refuse_other_model()
        self.dtype = self.inspected["dtype"]
        self.reference = scratch / "reference.tsv"
        self.children: list[Child] = []
        self.groups: list[Group] = []

    def refuse_other_model(self) -> None:
        """The container must be of the folder's shape and type; whether it has its weights, logits tell."""
        if self.options.packed is None:
            return
        folder = Sida(self.options.sida, self.options.model, self.data, 1, self.scratch).inspect()
        for key in ("dtype", "moe_layers", "experts", "record_bytes"):
            if folder[key] != self.inspected[key]:
                raise Failure(f"{self.options.packed}: {key} is {self.inspected[key]}, but {folder[key]} in "
                              f"{self.options.model}")

    def bar(self, account: dict) -> tuple[float, float]:
        """Tolerance of sida's logits, and the share of rows that may be over it. It multiplies in bf16 where weights
        are bf16 and the kernels are for it."""
        if self.dtype == "bf16" and account.get("isa", "").endswith("bf16"):
            return self.options.tolerance_bf16, self.options.allow_rows
        return self.options.tolerance_fp32, 0.0

    def make_reference(self) -> None:
        say(f"reference: sida with --isa {self.options.reference_isa}, all experts in memory")
        _, logits = self.sida.classify(1, ["--isa", self.options.reference_isa])
        logits.rename(self.reference)

    def child(self, script: str, dtype: str, options: list[str], within: list[str] | None = None) -> Child:
        tolerance = self.options.tolerance_fp32 if dtype == "fp32" else self.options.peer_tolerance_bf16
        common = ["--model", str(self.options.model), "--data", str(self.data), "--dtype", dtype, "--threads",
                  str(self.options.threads), "--compare", str(self.reference), "--tolerance", str(tolerance),
                  "--allow-rows", str(0.0 if dtype == "fp32" else self.options.allow_rows)]
        say(f"loading {script} in {dtype}")
        child = Child(script, [*common, *options], self.options.no_amx, within or [])
        self.children.append(child)
        return child

    def resident_arms(self) -> list[Arm]:
        options, arms = self.options, []
        if "sida" in options.arms:
            for isa in options.isa or [None]:
                name, words = (f"sida {isa}", ["--isa", isa]) if isa else ("sida", [])
                arms.append(sida_arm(name, self.dtype, self.sida.classify, ["--warm-up", *words], self.reference,
                                     self.bar))
        served = [arm for arm in options.arms if arm != "sida"]
        for dtype in dict.fromkeys(options.dtype or ["fp32", self.dtype]) if served else []:
            child = self.child("hf_switch.py", dtype, [word for arm in served for word in ("--arm", arm)])
            arms += [child_arm(f"{arm} {dtype}", child, arm, dtype) for arm in served]
        return arms

    def offloaded_arms(self, limit: int) -> list[Arm]:
        options = self.options
        words = ["--isa", options.isa[0]] if options.isa else []
        peers_offload.prepare(HERE / "hf_offload.py", sys.executable, options, self.dtype)
        files = [options.packed, *options.folder.glob("layer_*/*.dat")]
        cold = peers_offload.Cold(self.sida, files, limit, options.cgroup_parent)
        group = self.groups[0]
        child = self.child("hf_offload.py", self.dtype, ["--folder", str(options.folder)], group.words) \
            if "disk" in options.arms else None
        return peers_offload.make_arms(cold, group, child, self.dtype, self.reference, options, words, self.bar)

    def whole_hashes(self) -> dict[int, str]:
        """Of sida's logits with all experts in memory, by batch size."""
        words = ["--isa", self.options.isa[0]] if self.options.isa else []
        return {batch: self.sida.classify(batch, words)[0]["logits_sha256"] for batch in self.options.batch}

    def run(self) -> tuple[Results, list[str]]:
        options, facts = self.options, []
        if options.offload:  # first of all what may not be possible here
            limit = peers_offload.limit_bytes(self.inspected, options)
            self.groups.append(Group("peer", limit, options.cgroup_parent))
            facts = peers_offload.facts(self.sida, self.inspected, limit, options)
        self.make_reference()
        if options.offload:
            whole = self.whole_hashes()
            results = Results(self.offloaded_arms(limit))
        else:
            results = Results(self.resident_arms())
        check_all(results, options.batch, say)
        if options.offload:
            facts += peers_offload.same_bits(results, whole)
        run_all(results, options.batch, options.rounds, options.seed, say)
        idle = max((child.idle_cpu_s for child in self.children), default=0.0)
        return results, [*facts, f"a waiting PyTorch child took {idle:.2f} s of processor time at most, in all"]

    def close(self) -> None:
        for child in self.children:
            child.close()
        for group in self.groups:
            group.remove()


def isas(results: Results) -> str:
    used = {line["isa"] for lines in results.rounds.values() for line in lines if "isa" in line}
    return ", ".join(sorted(used)) or "not run"


def publish(comparison: Comparison, results: Results, facts: list[str]) -> None:
    options, inspected = comparison.options, comparison.inspected
    amx = "AMX switched off for all; " if options.no_amx else ""
    shape = f"{inspected['experts']} experts in {inspected['moe_layers']} MoE layers, {inspected['dtype']}"
    what = "experts on disk" if options.offload else "all resident"
    title = f"sida beside PyTorch, {what}: {options.model.name}"
    facts = [f"{comparison.sida.version()}, --isa {isas(results)}", f"{options.model.name}: {shape}",
             f"{options.data.name}: {comparison.rows} rows, the same token ids for all; {options.threads} threads; "
             f"{amx}rounds: {options.rounds}, order shuffled with seed {options.seed}", *facts]
    columns = peers_table.OFFLOADED if options.offload else peers_table.RESIDENT
    text = peers_table.report(title, facts, results, columns, ["bench/peers/compare.py", *sys.argv[1:]])
    print(text, end="")
    if options.json:
        lines = [{"arm": name, "batch": batch, "round": number} | {k: v for k, v in line.items() if k != "arm"}
                 for (batch, name), rounds in results.rounds.items() for number, line in enumerate(rounds, 1)]
        options.json.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.with_name(options.out.name + ".md").write_text(text + f"\n![bars]({options.out.name}.svg)\n")
        below = [peers_table.processor(), f"{amx}{options.threads} threads, {comparison.rows} rows, {shape}"]
        options.out.with_name(options.out.name + ".svg").write_text(peers_svg.draw(title, below, results))


def main() -> int:
    options = parse()
    with tempfile.TemporaryDirectory(prefix="sida-peers-") as scratch:
        comparison = None
        try:
            comparison = Comparison(options, Path(scratch))
            publish(comparison, *comparison.run())
        except Failure as failure:
            print(f"compare: {failure}", file=sys.stderr)
            return 1
        except OSError as error:
            print(f"compare: {error.filename}: {error.strerror}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
        finally:
            if comparison:
                comparison.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
