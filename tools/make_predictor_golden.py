#!/usr/bin/env python3
"""Writes tests/goldens/predictor: a hash function with random weights, and what PyTorch computes with it.

    pip install torch safetensors
    python tools/make_predictor_golden.py --out tests/goldens/predictor

`predictor.safetensors` is the network; `golden.safetensors` holds sequences of several lengths one after the other
(`embeddings` [tokens, d_model], `offsets` [sequences + 1]) and the heads' outputs [MoE layer, token, expert] with exact
sparsemax (`logits`) and with that of the code released with SiDA-MoE (`logits_released`), which subtracts 1 twice and then
divides each row by its sum.
"""

import argparse
from pathlib import Path

import torch
from reference.hash_function import HashFunction, sparsemax
from safetensors.torch import save_file

D_MODEL, HIDDEN, EXPERTS, BLOCKS = 20, 24, 7, [1, 3, 11]
LENGTHS = [5, 1, 33, 12, 12]


def released_sparsemax(scores: torch.Tensor) -> torch.Tensor:
    """The released code's rows: 1 is subtracted twice, then each row is divided by its sum."""
    weights = sparsemax(scores, subtracted=2)
    return weights / weights.sum(-1, keepdim=True)


def forward(network: HashFunction, rows: torch.Tensor, normalise) -> torch.Tensor:
    """One sequence, step by step: [MoE layer, token, expert]."""
    compressed = torch.relu(network.compression_fc(rows))
    hidden, _ = network.lstm(compressed[None])
    hidden = hidden[0]
    mixed = normalise(hidden @ hidden.T) @ hidden + network.residual_fc(compressed)
    return torch.stack([head(mixed) for head in network.fc.values()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    torch.manual_seed(3)
    network = HashFunction(D_MODEL, EXPERTS, BLOCKS, HIDDEN)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.normal_(std=0.5 if "bias" in name else 1.5 * weight.shape[-1] ** -0.5)
    parts = [torch.randn(length, D_MODEL) for length in LENGTHS]
    # Computed in double, so that the file says what is right and not how PyTorch rounds.
    exact = network.double()
    with torch.no_grad():
        logits = {"logits": torch.cat([forward(exact, part.double(), sparsemax) for part in parts], 1),
                  "logits_released": torch.cat([forward(exact, part.double(), released_sparsemax) for part in parts], 1)}
    offsets = torch.tensor([0, *LENGTHS]).cumsum(0).int()
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: weight.float().contiguous() for name, weight in network.state_dict().items()}, out / "predictor.safetensors")
    save_file({"embeddings": torch.cat(parts), "offsets": offsets, **{n: v.float() for n, v in logits.items()}},
              out / "golden.safetensors")


if __name__ == "__main__":
    main()
