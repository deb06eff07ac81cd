"""Measures the stored files and writes their two cards."""

from dataclasses import dataclass
from pathlib import Path

from .evaluation import HitRates, LayerUse


@dataclass
class Figures:
    """Everything the cards state, each measured with the stored bf16 weights in fp32 arithmetic."""

    experts: int
    blocks: list[int]
    accuracy: float
    accuracy_joined: float
    accuracy_reviews: float
    reviews: int
    accuracy_predicted: float
    use: list[LayerUse]
    predictor: HitRates
    table: HitRates
    reviews_predictor: HitRates
    tokens: int


def bars(f: Figures) -> list[tuple[str, float, float]]:
    """What the reference model promises: (name, measured, least)."""
    return [
        ("dev accuracy", f.accuracy, 0.80),
        ("live experts, least used layer", min(layer.live for layer in f.use) / f.experts, 0.90),
        ("entropy of use, worst layer", min(layer.entropy for layer in f.use), 0.90),
        ("mean gate, worst layer", min(layer.gate for layer in f.use), 0.30),
        ("predictor top-1", f.predictor.mean1, 0.80),
        ("predictor top-3", f.predictor.mean3, 0.96),
        ("predictor top-1 above token table", f.predictor.mean1 - f.table.mean1, 0.20),
    ]


