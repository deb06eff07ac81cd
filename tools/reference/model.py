"""The reference model: a Switch encoder with a classification head, as transformers runs it and as it is stored."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import SwitchTransformersConfig, SwitchTransformersEncoderModel
from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersAttention

from .data import EOS, PAD

HEAD = "classification_head."


def make_config(vocab_size: int) -> SwitchTransformersConfig:
    """Small enough to commit (14 MiB in bf16), yet with 96 experts in 3 layers: something to offload."""
    return SwitchTransformersConfig(
        vocab_size=vocab_size, d_model=128, d_kv=32, num_heads=4, d_ff=256, num_layers=6, num_sparse_encoder_layers=3,
        num_experts=32, expert_capacity=64, dropout_rate=0.1, dense_act_fn="relu", is_encoder_decoder=False,
        pad_token_id=PAD, eos_token_id=EOS, num_labels=2, id2label={0: "negative", 1: "positive"},
        label2id={"negative": 0, "positive": 1})


def sparse_blocks(config: SwitchTransformersConfig) -> list[int]:
    return [b for b in range(config.num_layers) if b % config.encoder_sparse_step == 1]


class ClassificationHead(nn.Module):
    def __init__(self, config: SwitchTransformersConfig):
        super().__init__()
        self.dense = nn.Linear(config.d_model, config.d_model)
        self.dropout = nn.Dropout(config.dropout_rate)
        self.out_proj = nn.Linear(config.d_model, config.num_labels)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Takes the mean over real tokens only: padding must not change a prediction."""
        real = mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * real).sum(1) / real.sum(1)
        return self.out_proj(self.dropout(torch.tanh(self.dense(self.dropout(mean)))))


class Classifier(nn.Module):
    """Encoder and head; after each forward pass `router_logits` holds one `[batch, token, expert]` tensor an MoE layer."""

    def __init__(self, encoder: SwitchTransformersEncoderModel):
        super().__init__()
        self.config = encoder.config
        self.switch = encoder
        self.classification_head = ClassificationHead(encoder.config)
        self.router_logits: list[torch.Tensor] = []
        for b in sparse_blocks(self.config):
            router = encoder.encoder.block[b].layer[-1].mlp.router
            router.register_forward_hook(lambda module, args, result: self.router_logits.append(result[2]))

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        self.router_logits.clear()
        hidden = self.switch(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return self.classification_head(hidden, mask)


class StackedExperts(nn.Module):
    """All experts of a layer as two tensors and two batched products: the same values as transformers' loop, sooner."""

    def __init__(self, config: SwitchTransformersConfig):
        super().__init__()
        self.wi = nn.Parameter(torch.randn(config.num_experts, config.d_ff, config.d_model) * config.d_model**-0.5)
        self.wo = nn.Parameter(torch.randn(config.num_experts, config.d_model, config.d_ff) * config.d_ff**-0.5)

    def forward(self, hidden: torch.Tensor, selected: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        experts, width = self.wi.shape[0], hidden.shape[-1]
        chosen = selected.squeeze(1).argmax(-1)
        kept = selected.sum((1, 2)).unsqueeze(-1)
        order = chosen.argsort(stable=True)
        counts = torch.bincount(chosen, minlength=experts)
        room = int(counts.max())
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order)) - (counts.cumsum(0) - counts)[chosen[order]]
        place += chosen * room
        grouped = hidden.new_zeros(experts * room, width).index_copy(0, place, hidden).view(experts, room, width)
        inner = torch.relu(torch.bmm(grouped, self.wi.transpose(1, 2)))
        return torch.bmm(inner, self.wo.transpose(1, 2)).view(-1, width)[place] * gate * kept


def new_classifier(config: SwitchTransformersConfig, embedding_std: float) -> Classifier:
    """A fresh model for training: stacked experts, and routers that start undecided instead of saturated.

    Dropout is off inside the encoder: dropped words regularise enough, and its masks cost a tenth of the time.
    """
    encoder = SwitchTransformersEncoderModel(config)
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, SwitchTransformersAttention):
            module.dropout = 0.0
    nn.init.normal_(encoder.shared.weight, std=embedding_std)
    for b in sparse_blocks(config):
        mlp = encoder.encoder.block[b].layer[-1].mlp
        nn.init.normal_(mlp.router.classifier.weight, std=config.d_model**-0.5)
        mlp.experts = StackedExperts(config)
    return Classifier(encoder)


def save_classifier(model: Classifier, out: Path) -> None:
    """Writes bf16 weights under Hugging Face names, each tensor once."""
    tensors = {}
    for name, value in model.switch.state_dict().items():
        if name.endswith((".experts.wi", ".experts.wo")):
            stem, kind = name.rsplit(".", 1)
            tensors |= {f"{stem}.expert_{e}.{kind}.weight": expert for e, expert in enumerate(value)}
        elif name != "encoder.embed_tokens.weight":
            tensors[name] = value
    tensors |= {HEAD + name: value for name, value in model.classification_head.state_dict().items()}
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: value.to(torch.bfloat16).contiguous().clone() for name, value in sorted(tensors.items())},
              out / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_diff_dict() | {"architectures": [type(model.switch).__name__], "dtype": "bfloat16",
                                            "num_labels": model.config.num_labels}
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def load_classifier(path: Path) -> Classifier:
    """Reads the stored weights the way a user would: transformers' own encoder and forward pass, fp32 arithmetic."""
    model = Classifier(SwitchTransformersEncoderModel.from_pretrained(path, dtype=torch.float32))
    tensors = load_file(path / "model.safetensors")
    head = {name.removeprefix(HEAD): value.float() for name, value in tensors.items() if name.startswith(HEAD)}
    model.classification_head.load_state_dict(head)
    return model.eval()
