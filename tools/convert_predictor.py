#!/usr/bin/env python3
"""Turns a hash function trained by the code released with SiDA-MoE into a predictor that sida reads.

    pip install torch safetensors
    python tools/convert_predictor.py checkpoint.pt predictor.safetensors [--bf16]

That code saves `{"model_state_dict": {...}}` with heads named
`fc.switch_transformers-encoder-block-N-layer-1-mlp-router-classifier`; here they are `fc.N`. All else keeps its name. Such a
network was trained with a sparsemax that subtracts 1 twice: give `--sparsemax released` to sida with it.
"""

import argparse
import re
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

HEAD = re.compile(r"fc\..*?encoder[-.]block[-.](\d+)[-.]layer[-.]1[-.]mlp[-.]router[-.]classifier\.(weight|bias)")
KEPT = re.compile(r"(compression_fc|residual_fc)\.(weight|bias)|lstm\.(weight|bias)_(ih|hh)_l[01]")


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names as sida has them; an unknown name is an error, since a network with more parts would give other answers."""
    tensors = {}
    for name, value in state.items():
        name = name.removeprefix("module.")
        head = HEAD.fullmatch(name)
        if not head and not KEPT.fullmatch(name):
            sys.exit(f"convert_predictor: '{name}' is no part of the hash function")
        tensors[f"fc.{head[1]}.{head[2]}" if head else name] = value
    return tensors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bf16", action="store_true", help="store half the bytes")
    arguments = parser.parse_args()
    if not arguments.checkpoint.is_file():
        sys.exit(f"convert_predictor: {arguments.checkpoint}: no such file")
    checkpoint = torch.load(arguments.checkpoint, map_location="cpu", weights_only=True)
    dtype = torch.bfloat16 if arguments.bf16 else torch.float32
    tensors = renamed(checkpoint.get("model_state_dict", checkpoint))
    save_file({name: value.to(dtype).contiguous() for name, value in sorted(tensors.items())}, arguments.out)


if __name__ == "__main__":
    main()
