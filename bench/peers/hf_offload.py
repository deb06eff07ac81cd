#!/usr/bin/env python3
"""Runs a Switch classifier with PyTorch, experts on disk by accelerate: what sida is measured against under a budget.

    python bench/peers/hf_offload.py --model DIR --folder OFFLOADED --dtype bf16 --prepare
    sida classify --model DIR --data FILE --out sida.tsv
    python bench/peers/hf_offload.py --model DIR --folder OFFLOADED --dtype bf16 --data FILE --compare sida.tsv

--prepare writes the experts to OFFLOADED in accelerate's form, one layer in memory at a time, and ends. A run then
loads the dense weights only. accelerate's disk_offload reads a Linear's weights when it is called, through a mapping
and so the page cache, and drops them after the call; transformers calls the experts that got a token. Nothing is
loaded ahead. On the CPU, eager.

There is one arm, `disk`. Before any time counts, its logits are compared with --compare. The JSON line's keys mean what
they mean in `sida classify --json`; disk_bytes_read is the kernel's count of what it fetched from storage in a round.
Who wants a cold page cache drops it between rounds; with --serve (see hf_switch.py --help) a driver can.

Exit status: 0; 1 when logits differ by more than --tolerance, or an input is wrong; 2 for unknown options.
"""

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path

try:
    import accelerate
    import torch
    from accelerate import disk_offload
    from accelerate.utils import offload_state_dict
    from torch import nn

    import switch_model
    from peer_run import DTYPES, Peer, Rounds, RoutingCount, add_common_options, quiet_and_exact, say, serve
    from switch_model import InstalledExperts, RoutedMlp
except ModuleNotFoundError as missing:
    sys.exit(f"hf_offload: needs {missing.name}: pip install -r {Path(__file__).parent}/requirements.txt")

ARM = "disk"
ABOUT = "about.json"


def about(model: Path, dtype: str) -> dict:
    """What tells one checkpoint's experts from another's, without reading them."""
    config = (model / "config.json").read_bytes()
    shards = {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in model.glob("*.safetensors")}
    return {"config_sha256": hashlib.sha256(config).hexdigest(), "shards": shards, "dtype": dtype,
            "accelerate": accelerate.__version__}


def prepare(model: Path, folder: Path, dtype: str) -> int:
    """Writes the experts, and last of all the file that says that they are complete."""
    mark = folder / ABOUT
    if mark.exists() and json.loads(mark.read_text()) == about(model, dtype):
        say(prepared=str(folder), reused=True)
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    mark.unlink(missing_ok=True)
    dense, tensors = switch_model.load_dense(model, torch.device("cpu"), DTYPES[dtype])
    total = 0
    for number, (stem, experts) in enumerate(switch_model.expert_layers(dense)):
        stack = tensors.stack(stem, dense.config, torch.device("cpu"))
        stack.fill(experts)
        offload_state_dict(str(folder / f"layer_{number}"), experts.state_dict())
        experts.to("meta")
        total += stack.bytes
    switch_model.refuse_rest([*tensors.files])
    mark.write_text(json.dumps(about(model, dtype)) + "\n")
    say(prepared=str(folder), reused=False, expert_bytes_total=total)
    return 0


class Offloaded(Peer):
    """The classifier with its experts on disk."""

    def __init__(self, options: argparse.Namespace):
        super().__init__(options, torch.device("cpu"))
        self.router_replaced = not switch_model.capacity_is_applied()
        started = time.perf_counter()
        self.model, tensors = switch_model.load_dense(options.model, self.device, DTYPES[options.dtype])
        mlps = []
        for number, (stem, experts) in enumerate(switch_model.expert_layers(self.model)):
            tensors.forget(stem)
            experts.to(DTYPES[options.dtype])  # without memory; transformers casts an expert's input to its type
            self.expert_bytes += sum(weight.nbytes for weight in experts.parameters())
            self.experts += len(experts)
            mlps.append(self.offload(experts, options.folder / f"layer_{number}"))
        switch_model.refuse_rest([*tensors.files])
        self.model.use(mlps)
        self.load_s = time.perf_counter() - started

    def offload(self, experts: nn.Module, folder: Path) -> nn.Module:
        layer = next(layer for layer in self.model.sparse_layers if layer.mlp.experts is experts)
        disk_offload(experts, str(folder), execution_device=self.device)
        return RoutedMlp(layer.mlp.router, InstalledExperts(experts)).eval() if self.router_replaced else layer.mlp

    def use(self, arm: str) -> nn.Module:
        return self.model

    def details(self, arm: str, count: RoutingCount) -> dict:
        # Each call of an expert reads all of it, from the page cache or from the disk.
        return {"router_replaced": self.router_replaced, "accelerate": accelerate.__version__,
                "expert_bytes_read": count.calls * (self.expert_bytes // self.experts)}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser, data_required=False)
    parser.add_argument("--folder", type=Path, required=True, help="where the experts lie in accelerate's form")
    parser.add_argument("--prepare", action="store_true", help="write them there, unless they are there, and end")
    return parser


def main() -> int:
    parser = make_parser()
    options = parser.parse_args()
    quiet_and_exact(options.threads)
    if options.prepare:
        return prepare(options.model, options.folder, options.dtype)
    if options.data is None:
        parser.error("the following arguments are required: --data")
    mark = options.folder / ABOUT
    if not mark.exists() or json.loads(mark.read_text()) != about(options.model, options.dtype):
        sys.exit(f"hf_offload: {options.folder}: not prepared for {options.model} in {options.dtype}; see --prepare")
    peer = Offloaded(options)
    if options.serve:
        return serve(peer, [ARM], peer.answer)

    logits = {ARM: peer.answer(ARM, options.batch)}
    if not peer.logits_agree(logits):
        print("hf_offload: logits differ; nothing is measured", file=sys.stderr)
        return 1
    rounds = Rounds()
    for _ in range(options.rounds):
        peer.measure(ARM, options.batch, rounds)
    say(**peer.account(ARM, options.batch, rounds, logits[ARM]))
    return 0


if __name__ == "__main__":
    with torch.inference_mode():
        sys.exit(main())
