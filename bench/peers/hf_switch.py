#!/usr/bin/env python3
"""Runs a Switch classifier with PyTorch: what sida is measured against, in several arms and one process.

    pip install torch transformers==5.24.0 safetensors numpy sentencepiece accelerate
    sida classify --model DIR --data FILE --out sida.tsv
    python bench/peers/hf_switch.py --model DIR --data FILE --compare sida.tsv --rounds 5

DIR is a folder as `sida synth` writes it, FILE what `sida classify --data` takes. Arms (--arm NAME, all by default):

    standard      every expert of every MoE layer is called in a loop on the tokens it got, none or many (the "Standard"
                  of SiDA-MoE's paper); all resident
    transformers  the model as installed; all resident
    grouped       stacked weights, tokens sorted by expert, two torch._grouped_mm a layer; all resident; CUDA, bf16
    offload       experts in host memory, moved at each call by accelerate's cpu_offload; CUDA

All follow transformers 5.24's capacity rule, as sida does by default; where the installed release has another, its
router is replaced and the line says so. TF32 is off. Before any time counts, each arm runs once over all inputs and its
logits are compared with --compare (FILE.npy of --logits, or the TSV of `sida classify --out`) and with the first arm's.
Then the arms take turns, round by round. One JSON line an arm; keys mean what they mean in `sida classify --json`.

Exit status: 0; 1 when logits differ by more than --tolerance, or an input is wrong; 2 for unknown options.
"""

import argparse
import hashlib
import json
import math
import re
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import nn

import switch_inputs
import switch_model
from switch_model import Classifier, ExpertStack, InstalledExperts, RoutedMlp

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TOLERANCE = {"fp32": 1e-5, "bf16": 2e-2}


