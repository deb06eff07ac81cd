#!/usr/bin/env python3
"""Runs a Switch classifier with PyTorch: what sida is measured against, in several arms and one process.

    pip install -r bench/peers/requirements.txt
    sida classify --model DIR --data FILE --out sida.tsv
    python bench/peers/hf_switch.py --model DIR --data FILE --compare sida.tsv --rounds 5

DIR is a folder as `sida synth` writes it, FILE what `sida classify --data` takes. Arms (--arm NAME; all but compiled by
default):

    standard      every expert of every MoE layer is called in a loop on the tokens it got, none or many (the "Standard"
                  of SiDA-MoE's paper); all resident
    transformers  the model as installed; all resident
    grouped       stacked weights, tokens sorted by expert, two torch._grouped_mm a layer; all resident; CUDA, bf16
    offload       experts in host memory, moved at each call by accelerate's cpu_offload; CUDA
    compiled      transformers, through torch.compile with dynamic shapes; skipped, with the reason, where that fails

All follow transformers 5.24's capacity rule, as sida does by default; where the installed release has another, its
router is replaced and the line says so. TF32 is off. Before any time counts, each arm runs once over all inputs and its
logits are compared with --compare (FILE.npy of --logits, or the TSV of `sida classify --out`) and with the first arm's.
Then the arms take turns, round by round. One JSON line an arm; keys mean what they mean in `sida classify --json`.

With --serve nothing is run by itself. Each line of standard input asks for something, and gets one JSON line: "check
ARM BATCH" warms an arm up and compares it with --compare, "run ARM BATCH" measures one round of it.

Exit status: 0; 1 when logits differ by more than --tolerance, or an input is wrong; 2 for unknown options.
"""

import argparse
import sys
import time
from pathlib import Path

try:
    import numpy as np
    import torch
    from torch import nn

    import switch_model
    from peer_run import DTYPES, Peer, Rounds, RoutingCount, Unsupported, add_common_options, quiet_and_exact, say, serve
    from switch_model import ExpertStack, InstalledExperts, RoutedMlp
except ModuleNotFoundError as missing:
    sys.exit(f"hf_switch: needs {missing.name}: pip install -r {Path(__file__).parent}/requirements.txt")

DEFAULT_ARMS = ["standard", "transformers", "grouped", "offload"]
ARMS = [*DEFAULT_ARMS, "compiled"]


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


class Arms(Peer):
    """The sparse FFNs of each arm, over one encoder: arms share all other weights, and the resident experts."""

    def __init__(self, options: argparse.Namespace, names: list[str], device: torch.device):
        super().__init__(options, device)
        self.router_replaced = not switch_model.capacity_is_applied()
        resident = any(name != "offload" for name in names)
        started = time.perf_counter()
        self.model, self.stacks = switch_model.load(options.model, device, device if resident else torch.device("cpu"),
                                                    DTYPES[options.dtype])
        self.load_s = time.perf_counter() - started
        self.experts = self.config.num_experts * len(self.stacks)
        self.expert_bytes = sum(stack.bytes for stack in self.stacks)
        self.installed = [layer.mlp for layer in self.model.sparse_layers]
        makers = {"standard": self.standard, "transformers": self.transformers, "grouped": self.grouped,
                  "offload": self.offload, "compiled": self.transformers}
        self.mlps = {name: makers[name]() for name in names}
        self.compiled = torch.compile(self.model, dynamic=True) if "compiled" in names else None

    def use(self, arm: str) -> nn.Module:
        self.model.use(self.mlps[arm])
        return self.compiled if arm == "compiled" else self.model

    def details(self, arm: str, count: RoutingCount) -> dict:
        # What a call of accelerate's moves, it moves again at the next one.
        read = count.calls * (self.expert_bytes // self.experts) if arm == "offload" else 0
        installed = arm in ("transformers", "compiled")
        result = {"router_replaced": self.router_replaced if installed else True, "expert_bytes_read": read}
        if arm == "compiled":
            counters = torch._dynamo.utils.counters
            result |= {"graph_breaks": sum(counters["graph_break"].values()),
                       "frames_compiled": counters["frames"]["ok"], "frames": counters["frames"]["total"]}
        return result

    def warm_up(self, arm: str, size: int) -> np.ndarray:
        """An arm's logits, from a pass that isn't measured."""
        if arm != "compiled":
            return self.answer(arm, size)
        if size not in self.counts:
            self.answer_by_installed(size)
        try:
            self.answer(arm, size)  # compiles for every shape that comes
            return self.answer(arm, size)
        except Exception as error:  # whatever the compiler and its tools may raise
            lines = str(error).strip().splitlines() or [""]
            raise Unsupported(f"torch.compile: {type(error).__name__}: {lines[0]}") from error

    def answer_by_installed(self, size: int) -> None:
        """Counts the routing of batches that no other arm has answered: hooks would be compiled too."""
        self.use("compiled")
        self.counts[size] = RoutingCount(self.model)
        self.batches(size).run(self.model, self.device)
        self.counts[size].remove()

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


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser)
    parser.add_argument("--arm", action="append", choices=ARMS)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--logits", type=Path, help="write the first arm's logits, float32, to this .npy file")
    return parser


def warm_up_all(arms: Arms, names: list[str]) -> dict[str, np.ndarray]:
    """Logits of the arms that work; the others are reported."""
    logits = {}
    for name in names:
        try:
            logits[name] = arms.warm_up(name, arms.options.batch)
        except Unsupported as error:
            say(arm=name, device=arms.options.device, dtype=arms.options.dtype, skipped=str(error))
    return logits


def main() -> int:
    options = make_parser().parse_args()
    device, dtype = torch.device(options.device), DTYPES[options.dtype]
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("hf_switch: --device cuda, but PyTorch finds no CUDA device")
    quiet_and_exact(options.threads)

    names = []
    for arm in dict.fromkeys(options.arm or DEFAULT_ARMS):
        reason = why_not(arm, device, dtype)
        if reason:
            say(arm=arm, device=options.device, dtype=options.dtype, skipped=reason)
        else:
            names.append(arm)
    if not names:
        return 0
    arms = Arms(options, names, device)
    if options.serve:
        return serve(arms, names, arms.warm_up)

    # Unmeasured: warms each arm up, and tells whether its answers are the right ones.
    logits = warm_up_all(arms, names)
    names = [*logits]
    if not names:
        return 0
    if options.logits:
        np.save(options.logits, logits[names[0]])
    if not arms.logits_agree(logits):
        print("hf_switch: logits differ; nothing is measured", file=sys.stderr)
        return 1

    rounds = {name: Rounds() for name in names}
    for number in range(options.rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            arms.measure(name, options.batch, rounds[name])
    for name in names:
        say(**arms.account(name, options.batch, rounds[name], logits[name]))
    return 0


if __name__ == "__main__":
    with torch.inference_mode():
        sys.exit(main())