def _table(head: list[str], rows: list[list]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    shown = [[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in cells]
    return "\n".join("| " + " | ".join(row) + " |" for row in shown)


def _usage(f: Figures) -> str:
    rows = [[b, f"{u.live} of {f.experts}", u.entropy, f"{100 * min(u.share):.2f} %", f"{100 * max(u.share):.2f} %",
             u.gate] for b, u in zip(f.blocks, f.use)]
    return _table(["block", "experts with at least 0.2 %", "entropy of use (1 = even)", "least used", "most used",
                   "mean gate"], rows)


def model_card(f: Figures, train, seed: int) -> str:
    return f"""# Reference model: a small Switch classifier with predictable routing

A sentiment classifier for film reviews: a Switch Transformers encoder (6 blocks, the odd ones sparse, {f.experts} experts each,
top-1, d_model 128, d_ff 256, expert capacity 64), the mean of its output over real tokens, and a two-layer head. It exists to
exercise expert offloading: small enough to commit, trained, and with routing that means something.

| file | what |
|---|---|
| `config.json`, `model.safetensors` | the model, bf16, Hugging Face names; transformers' `SwitchTransformersEncoderModel` reads it; the head is `classification_head.{{dense,out_proj}}` |
| `spiece.model` | SentencePiece unigram vocabulary, 6,000 pieces, T5's special ids (pad 0, eos 1, unk 2); it folds case; every input ends with eos |
| `predictor.safetensors`, `predictor.md` | the hash function that predicts the routing from the words, and its card |
| `reviews.tsv` | {f.reviews} sentences written for this project, half positive (label 1), to demonstrate with |

## Accuracy

Measured with the stored weights, transformers' own forward pass, fp32 arithmetic.

| set | sentences | accuracy |
|---|---|---|
| SST-2 dev | 872 | {f.accuracy:.3f} |
| SST-2 dev, ordinary punctuation (`it's fun, mostly.`) | 872 | {f.accuracy_joined:.3f} |
| `reviews.tsv` | {f.reviews} | {f.accuracy_reviews:.3f} |

`reviews.tsv` was written before this model was trained, and no label or sentence was changed in view of a result. Still, many of its sentences come in pairs of like
shape and opposite verdict, in plain words: it is a demonstration, not a benchmark. A pretrained model of any size does far
better on SST-2 than this one, which has seen nothing but SST-2.

## Expert use on SST-2 dev

{f.tokens:,} real tokens. No token was dropped for capacity: no sentence sends more than 64 tokens to one expert.

{_usage(f)}

## Training

SST-2 train (GLUE), all 67,349 phrases, {train.epochs:g} epochs of batches of {train.batch_tokens} tokens, seed {seed}, fp32, AdamW at
{train.learning_rate:g} with warm-up and cosine decay, word dropout {train.word_dropout:g}, embeddings started at a standard deviation of
{train.embedding_std:g}. Half of the sentences, drawn at random, have their punctuation joined as people type it. The last weights are
kept; none are chosen on dev, though dev figures guided the choice of the settings above. Threads and library versions change
rounding, so a new run gives like figures, not the same bytes.

### How the routing was trained

This matters more here than the task. Trained plainly, such a model has gates of 0.05 to 0.1 that nobody can predict: a hash function
reached 0.35 top-1, a table by token 0.31. So the routers are pulled towards a target, by a cross entropy of weight {train.pull:g}
next to the usual balance loss of weight {train.balance:g}. Both count real tokens only, and no dropped words.

The target is a fixed *context hash*: a word's code is the embedding that it started with, a position is the sum of the codes so far,
fading by {train.memory:g} a word, and each expert of a layer is a random direction; a softmax of the scores over {train.temperature:g} is the
target, after one potential an expert has been moved every batch towards equal load. What the routers learn of it goes through
the encoder's attention and is bent by the task, so the result is learned routing near a simple rule, not the rule.

What did not work: a small hash function trained beside the model, with routers and hash function pulled towards each other. A
gentle pull works, but only slowly (in one earlier experiment at weights of 0.4 to 1.5 and ratios to the balance loss of about 2 to
3: hash 0.81 top-1, token table 0.48). Above a ratio of about 5 a quarter of the experts die and routing becomes a table by
token. With this code a ratio of 2.7 left 9 to 10 of 32 experts; with balanced targets and a ratio of 10 the token table alone had
0.97 top-1, and 26 experts were left. Both sides agree on the simplest thing they can, and a fixed target leaves them no choice.

So the predictability of this model is made, not found: hit rates here say that a library's prediction path works, and nothing
about how well routing of models in the wild can be predicted.

## Licence and data

The text of SST-2 (Socher et al., 2013; research use) is not included, and no file here holds its sentences,
but the vocabulary's pieces and the weights were derived from it. `reviews.tsv` is original and under the licence of the project.

Made by `tools/train_reference.py`.
"""


def predictor_card(f: Figures, distil, seed: int) -> str:
    rows = [[b, *cells] for b, *cells in zip(f.blocks, f.predictor.top1, f.predictor.top3, f.table.top1, f.table.top3)]
    rows.append(["mean", f.predictor.mean1, f.predictor.mean3, f.table.mean1, f.table.mean3])
    return f"""# Hash function of the reference model

Predicts, from the word embeddings alone, the expert that each token takes in each MoE layer, before the model runs. The
architecture is the one of SiDA-MoE (arXiv 2310.18859): a linear layer to 128 with ReLU; a two-layer unidirectional LSTM of width 128;
self-attention `sparsemax(h h^T) h`, unscaled, over real tokens, with exact sparsemax; a linear residual of the compressed input;
one linear head a layer. `predictor.safetensors` is bf16; `fc.N` is the head of encoder block N. Its input is `shared.weight` of
`model.safetensors`, which stays as it is.

## Hit rates

SST-2 dev, {f.tokens:,} real tokens (padding is neither predicted nor counted), stored bf16 weights of both models. A hit: the
router's expert is the first guess (top-1), or one of the first three. The token table is the floor: per token id the experts it
took most on SST-2 train.

{_table(["block", "top-1", "top-3", "table top-1", "table top-3"], rows)}

On `reviews.tsv`, sentences of another hand: top-1 {f.reviews_predictor.mean1:.3f}, top-3 {f.reviews_predictor.mean3:.3f} (mean over layers).
When the first guess and its softmax weight replace the routers, accuracy on SST-2 dev is {f.accuracy_predicted:.3f}, against
{f.accuracy:.3f} with the routers.

## Training

Distilled from the router logits of the stored model, {distil.epochs} epochs from scratch, seed {seed}, AdamW at {distil.learning_rate:g} with cosine
decay; last weights kept. The text is made anew each epoch from SST-2 train: one to three of its phrases in a row, {100 * distil.swapped:.0f} % of the
words swapped for others, all labelled by the model. The train split is mostly short phrases and dev whole sentences: trained on the
plain phrases (8 epochs), top-1 on dev stayed at 0.768 (top-3 0.966). The loss is `lambda * CE + TKD` over the
teacher's first {distil.top} experts, with lambda {distil.cross_entropy:g} instead of the paper's 0.005: TKD is a mean over {distil.top} entries and so of the order of
0.01, and the cross entropy is what the hit rate follows. The model was trained so that this works, see `README.md`.
"""