class StandardExperts(nn.Module):
    """Calls every expert, also those without a token."""

    def __init__(self, experts: nn.Module):
        super().__init__()
        self.experts = experts

    def forward(self, hidden: torch.Tensor, kept: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        result = torch.zeros_like(hidden)
        mask = kept.bool()
        for e, expert in enumerate(self.experts.values()):
            tokens = mask[:, e]
            result[tokens] = expert(hidden[tokens])
        return result * gates


class GroupedExperts(nn.Module):
    """Two grouped products over tokens that are sorted by expert. Nothing waits for the device."""

    def __init__(self, stack: ExpertStack, act: nn.Module):
        super().__init__()
        self.wi, self.wo, self.act = stack.wi.transpose(1, 2), stack.wo.transpose(1, 2), act

    def forward(self, hidden: torch.Tensor, kept: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        has_expert = kept.sum(-1, keepdim=True) > 0
        chosen = torch.where(has_expert.squeeze(-1), kept.argmax(-1), kept.shape[-1])  # dropped tokens come last
        order = chosen.argsort(stable=True)
        ends = kept.sum(0).cumsum(0).to(torch.int32)
        inner = self.act(torch._grouped_mm(hidden[order], self.wi, offs=ends))
        outer = torch._grouped_mm(inner, self.wo, offs=ends)
        result = torch.empty_like(hidden)
        result[order] = outer
        # Rows of dropped tokens are never written by the product, so they may hold anything.
        return torch.where(has_expert, result * gates, 0.0)


def why_not(arm: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why an arm cannot run here."""
    if arm == "grouped":
        if device.type != "cuda":
            return "torch._grouped_mm is measured on CUDA only"
        if dtype != torch.bfloat16:
            return "torch._grouped_mm takes bf16"
        if not hasattr(torch, "_grouped_mm"):
            return f"torch {torch.__version__} has no _grouped_mm"
    if arm == "offload":
        if device.type != "cuda":
            return "offloading to host memory needs CUDA"
        try:
            import accelerate  # noqa: F401
        except ImportError:
            return "the package accelerate isn't installed"
    return None


class Arms:
    """The sparse FFNs of each arm, over one encoder: arms share all other weights, and the resident experts."""

    def __init__(self, folder: Path, names: list[str], device: torch.device, dtype: torch.dtype):
        self.device = device
        self.router_replaced = not switch_model.capacity_is_applied()
        resident = any(name != "offload" for name in names)
        started = time.perf_counter()
        self.model, self.stacks = switch_model.load(folder, device, device if resident else torch.device("cpu"), dtype)
        self.load_s = time.perf_counter() - started
        self.installed = [layer.mlp for layer in self.model.sparse_layers]
        makers = {"standard": self.standard, "transformers": self.transformers, "grouped": self.grouped,
                  "offload": self.offload}
        self.mlps = {name: makers[name]() for name in names}

    def routed(self, experts) -> list[nn.Module]:
        return [RoutedMlp(mlp.router, experts(mlp, stack)).eval()
                for mlp, stack in zip(self.installed, self.stacks, strict=True)]

    def standard(self) -> list[nn.Module]:
        return self.routed(lambda mlp, stack: StandardExperts(mlp.experts))

    def transformers(self) -> list[nn.Module]:
        return self.routed(lambda mlp, stack: InstalledExperts(mlp.experts)) if self.router_replaced else self.installed

    def grouped(self) -> list[nn.Module]:
        return self.routed(lambda mlp, stack: GroupedExperts(stack, mlp.experts["expert_0"].act))

    def offload(self) -> list[nn.Module]:
        from accelerate import cpu_offload

        def offloaded(mlp: nn.Module, stack: ExpertStack) -> nn.Module:
            with torch.device("meta"):
                experts = type(mlp.experts)(self.model.config)
            ExpertStack(stack.wi.cpu(), stack.wo.cpu()).fill(experts)
            return InstalledExperts(cpu_offload(experts.eval(), execution_device=self.device))

        return self.routed(offloaded)


class Batches:
    """Inputs in their order, padded on the right: padding behind a sequence changes nothing in it."""

    def __init__(self, rows: list[switch_inputs.Row], size: int, pad: int):
        self.batches = []
        for first in range(0, len(rows), size):
            some = [row.ids for row in rows[first : first + size]]
            width = max(map(len, some))
            ids = torch.tensor([one + [pad] * (width - len(one)) for one in some])
            mask = torch.tensor([[1] * len(one) + [0] * (width - len(one)) for one in some])
            self.batches.append((ids, mask))

    def run(self, model: Classifier, device: torch.device) -> tuple[np.ndarray, list[float]]:
        """Logits, and the seconds of each batch from its ids in host memory to its logits there."""
        logits, seconds = [], []
        for ids, mask in self.batches:
            started = time.perf_counter()
            logits.append(model(ids.to(device), mask.to(device)).float().cpu())
            seconds.append(time.perf_counter() - started)
        return torch.cat(logits).numpy(), seconds


class RoutingCount:
    """Counts in an unmeasured pass: experts called (each once a batch and layer), and real tokens dropped."""

    def __init__(self, model: Classifier):
        self.calls = self.dropped = 0
        self.mask = None
        self.hooks = [layer.mlp.register_forward_pre_hook(self.count) for layer in model.sparse_layers]
        self.hooks.append(model.register_forward_pre_hook(self.remember))

    def remember(self, _, arguments) -> None:
        self.mask = arguments[1].reshape(-1, 1)

    def count(self, mlp: nn.Module, arguments) -> None:
        kept, _ = switch_model.route(mlp.router, arguments[0])
        self.calls += int((kept.sum(0) > 0).sum())
        self.dropped += int(((kept.sum(-1, keepdim=True) == 0) & (self.mask > 0)).sum())

    def remove(self) -> None:
        for hook in self.hooks:
            hook.remove()


def read_logits(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.load(path)
    lines = path.read_text().splitlines()
    return np.array([line.split("\t")[2:] for line in lines[1:]], dtype=np.float32)


def compare(logits: np.ndarray, reference: np.ndarray, tolerance: float, allowed_rows: float) -> dict:
    """A row's error is its largest absolute difference over the norm of a typical row of the reference, the root mean
    square over all rows: a row's own can be next to nothing where its terms cancel."""
    if logits.shape != reference.shape:
        return {"ok": False, "reason": f"logits are {list(logits.shape)}, the reference's {list(reference.shape)}"}
    reference = reference.astype(np.float64)
    difference = np.abs(logits - reference).max(-1)
    norms = np.linalg.norm(reference, axis=-1)
    norm = max(float(np.sqrt(np.mean(norms**2))), 1e-30)
    errors = difference / norm
    over = float((~(errors <= tolerance)).mean())  # a NaN is over
    return {"ok": over <= allowed_rows, "max_abs_error_over_norm": float(errors.max()), "norm": norm,
            "median_abs_error_over_norm": float(np.median(errors)), "tolerance": tolerance, "rows_over": over,
            "rows_over_allowed": allowed_rows,
            "max_abs_error_over_own_norm": float((difference / np.maximum(norms, 1e-30)).max()),
            "same_labels": float((logits.argmax(-1) == reference.argmax(-1)).mean())}


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[max(1, math.ceil(share * len(ordered))) - 1]


def peak_rss_bytes() -> int:
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def parameter_bytes(model: nn.Module) -> int:
    """Weights outside of the experts, shared ones once."""
    sizes = {p.data_ptr(): p.nbytes for name, p in model.named_parameters() if ".experts." not in name}
    return sum(sizes.values())


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else "cpu"


def say(**line) -> None:
    print(json.dumps(line), flush=True)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--data", type=Path, required=True, help="TSV or JSONL; {\"ids\": [...]} are taken as they are")
    parser.add_argument("--arm", action="append", choices=["standard", "transformers", "grouped", "offload"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=[*DTYPES], default="fp32")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--limit", type=int, help="only the first inputs")
    parser.add_argument("--rounds", type=int, default=3, help="measured ones; 0 only compares")
    parser.add_argument("--threads", type=int, help="of PyTorch on the CPU; all cores by default")
    parser.add_argument("--logits", type=Path, help="write the first arm's logits, float32, to this .npy file")
    parser.add_argument("--compare", type=Path, help="logits to compare with: .npy, or a TSV of `sida classify --out`")
    parser.add_argument("--tolerance", type=float,
                        help="largest difference over the norm of a typical row; default 1e-5 in fp32, 2e-2 in bf16")
    parser.add_argument("--allow-rows", type=float, default=0.0, metavar="SHARE",
                        help="share of rows that may be over it: in bf16 near-equal experts change places")
    return parser


def logits_agree(logits: dict[str, np.ndarray], options: argparse.Namespace) -> bool:
    first = next(iter(logits))
    references = {f"arm {first}": logits[first]}
    if options.compare:
        references = {options.compare.name: read_logits(options.compare)[: options.limit]} | references
    tolerance = TOLERANCE[options.dtype] if options.tolerance is None else options.tolerance
    agree = True
    for against, reference in references.items():
        for arm, values in logits.items():
            if against == f"arm {arm}":
                continue
            result = compare(values, reference, tolerance, options.allow_rows)
            say(check="logits", arm=arm, against=against, dtype=options.dtype, **result)
            agree = agree and result["ok"]
    return agree


def main() -> int:
    options = make_parser().parse_args()
    device, dtype = torch.device(options.device), DTYPES[options.dtype]
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("hf_switch: --device cuda, but PyTorch finds no CUDA device")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if options.threads:
        torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()

    names = []
    for arm in dict.fromkeys(options.arm or ["standard", "transformers", "grouped", "offload"]):
        reason = why_not(arm, device, dtype)
        if reason:
            say(arm=arm, device=options.device, dtype=options.dtype, skipped=reason)
        else:
            names.append(arm)
    if not names:
        return 0
    rows = switch_inputs.read_rows(options.data, options.limit)
    config = switch_model.read_config(options.model)
    switch_inputs.tokenize(rows, options.model, config.eos_token_id)
    tokens = sum(len(row.ids) for row in rows)
    batches = Batches(rows, options.batch, config.pad_token_id)
    arms = Arms(options.model, names, device, dtype)

    # Unmeasured: warms each arm up, and tells whether its answers are the right ones.
    counter, logits = None, {}
    for name in names:
        arms.model.use(arms.mlps[name])
        counter = counter or RoutingCount(arms.model)
        logits[name], _ = batches.run(arms.model, device)
        counter.remove()
    if options.logits:
        np.save(options.logits, logits[names[0]])
    if not logits_agree(logits, options):
        print("hf_switch: logits differ; nothing is measured", file=sys.stderr)
        return 1

    seconds = {name: [] for name in names}
    latencies = {name: [] for name in names}
    peak = dict.fromkeys(names, 0)
    for number in range(options.rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            arms.model.use(arms.mlps[name])
            if device.type == "cuda":
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            started = time.perf_counter()
            result, batch_s = batches.run(arms.model, device)
            seconds[name].append(time.perf_counter() - started)
            latencies[name] += [1000 * value for value in batch_s]
            if device.type == "cuda":
                peak[name] = max(peak[name], torch.cuda.max_memory_allocated())
            if not np.isfinite(result).all():
                sys.exit(f"hf_switch: {name}: a logit isn't finite")

    labelled = [(i, row.label) for i, row in enumerate(rows) if row.label is not None]
    expert_bytes = sum(stack.bytes for stack in arms.stacks)
    experts = config.num_experts * len(arms.stacks)
    for name in names:
        wall = statistics.median(seconds[name]) if seconds[name] else 0.0
        line = {
            "arm": name, "model": str(options.model), "mode": "exact", "device": options.device,
            "device_name": device_name(device), "dtype": options.dtype, "tf32": False, "batch": options.batch,
            "threads": torch.get_num_threads(), "capacity": "hf",
            "router_replaced": arms.router_replaced if name == "transformers" else True,
            "torch": torch.__version__, "transformers": transformers.__version__, "sequences": len(rows),
            "tokens": tokens, "batches": len(batches.batches), "rounds": options.rounds, "seconds": seconds[name],
            "wall_s": wall, "sequences_per_s": len(rows) / wall if wall else 0.0,
            "tokens_per_s": tokens / wall if wall else 0.0,
        }
        if latencies[name]:
            line |= {"latency_ms_p50": percentile(latencies[name], 0.50),
                     "latency_ms_p99": percentile(latencies[name], 0.99)}
        if labelled:
            line["accuracy"] = sum(int(logits[name][i].argmax()) == label for i, label in labelled) / len(labelled)
        line |= {
            "logits_sha256": hashlib.sha256(logits[name].astype("<f4").tobytes()).hexdigest(), "experts": experts,
            "expert_bytes_total": expert_bytes, "expert_calls": counter.calls, "dropped_tokens": counter.dropped,
            # What a call of accelerate's moves, it moves again at the next one.
            "expert_bytes_read": counter.calls * (expert_bytes // experts) if name == "offload" else 0,
            "dense_bytes": parameter_bytes(arms.model), "load_s": arms.load_s, "peak_rss_bytes": peak_rss_bytes(),
        }
        if device.type == "cuda":
            line["peak_device_bytes"] = peak[name]  # of the process: resident arms' weights stay where they are
        say(**line)
    return 0


if __name__ == "__main__":
    with torch.inference_mode():
        sys.exit(main())
