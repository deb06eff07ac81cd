#!/usr/bin/env python3
"""Fits a hash function that looks at each word alone: for checkpoints that nobody trained one for.

    sida classify --model DIR --data FILE --record routing
    python tools/fit_token_predictor.py --model DIR --data FILE --record routing --out predictor.safetensors

The file has the form of a trained one (docs/formats.md, "Hash function"), and sida reads and computes it like one. Its
LSTM is zero, so that only the way around it counts: compression, residual, heads. That says something where equal words
mostly go to equal experts, as in what `sida synth` writes. Use other sentences than those that are measured.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench" / "peers"))
import switch_inputs  # noqa: E402

NO_EXPERT = 65535


def sparse_blocks(config: dict) -> list[int]:
    step = config.get("encoder_sparse_step") or config["num_layers"] // config["num_sparse_encoder_layers"]
    return [b for b in range(config["num_layers"]) if step == 1 or b % step == 1]


def fit(x: torch.Tensor, experts: torch.Tensor, options: argparse.Namespace) -> dict[str, torch.Tensor]:
    """x: [tokens, d_model], experts: [tokens, layers]. Returns the parameters of compression and heads."""
    torch.manual_seed(options.seed)
    layers, count = experts.shape[1], options.experts
    compression = torch.nn.Linear(x.shape[1], options.hidden)
    heads = torch.nn.Linear(options.hidden, layers * count)
    for module in (compression, heads):
        module.to(x.device)
    optimizer = torch.optim.AdamW([*compression.parameters(), *heads.parameters()], lr=options.rate, weight_decay=0.01)
    for step in range(options.steps):
        for group in optimizer.param_groups:
            group["lr"] = options.rate * (1 - step / options.steps)
        logits = heads(torch.relu(compression(x))).view(-1, layers, count)
        loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), experts, ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    known = experts >= 0
    right = float((logits.argmax(-1) == experts)[known].float().mean())
    print(f"fit_token_predictor: {len(x)} tokens; right for {right:.3f} of the experts that it was fitted to")
    weight, bias = heads.weight.detach().view(layers, count, -1).cpu(), heads.bias.detach().view(layers, count).cpu()
    parameters = {"compression_fc.weight": compression.weight.detach().cpu(),
                  "compression_fc.bias": compression.bias.detach().cpu()}
    for layer, block in enumerate(options.blocks):
        parameters |= {f"fc.{block}.weight": weight[layer], f"fc.{block}.bias": bias[layer]}
    return parameters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--record", type=Path, required=True, help="folder of `sida classify --record`, over --data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    config = json.loads((options.model / "config.json").read_text())
    options.experts, options.blocks = config["num_experts"], sparse_blocks(config)

    rows = switch_inputs.read_rows(options.data, None)
    switch_inputs.tokenize(rows, options.model, config.get("eos_token_id", 1))
    ids = torch.tensor([token for row in rows for token in row.ids])
    routing = np.load(options.record / "experts.npy").astype(np.int64)[:, :, 0]  # [tokens, layers]
    if routing.shape != (len(ids), len(options.blocks)):
        sys.exit(f"fit_token_predictor: routing of {routing.shape[0]} tokens and {routing.shape[1]} layers, but "
                 f"{options.data} has {len(ids)} tokens and the model {len(options.blocks)} layers")
    experts = torch.from_numpy(np.where(routing == NO_EXPERT, -100, routing)).to(options.device)
    with safe_open(options.model / "model.safetensors", framework="pt") as file:
        x = file.get_tensor("shared.weight")[ids].float().to(options.device)

    tensors = fit(x, experts, options)
    zeros = {f"lstm.{kind}_{way}_l{layer}": torch.zeros((4 * options.hidden, options.hidden) if kind == "weight"
                                                        else (4 * options.hidden,))
             for layer in (0, 1) for way in ("ih", "hh") for kind in ("weight", "bias")}
    residual = {"residual_fc.weight": torch.eye(options.hidden), "residual_fc.bias": torch.zeros(options.hidden)}
    tensors |= zeros | residual
    save_file({name: value.to(torch.bfloat16).contiguous() for name, value in sorted(tensors.items())}, options.out,
              metadata={"format": "pt"})


if __name__ == "__main__":
    main()
