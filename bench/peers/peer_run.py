"""What the PyTorch peers have in common: batches, a pass over them, its account, and rounds asked for line by line."""

import argparse
import hashlib
import json
import math
import re
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import nn

import switch_inputs
import switch_model
from switch_logits import TOLERANCE, compare, read_logits
from switch_model import Classifier

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Batches:
    """Inputs in their order, padded on the right: padding behind a sequence changes nothing in it."""

    def __init__(self, rows: list[switch_inputs.Row], size: int, pad: int):
        self.size, self.batches = size, []
        for first in range(0, len(rows), size):
            some = [row.ids for row in rows[first : first + size]]
            width = max(map(len, some))
            ids = torch.tensor([one + [pad] * (width - len(one)) for one in some])
            mask = torch.tensor([[1] * len(one) + [0] * (width - len(one)) for one in some])
            self.batches.append((ids, mask))

    def run(self, model: nn.Module, device: torch.device) -> tuple[np.ndarray, list[float]]:
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


@dataclass
class Rounds:
    """What an arm's measured rounds gave."""

    seconds: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    disk_bytes: list[int] = field(default_factory=list)
    peak_device_bytes: int = 0
    logits: np.ndarray | None = None

    def add(self, seconds: float, logits: np.ndarray, batch_s: list[float], disk_bytes: int) -> None:
        self.seconds.append(seconds)
        self.latencies_ms += [1000 * value for value in batch_s]
        self.disk_bytes.append(disk_bytes)
        self.logits = logits


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[max(1, math.ceil(share * len(ordered))) - 1]


