"""Trains the reference model so that its routing can be predicted from the words."""

import itertools
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from .data import EOS, UNK, Batch, Sentences, batches
from .model import Classifier, make_config, new_classifier, save_classifier, sparse_blocks


@dataclass
class TrainOptions:
    """`pull` weighs the routers' loss towards the context hash, `balance` the loss against uneven use."""

    epochs: float = 3
    pull: float = 2.5
    balance: float = 0.15
    memory: float = 0.5
    temperature: float = 0.3
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.02
    batch_tokens: int = 1024
    word_dropout: float = 0.2
    embedding_std: float = 0.3
    seed: int = 1


def drop_words(ids: torch.Tensor, rate: float) -> torch.Tensor:
    """Replaces words by `<unk>` at random, never the end of the sentence; padding stays hidden by the mask."""
    hit = (torch.rand(ids.shape) < rate) & (ids > EOS)
    return ids.masked_fill(hit, UNK)


def balance_loss(probabilities: torch.Tensor) -> torch.Tensor:
    """Switch Transformers' auxiliary loss over the tokens given (1 when use is even), mean over layers."""
    experts = probabilities.shape[-1]
    share = F.one_hot(probabilities.argmax(-1), experts).float().mean(1)
    return experts * (share * probabilities.mean(1)).sum(-1).mean()


class ContextHash:
    """A fixed hash of each word and those before it: where the routers are pulled to, one target an MoE layer.

    A word's code is the embedding it started with; a position is the sum of the codes so far, fading by `memory` a word, and a layer's
    experts are random directions. A target thus depends on the word (more than half) and on what precedes it, two like
    passages have like targets, and the same information is within reach of the encoder's attention and of an LSTM.
    Potentials moved towards equal load each batch (stochastic Sinkhorn steps) let every expert have its share.
    """

    def __init__(self, embeddings: torch.Tensor, layers: int, experts: int, options: TrainOptions):
        draw = torch.Generator().manual_seed(options.seed)
        width = embeddings.shape[-1]
        self.codes = embeddings.detach().clone() / options.embedding_std
        self.experts = torch.randn(layers, 1, width, experts, generator=draw) * width**-0.5
        self.potential = torch.zeros(layers, 1, experts)
        self.memory, self.temperature = options.memory, options.temperature

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Returns target probabilities `[MoE layer, token, expert]` of the tokens in `mask`."""
        position = torch.arange(ids.shape[1])
        fading = (self.memory ** (position[:, None] - position).float()).tril()
        passage = (fading / fading.square().sum(-1, keepdim=True).sqrt()) @ self.codes[ids]
        scores = (passage @ self.experts)[:, mask] / self.temperature
        load = (scores + self.potential).softmax(-1).mean(1, keepdim=True)
        self.potential -= 0.1 * (load * load.shape[-1]).log()
        return (scores + self.potential).softmax(-1)


def spread(chosen: torch.Tensor, experts: int) -> torch.Tensor:
    """Entropy of use over that of even use, mean over layers."""
    share = F.one_hot(chosen, experts).float().mean(1)
    return torch.special.entr(share).sum(-1).mean() / math.log(experts)


def step_loss(model: Classifier, target_of: ContextHash, batch: Batch,
              options: TrainOptions) -> tuple[torch.Tensor, dict[str, float]]:
    """Three terms: the task, routers that follow the hash, and even use of the experts."""
    ids = drop_words(batch.ids, options.word_dropout)
    task = F.cross_entropy(model(ids, batch.mask), batch.labels)
    counted = batch.mask & (ids != UNK)  # else experts that suit <unk> get their share here and stand idle later
    routers = torch.stack([logits[counted] for logits in model.router_logits])
    target = target_of(ids, counted)
    chosen, probabilities = routers.argmax(-1), routers.softmax(-1)
    pull = F.cross_entropy(routers.flatten(0, 1), target.flatten(0, 1))
    balance = balance_loss(probabilities)
    shown = {"task": task, "balance": balance, "spread": spread(chosen, routers.shape[-1]),
             "gate": probabilities.max(-1).values.mean(), "agree": (target.argmax(-1) == chosen).float().mean()}
    loss = task + options.pull * pull + options.balance * balance
    return loss, {name: value.item() for name, value in shown.items()}


def accuracy(model: Classifier, sentences: Sentences) -> float:
    model.eval()
    with torch.no_grad():
        right = sum(int((model(b.ids, b.mask).argmax(-1) == b.labels).sum()) for b in batches(sentences, 4096))
    return right / len(sentences)


def learning_rate_scale(step: int, total: int) -> float:
    """Short warm-up, then a cosine down to a fiftieth."""
    return min(1.0, (step + 1) / min(100, total)) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / total)))


def train(train_set: Sentences, dev_set: Sentences, vocab_size: int, options: TrainOptions, out: Path) -> None:
    """Trains and saves after every epoch; the last weights are the result (none are picked on dev)."""
    torch.manual_seed(options.seed)
    draw = random.Random(options.seed)
    config = make_config(vocab_size)
    model = new_classifier(config, options.embedding_std)
    target_of = ContextHash(model.switch.shared.weight, len(sparse_blocks(config)), config.num_experts, options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, betas=(0.9, 0.98),
                                  weight_decay=options.weight_decay, fused=True)
    total = round(options.epochs * sum(1 for _ in batches(train_set, options.batch_tokens, random.Random(0))))
    step, started, mean = 0, time.time(), {}
    while step < total:
        for batch in itertools.islice(batches(train_set, options.batch_tokens, draw), total - step):
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * learning_rate_scale(step, total)
            model.train()
            loss, shown = step_loss(model, target_of, batch, options)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            mean = {name: 0.98 * mean.get(name, value) + 0.02 * value for name, value in shown.items()}
            step += 1
            if step % 100 == 0:
                values = "  ".join(f"{name} {value:.3f}" for name, value in mean.items())
                print(f"step {step}/{total}  {time.time() - started:.0f} s  {values}", flush=True)
        print(f"dev accuracy {accuracy(model, dev_set):.4f}", flush=True)
        save_classifier(model, out)
