"""The hash function of SiDA-MoE (arXiv 2310.18859): word embeddings in, the routing of every MoE layer out."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn


def sparsemax(scores: torch.Tensor, subtracted: int = 1) -> torch.Tensor:
    """Projects each row onto the probability simplex (Martins and Astudillo, 2016), exactly; with 1 subtracted."""
    ordered = scores.sort(-1, descending=True).values
    cumulated = ordered.cumsum(-1)
    rank = torch.arange(1, scores.shape[-1] + 1, dtype=scores.dtype)
    support = (1 + rank * ordered > cumulated).sum(-1, keepdim=True)
    threshold = (cumulated.gather(-1, support - 1) - subtracted) / support
    return (scores - threshold).clamp(min=0)


class HashFunction(nn.Module):
    """Compression, two-layer LSTM, sparsemax self-attention with a linear residual, one head an MoE layer."""

    def __init__(self, d_model: int, experts: int, blocks: list[int], hidden: int = 128):
        super().__init__()
        self.compression_fc = nn.Linear(d_model, hidden)
        self.lstm = nn.LSTM(hidden, hidden, num_layers=2, batch_first=True)
        self.residual_fc = nn.Linear(hidden, hidden)
        self.fc = nn.ModuleDict({str(b): nn.Linear(hidden, experts) for b in blocks})

    def forward(self, embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Returns logits `[MoE layer, batch, token, expert]`; no token attends to padding."""
        compressed = torch.relu(self.compression_fc(embeddings))
        hidden, _ = self.lstm(compressed)
        scores = (hidden @ hidden.transpose(1, 2)).masked_fill(~mask[:, None, :], -1e9)
        mixed = sparsemax(scores) @ hidden + self.residual_fc(compressed)
        return torch.stack([head(mixed) for head in self.fc.values()])


def save_hash_function(predictor: HashFunction, path: Path) -> None:
    tensors = {name: value.to(torch.bfloat16).contiguous() for name, value in sorted(predictor.state_dict().items())}
    save_file(tensors, path, metadata={"format": "pt"})


def load_hash_function(path: Path) -> HashFunction:
    tensors = {name: value.float() for name, value in load_file(path).items()}
    blocks = sorted(int(name.split(".")[1]) for name in tensors if name.startswith("fc.") and name.endswith("weight"))
    hidden, d_model = tensors["compression_fc.weight"].shape
    predictor = HashFunction(d_model, len(tensors[f"fc.{blocks[0]}.bias"]), blocks, hidden)
    predictor.load_state_dict(tensors)
    return predictor.eval()
