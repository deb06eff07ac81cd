"""Distils the routing of the stored model into the hash function."""

import itertools
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from .data import EOS, Sentences, batches
from .evaluation import predict, route
from .hash_function import HashFunction, save_hash_function
from .model import Classifier, sparse_blocks


@dataclass
class DistilOptions:
    """`cross_entropy` is the paper's lambda and `top` its T; the paper uses 0.005 and 30."""

    epochs: int = 14
    cross_entropy: float = 1.0
    top: int = 30
    swapped: float = 0.12
    learning_rate: float = 3e-3
    batch_tokens: int = 2048
    seed: int = 1


def spliced(sentences: Sentences, swapped: float, draw: random.Random) -> Sentences:
    """New text for the teacher to label: one to three training phrases in a row, some words swapped for others.

    The train split is mostly short phrases and the dev split whole sentences; and since the teacher labels any text, the
    student need not learn from the same word pairs again and again.
    """
    words = [token for ids in sentences.ids for token in ids if token != EOS]
    order = iter(draw.sample(range(len(sentences)), len(sentences)))
    rows = []
    for first in order:
        parts = [first, *itertools.islice(order, draw.randrange(3))]
        row = [token for i in parts for token in sentences.ids[i][:-1]]
        rows.append([draw.choice(words) if draw.random() < swapped else token for token in row] + [EOS])
    return Sentences(rows, [0] * len(rows))


def truncated_loss(student: torch.Tensor, teacher: torch.Tensor, top: int) -> torch.Tensor:
    """Mean distance of two softmaxes that are both restricted to the teacher's `top` experts."""
    best = teacher.topk(min(top, teacher.shape[-1]), dim=-1)
    return (student.gather(-1, best.indices).softmax(-1) - best.values.softmax(-1)).abs().mean()


def distil(model: Classifier, train_set: Sentences, dev_set: Sentences, options: DistilOptions, out: Path) -> None:
    """Trains the hash function from scratch on frozen word embeddings, and stores its last weights in bf16."""
    torch.manual_seed(options.seed)
    draw = random.Random(options.seed)
    config = model.config
    predictor = HashFunction(config.d_model, config.num_experts, sparse_blocks(config))
    optimizer = torch.optim.AdamW(predictor.parameters(), lr=options.learning_rate, weight_decay=0.01, fused=True)
    dev_teacher = route(model, dev_set)
    started = time.time()
    for epoch in range(options.epochs):
        text = spliced(train_set, options.swapped, draw)
        teacher = route(model, text)
        predictor.train()
        steps = list(batches(text, options.batch_tokens, draw))
        sums = torch.zeros(2)
        for step, batch in enumerate(steps):
            done = epoch + step / len(steps)
            scale = min(1.0, 4 * done + 0.01) * 0.5 * (1 + math.cos(math.pi * done / options.epochs))
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * scale
            with torch.no_grad():
                embeddings, target = model.switch.shared(batch.ids), teacher.of(batch)
            student = predictor(embeddings, batch.mask)[:, batch.mask]
            entropy = F.cross_entropy(student.flatten(0, 1), target.argmax(-1).flatten())
            distance = truncated_loss(student, target, options.top)
            loss = options.cross_entropy * entropy + distance
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(predictor.parameters(), 1.0)
            optimizer.step()
            sums += torch.stack([entropy.detach(), distance.detach()])
        rates = predict(predictor.eval(), model, dev_set, dev_teacher)
        entropy, distance = (sums / len(steps)).tolist()
        print(f"epoch {epoch + 1}/{options.epochs}  {time.time() - started:.0f} s  cross entropy {entropy:.3f}  "
              f"distance {distance:.4f}  dev top-1 {rates.mean1:.3f}  top-3 {rates.mean3:.3f}", flush=True)
        save_hash_function(predictor, out)
