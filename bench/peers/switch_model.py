"""A Switch encoder with a classification head, from the folder that sida reads, as transformers runs it."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn
from transformers import SwitchTransformersConfig, SwitchTransformersEncoderModel
from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersSparseMLP

HEAD = "classification_head."
PREFIX = "switch_transformers."
OTHER_PARTS = ("decoder.", "lm_head.")  # of a whole model, which the encoder doesn't use


def route(router: nn.Module, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """transformers 5.24's rule: [batch, tokens, d] -> kept [tokens, experts] as one-hot rows, gates [tokens, 1].

    A token beyond its expert's capacity, counted along its own sequence, has a row of zeros.
    """
    dtype = hidden.dtype
    router.classifier = router.classifier.to(torch.float32)
    probabilities = router.classifier(hidden.float()).softmax(-1, dtype=torch.float32).to(dtype)
    gates, chosen = probabilities.max(-1, keepdim=True)
    mask = nn.functional.one_hot(probabilities.argmax(-1), router.num_experts)
    kept = mask * (mask.cumsum(-2) <= router.expert_capacity)
    return kept.view(-1, router.num_experts), gates.view(-1, 1)


class RoutedMlp(nn.Module):
    """A sparse FFN whose experts are called by `experts(hidden, kept, gates)`, each argument one row a token."""

    def __init__(self, router: nn.Module, experts: nn.Module):
        super().__init__()
        self.router, self.experts = router, experts

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        kept, gates = route(self.router, hidden)
        return self.experts(hidden.reshape(-1, hidden.shape[-1]), kept, gates).view(hidden.shape)


class InstalledExperts(nn.Module):
    """The experts' loop of the transformers that is installed, behind a router that keeps to the capacity."""

    def __init__(self, experts: nn.Module):
        super().__init__()
        self.experts = experts

    def forward(self, hidden: torch.Tensor, kept: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        return self.experts(hidden, kept.unsqueeze(1), gates)


def capacity_is_applied() -> bool:
    """Whether the installed model counts an expert's tokens along each sequence. Some 5.x releases never drop any."""
    config = SwitchTransformersConfig(d_model=4, d_ff=4, num_experts=2, expert_capacity=1)
    mlp = SwitchTransformersSparseMLP(config).eval()
    with torch.no_grad():
        for parameter in mlp.parameters():
            parameter.fill_(1.0)
        mlp.router.classifier.weight[1] = 0.0
        result = mlp(torch.ones(2, 3, 4))
    result = result[0] if isinstance(result, tuple) else result
    dropped = result.abs().sum(-1) == 0
    return dropped.tolist() == [[False, True, True]] * 2


@dataclass
class ExpertStack:
    """All experts of one layer as two tensors; a module's parameters are views of them."""

    wi: torch.Tensor  # [experts, d_ff, d_model]
    wo: torch.Tensor  # [experts, d_model, d_ff]

    @property
    def bytes(self) -> int:
        return self.wi.nbytes + self.wo.nbytes

    def fill(self, experts: nn.Module) -> None:
        names = [f"expert_{e}.{kind}.weight" for e in range(len(self.wi)) for kind in ("wi", "wo")]
        values = [stack[e] for e in range(len(self.wi)) for stack in (self.wi, self.wo)]
        experts.load_state_dict(dict(zip(names, values, strict=True)), strict=True, assign=True)


class ClassificationHead(nn.Module):
    def __init__(self, config: SwitchTransformersConfig):
        super().__init__()
        self.dense = nn.Linear(config.d_model, config.d_model)
        self.out_proj = nn.Linear(config.d_model, config.num_labels)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Takes the mean over real tokens only: padding must not change a prediction."""
        real = mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * real).sum(1) / real.sum(1)
        return self.out_proj(torch.tanh(self.dense(mean)))


class Tensors:
    """The checkpoint's tensors by the encoder's own names, read through a mapping when they are asked for."""

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype):
        self.device, self.dtype = device, dtype
        index = folder / "model.safetensors.index.json"
        single = folder / "model.safetensors"
        shards = [single] if single.exists() else \
            sorted({folder / name for name in json.loads(index.read_text())["weight_map"].values()})
        self.files = {}
        for shard in shards:
            file = safe_open(shard, framework="pt")
            for stored in file.keys():
                name = stored.removeprefix(PREFIX)
                if not name.startswith(OTHER_PARTS):
                    self.files[name] = (file, stored)
        if "shared.weight" not in self.files and "encoder.embed_tokens.weight" in self.files:
            self.files["shared.weight"] = self.files["encoder.embed_tokens.weight"]
        self.files.pop("encoder.embed_tokens.weight", None)

    def take(self, name: str) -> torch.Tensor:
        """Each tensor once; what is never taken is an error."""
        if name not in self.files:
            sys.exit(f"hf_switch: the checkpoint has no tensor '{name}'")
        file, stored = self.files.pop(name)
        return file.get_tensor(stored)

    def load(self, name: str) -> torch.Tensor:
        # A copy: pages of the mapping would be read from disk again where memory is short.
        return self.take(name).to(device=self.device, dtype=self.dtype, copy=True)

    def stack(self, stem: str, config: SwitchTransformersConfig, device: torch.device) -> ExpertStack:
        shape = (config.num_experts, config.d_ff, config.d_model)
        stack = ExpertStack(torch.empty(shape, dtype=self.dtype, device=device),
                            torch.empty((shape[0], shape[2], shape[1]), dtype=self.dtype, device=device))
        for e in range(config.num_experts):
            for kind in ("wi", "wo"):
                target, value = getattr(stack, kind)[e], self.take(f"{stem}.expert_{e}.{kind}.weight")
                if value.shape != target.shape:
                    sys.exit(f"hf_switch: '{stem}.expert_{e}.{kind}.weight' is {list(value.shape)}, "
                             f"but the config implies {list(target.shape)}")
                target.copy_(value)
        return stack

    def forget(self, stem: str) -> None:
        """Leaves tensors to somebody else."""
        self.files = {name: value for name, value in self.files.items() if not name.startswith(stem + ".")}


class Classifier(nn.Module):
    """Encoder and head. `mlps[i]`, the i-th sparse FFN, is what an arm replaces."""

    def __init__(self, config: SwitchTransformersConfig):
        super().__init__()
        self.config = config
        self.switch = SwitchTransformersEncoderModel(config)
        self.classification_head = ClassificationHead(config)

    @property
    def sparse_layers(self) -> list[nn.Module]:
        return [block.layer[-1] for block in self.switch.encoder.block if block.is_sparse]

    def use(self, mlps: list[nn.Module]) -> None:
        for layer, mlp in zip(self.sparse_layers, mlps, strict=True):
            layer.mlp = mlp

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self.switch(input_ids=ids, attention_mask=mask).last_hidden_state
        return self.classification_head(hidden, mask)


def read_config(folder: Path) -> SwitchTransformersConfig:
    values = json.loads((folder / "config.json").read_text())
    config = SwitchTransformersConfig(**values)
    if config.router_bias:
        sys.exit("hf_switch: routers with a bias aren't supported")
    return config


def load_dense(folder: Path, device: torch.device, dtype: torch.dtype) -> tuple[Classifier, Tensors]:
    """Instantiates the model without memory and gives it all tensors but the experts', which are left to be taken."""
    config = read_config(folder)
    tensors = Tensors(folder, device, dtype)
    with torch.device("meta"):
        model = Classifier(config)
    state = {}
    for name in model.state_dict():
        plain = name.removeprefix("switch.")
        if ".experts." not in plain and plain != "encoder.embed_tokens.weight":
            state[name] = tensors.load(plain)
    state["switch.encoder.embed_tokens.weight"] = state["switch.shared.weight"]
    result = model.load_state_dict(state, strict=False, assign=True)
    missing = [name for name in result.missing_keys if ".experts." not in name]
    unset = [name for name, value in [*model.named_parameters(), *model.named_buffers()]
             if value.is_meta and ".experts." not in name]
    for problem, names in (("has no value for", missing + unset), ("has no place for", result.unexpected_keys)):
        if names:
            sys.exit(f"hf_switch: the installed model {problem} '{names[0]}'")
    return model.eval(), tensors


def expert_layers(model: Classifier) -> list[tuple[str, nn.Module]]:
    """Stem of the experts' names in the checkpoint, and their module, of each sparse layer."""
    blocks = enumerate(model.switch.encoder.block)
    return [(f"encoder.block.{b}.layer.1.mlp.experts", block.layer[-1].mlp.experts) for b, block in blocks
            if block.is_sparse]


def refuse_rest(names: list[str]) -> None:
    if names:
        sys.exit(f"hf_switch: {len(names)} tensors belong to no part of the model, among them '{min(names)}'")


def load(folder: Path, device: torch.device, expert_device: torch.device,
         dtype: torch.dtype) -> tuple[Classifier, list[ExpertStack]]:
    """The model with the checkpoint's tensors, experts layer by layer."""
    model, tensors = load_dense(folder, device, dtype)
    stacks = []
    for stem, experts in expert_layers(model):
        stacks.append(tensors.stack(stem, model.config, expert_device))
        stacks[-1].fill(experts)
    refuse_rest([*tensors.files])
    return model.eval(), stacks
