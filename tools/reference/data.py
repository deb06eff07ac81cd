"""SST-2 sentences, their tokenizer, and batches of them."""

import csv
import io
import random
import re
from dataclasses import dataclass
from pathlib import Path

import sentencepiece as spm
import torch

PAD, EOS, UNK = 0, 1, 2
_OPENING = re.compile(r"([(\[]|``) ")
_CLOSING = re.compile(r" ([.,!?;:%)\]]|''|n't\b|'(?:s|re|ve|ll|d|m)\b)")


@dataclass
class Sentences:
    """Token ids (each list ends with `</s>`) and labels of one split."""

    ids: list[list[int]]
    labels: list[int]

    def __len__(self):
        return len(self.ids)


@dataclass
class Batch:
    """Right-padded sentences; `index` says which ones of the split they are."""

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    index: list[int]


def read_tsv(path: Path) -> tuple[list[str], list[int]]:
    """Reads `sentence TAB label` lines under a header; quotes are ordinary characters."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    return [text.strip() for text, _ in rows], [int(label) for _, label in rows]


def join_punctuation(text: str) -> str:
    """Undoes the spacing of SST-2 (`it 's fun , mostly .`), so that the model also reads text as people type it."""
    return _OPENING.sub(r"\1", _CLOSING.sub(r"\1", text))


def both_spellings(texts: list[str], seed: int) -> list[str]:
    """Gives half of the sentences, drawn with `seed`, ordinary punctuation."""
    draw = random.Random(seed)
    return [join_punctuation(text) if draw.random() < 0.5 else text for text in texts]


def train_tokenizer(texts: list[str], out: Path, pieces: int) -> None:
    """Trains a SentencePiece unigram model with T5's special ids; it folds case, since SST-2 is lower case throughout."""
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, vocab_size=pieces, model_type="unigram",
        normalization_rule_name="nmt_nfkc_cf", character_coverage=1.0, num_threads=1, minloglevel=1,
        pad_id=PAD, eos_id=EOS, unk_id=UNK, bos_id=-1, pad_piece="<pad>", eos_piece="</s>", unk_piece="<unk>")
    out.write_bytes(model.getvalue())


def load_tokenizer(path: Path) -> spm.SentencePieceProcessor:
    return spm.SentencePieceProcessor(model_file=str(path))


def encode(tokenizer: spm.SentencePieceProcessor, texts: list[str], labels: list[int]) -> Sentences:
    return Sentences([ids + [EOS] for ids in tokenizer.encode(texts)], labels)


def collate(sentences: Sentences, index: list[int]) -> Batch:
    rows = [torch.tensor(sentences.ids[i]) for i in index]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    return Batch(ids, mask, torch.tensor([sentences.labels[i] for i in index]), index)


def batches(sentences: Sentences, tokens: int, draw: random.Random | None = None):
    """Yields every sentence once, in batches of like length and at most `tokens` padded tokens.

    With `draw` the order is random: sentences are sorted inside large random pools only, so batches differ each epoch.
    """
    order = list(range(len(sentences)))
    pool = len(order)
    if draw:
        draw.shuffle(order)
        pool = 8192
    cuts = []
    for start in range(0, len(order), pool):
        chunk = sorted(order[start:start + pool], key=lambda i: len(sentences.ids[i]))
        batch: list[int] = []
        for i in chunk:
            if batch and len(sentences.ids[i]) * (len(batch) + 1) > tokens:
                cuts.append(batch)
                batch = []
            batch.append(i)
        cuts.append(batch)
    if draw:
        draw.shuffle(cuts)
    for index in cuts:
        yield collate(sentences, index)
