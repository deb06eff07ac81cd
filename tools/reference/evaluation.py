"""Measures routing and its prediction, on real tokens only: padding is routed too, and would flatter every figure."""

from dataclasses import dataclass

import torch

from .data import Batch, Sentences, batches
from .hash_function import HashFunction
from .model import Classifier, sparse_blocks

LIVE_SHARE = 0.002


@dataclass
class Routing:
    """What the routers say of each real token: sentences one after the other, `offset[i]` is where sentence i begins."""

    ids: torch.Tensor
    logits: torch.Tensor  # [MoE layer, token, expert]
    offset: list[int]
    accuracy: float

    @property
    def chosen(self) -> torch.Tensor:
        return self.logits.argmax(-1)

    def of(self, batch: Batch) -> torch.Tensor:
        """Logits of the real tokens of a batch, in the order in which its mask selects them."""
        spans = [self.logits[:, self.offset[i]:self.offset[i + 1]] for i in batch.index]
        return torch.cat(spans, dim=1)


@dataclass
class LayerUse:
    """How one MoE layer spreads tokens over its experts."""

    share: list[float]
    gate: float

    @property
    def live(self) -> int:
        return sum(share >= LIVE_SHARE for share in self.share)

    @property
    def entropy(self) -> float:
        """Entropy of use over that of even use."""
        share = torch.tensor(self.share)
        return float(torch.special.entr(share).sum() / torch.log(torch.tensor(float(len(share)))))


@dataclass
class HitRates:
    """Share of real tokens whose expert is the first guess, or among the first three; one value an MoE layer."""

    top1: list[float]
    top3: list[float]

    @property
    def mean1(self) -> float:
        return sum(self.top1) / len(self.top1)

    @property
    def mean3(self) -> float:
        return sum(self.top3) / len(self.top3)


@torch.no_grad()
def route(model: Classifier, sentences: Sentences, tokens: int = 32768) -> Routing:
    """Runs the model over a split and keeps the router logits of each real token."""
    model.eval()
    offset = [0]
    for ids in sentences.ids:
        offset.append(offset[-1] + len(ids))
    logits = torch.empty(len(sparse_blocks(model.config)), offset[-1], model.config.num_experts)
    right = 0
    for batch in batches(sentences, tokens):
        right += int((model(batch.ids, batch.mask).argmax(-1) == batch.labels).sum())
        seen = torch.stack(model.router_logits)
        for row, i in enumerate(batch.index):
            logits[:, offset[i]:offset[i + 1]] = seen[:, row, :len(sentences.ids[i])]
    ids = torch.tensor([token for row in sentences.ids for token in row])
    return Routing(ids, logits, offset, right / len(sentences))


def layer_use(routing: Routing) -> list[LayerUse]:
    gates = routing.logits.softmax(-1).max(-1).values.mean(1)
    experts = routing.logits.shape[-1]
    return [LayerUse((torch.bincount(chosen, minlength=experts) / len(chosen)).tolist(), float(gate))
            for chosen, gate in zip(routing.chosen, gates)]


def hit_rates(scores: torch.Tensor, chosen: torch.Tensor) -> HitRates:
    guesses = scores.topk(3, dim=-1).indices == chosen.unsqueeze(-1)
    return HitRates(guesses[..., 0].float().mean(1).tolist(), guesses.any(-1).float().mean(1).tolist())


def table_hit_rates(fit: Routing, test: Routing, vocab_size: int) -> HitRates:
    """The floor for any predictor: each word's most used experts in `fit`, the layer's most used for unseen words."""
    layers, _, experts = fit.logits.shape
    scores = []
    for chosen in fit.chosen:
        counts = torch.bincount(fit.ids * experts + chosen, minlength=vocab_size * experts).view(vocab_size, experts)
        common = counts.sum(0) / counts.sum()
        scores.append((counts + 0.5 * common)[test.ids])
    return hit_rates(torch.stack(scores), test.chosen)


@torch.no_grad()
def predict(predictor: HashFunction, model: Classifier, sentences: Sentences, routing: Routing) -> HitRates:
    """Hit rates of the hash function against `routing` of the same sentences."""
    guess, chosen = [], []
    for batch in batches(sentences, 8192):
        guess.append(predictor(model.switch.shared(batch.ids), batch.mask)[:, batch.mask])
        chosen.append(routing.of(batch).argmax(-1))
    return hit_rates(torch.cat(guess, dim=1), torch.cat(chosen, dim=1))


@torch.no_grad()
def predicted_mode_accuracy(predictor: HashFunction, model: Classifier, sentences: Sentences) -> float:
    """Accuracy when the first guess and its softmax weight replace the router, which is how SiDA-MoE serves."""
    guess: list[torch.Tensor] = []

    def replace(layer: int):
        def hook(module, args, result):
            weight, expert = guess[0][layer].softmax(-1).max(-1, keepdim=True)
            selected = torch.zeros_like(result[0]).scatter(-1, expert, 1)
            return selected, weight, result[2]
        return hook

    routers = [model.switch.encoder.block[b].layer[-1].mlp.router for b in sparse_blocks(model.config)]
    hooks = [router.register_forward_hook(replace(layer)) for layer, router in enumerate(routers)]
    right = 0
    for batch in batches(sentences, 8192):
        guess[:] = [predictor(model.switch.shared(batch.ids), batch.mask)]
        right += int((model(batch.ids, batch.mask).argmax(-1) == batch.labels).sum())
    for hook in hooks:
        hook.remove()
    return right / len(sentences)