def peak_rss_bytes() -> int:
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def disk_bytes_read() -> int:
    """Bytes that this process had fetched from storage so far, by reads and by page faults; 0 where nobody counts."""
    try:
        found = re.search(r"^read_bytes: (\d+)", Path("/proc/self/io").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


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


def quiet_and_exact(threads: int | None) -> None:
    """Settings of PyTorch that all peers run with."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if threads:
        torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()


def add_common_options(parser: argparse.ArgumentParser, data_required: bool = True) -> None:
    parser.add_argument("--model", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--data", type=Path, required=data_required,
                        help="TSV or JSONL; {\"ids\": [...]} are taken as they are")
    parser.add_argument("--dtype", choices=[*DTYPES], default="fp32")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--limit", type=int, help="only the first inputs")
    parser.add_argument("--rounds", type=int, default=3, help="measured ones; 0 only compares")
    parser.add_argument("--threads", type=int, help="of PyTorch on the CPU; all cores by default")
    parser.add_argument("--compare", type=Path, help="logits to compare with: .npy, or a TSV of `sida classify --out`")
    parser.add_argument("--tolerance", type=float,
                        help="largest difference over the norm of a typical row; default 1e-5 in fp32, 2e-2 in bf16")
    parser.add_argument("--allow-rows", type=float, default=0.0, metavar="SHARE",
                        help="share of rows that may be over it: in bf16 near-equal experts change places")
    parser.add_argument("--serve", action="store_true",
                        help="take 'check ARM BATCH' and 'run ARM BATCH' from standard input, one a line")


class Peer:
    """A model, its inputs, and its account. Programs derive from it: they say how an arm runs."""

    def __init__(self, options: argparse.Namespace, device: torch.device):
        self.options, self.device = options, device
        self.rows = switch_inputs.read_rows(options.data, options.limit)
        self.config = switch_model.read_config(options.model)
        switch_inputs.tokenize(self.rows, options.model, self.config.eos_token_id)
        self.tokens = sum(len(row.ids) for row in self.rows)
        self.by_size: dict[int, Batches] = {}
        self.counts: dict[int, RoutingCount] = {}
        # Set by whoever loads:
        self.model: Classifier | None = None
        self.load_s, self.experts, self.expert_bytes = 0.0, 0, 0

    @property
    def tolerance(self) -> float:
        return TOLERANCE[self.options.dtype] if self.options.tolerance is None else self.options.tolerance

    def batches(self, size: int) -> Batches:
        if size not in self.by_size:
            self.by_size[size] = Batches(self.rows, size, self.config.pad_token_id)
        return self.by_size[size]

    def use(self, arm: str) -> nn.Module:
        """Makes the model an arm's, and returns what is to be called."""
        raise NotImplementedError

    def details(self, arm: str, count: RoutingCount) -> dict:
        """Keys that are the program's own."""
        raise NotImplementedError

    def answer(self, arm: str, size: int) -> np.ndarray:
        """An unmeasured pass: warms an arm up, and is where routing is counted, once a batch size."""
        called = self.use(arm)
        counting = size not in self.counts and called is self.model
        if counting:
            self.counts[size] = RoutingCount(self.model)
        try:
            return self.batches(size).run(called, self.device)[0]
        finally:
            if counting:
                self.counts[size].remove()

    def measure(self, arm: str, size: int, rounds: Rounds) -> None:
        """One round of an arm."""
        called = self.use(arm)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        read_before = disk_bytes_read()
        started = time.perf_counter()
        logits, batch_s = self.batches(size).run(called, self.device)
        rounds.add(time.perf_counter() - started, logits, batch_s, disk_bytes_read() - read_before)
        if self.device.type == "cuda":
            rounds.peak_device_bytes = max(rounds.peak_device_bytes, torch.cuda.max_memory_allocated())
        if not np.isfinite(logits).all():
            sys.exit(f"{Path(sys.argv[0]).stem}: {arm}: a logit isn't finite")

    def accuracy(self, logits: np.ndarray) -> dict:
        labelled = [(i, row.label) for i, row in enumerate(self.rows) if row.label is not None]
        if not labelled:
            return {}
        return {"accuracy": sum(int(logits[i].argmax()) == label for i, label in labelled) / len(labelled)}

    def account(self, arm: str, size: int, rounds: Rounds, logits: np.ndarray) -> dict:
        wall = statistics.median(rounds.seconds) if rounds.seconds else 0.0
        line = {
            "arm": arm, "model": str(self.options.model), "mode": "exact", "device": self.device.type,
            "device_name": device_name(self.device), "dtype": self.options.dtype, "tf32": False, "batch": size,
            "threads": torch.get_num_threads(), "capacity": "hf", "torch": torch.__version__,
            "transformers": transformers.__version__, "sequences": len(self.rows), "tokens": self.tokens,
            "batches": len(self.batches(size).batches), "rounds": len(rounds.seconds), "seconds": rounds.seconds,
            "wall_s": wall, "sequences_per_s": len(self.rows) / wall if wall else 0.0,
            "tokens_per_s": self.tokens / wall if wall else 0.0,
        }
        if rounds.latencies_ms:
            line |= {"latency_ms_p50": percentile(rounds.latencies_ms, 0.50),
                     "latency_ms_p99": percentile(rounds.latencies_ms, 0.99)}
        count = self.counts[size]
        line |= self.accuracy(logits) | {
            "logits_sha256": hashlib.sha256(logits.astype("<f4").tobytes()).hexdigest(), "experts": self.experts,
            "expert_bytes_total": self.expert_bytes, "expert_calls": count.calls, "dropped_tokens": count.dropped,
            "disk_bytes_read": int(statistics.median(rounds.disk_bytes)) if rounds.disk_bytes else 0,
            "dense_bytes": parameter_bytes(self.model), "load_s": self.load_s, "peak_rss_bytes": peak_rss_bytes(),
        } | self.details(arm, count)
        if self.device.type == "cuda":
            line["peak_device_bytes"] = rounds.peak_device_bytes  # of the process: resident weights stay where they are
        return line

    def logits_agree(self, logits: dict[str, np.ndarray]) -> bool:
        """Compares arms with the file of --compare and with the first arm, and says how far each is."""
        options, first = self.options, next(iter(logits))
        references = {f"arm {first}": logits[first]}
        if options.compare:
            references = {options.compare.name: read_logits(options.compare)[: options.limit]} | references
        agree = True
        for against, reference in references.items():
            for arm, values in logits.items():
                if against == f"arm {arm}":
                    continue
                result = compare(values, reference, self.tolerance, options.allow_rows)
                say(check="logits", arm=arm, against=against, dtype=options.dtype, **result)
                agree = agree and result["ok"]
        return agree


def serve(peer: Peer, arms: list[str], warm_up: Callable[[str, int], np.ndarray]) -> int:
    """Answers each line of standard input with one line of JSON. While no line comes, the process sleeps.

    'check ARM BATCH' warms up and compares with --compare; 'run ARM BATCH' then measures one round.
    """
    name = Path(sys.argv[0]).stem
    if peer.options.compare is None:
        print(f"{name}: --serve needs --compare", file=sys.stderr)
        return 2
    reference = read_logits(peer.options.compare)[: peer.options.limit]
    checked = set()
    say(ready=arms, dtype=peer.options.dtype, load_s=peer.load_s)
    for text in sys.stdin:
        words = text.split()
        if len(words) != 3 or words[0] not in ("check", "run") or words[1] not in arms or not words[2].isdigit() \
                or int(words[2]) < 1:
            print(f"{name}: standard input: '{text.strip()}': expected 'check ARM BATCH' or 'run ARM BATCH', "
                  f"ARM one of: {', '.join(arms)}", file=sys.stderr)
            return 1
        arm, size = words[1], int(words[2])
        if words[0] == "check":
            try:
                logits = warm_up(arm, size)
            except Unsupported as error:
                say(check="logits", arm=arm, batch=size, dtype=peer.options.dtype, skipped=str(error))
                continue
            result = compare(logits, reference, peer.tolerance, peer.options.allow_rows)
            say(check="logits", arm=arm, batch=size, dtype=peer.options.dtype, **result)
            checked |= {(arm, size)} if result["ok"] else set()
        elif (arm, size) in checked:
            rounds = Rounds()
            peer.measure(arm, size, rounds)
            say(**peer.account(arm, size, rounds, rounds.logits))
        else:
            print(f"{name}: {arm} at batch {size}: not checked, or its logits differ", file=sys.stderr)
            return 1
    return 0


class Unsupported(Exception):
    """An arm doesn't work with what is installed here."""
