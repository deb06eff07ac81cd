"""Inputs as `sida classify --data` reads them: the same rows, and the same token ids."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

# Names of the columns; the second ones are MRPC's.
SINGLE, LABEL = {"sentence"}, {"label", "Quality"}
FIRST, SECOND = {"sentence1", "#1 String"}, {"sentence2", "#2 String"}


@dataclass
class Row:
    ids: list[int] | None = None
    texts: tuple[str, ...] = ()
    label: int | None = None


def column(names: list[str], words: set[str]) -> int | None:
    return next((i for i, name in enumerate(names) if name in words), None)


def read_tsv(lines: list[str]) -> list[Row]:
    names = lines[0].split("\t")
    single, first, second, label = (column(names, words) for words in (SINGLE, FIRST, SECOND, LABEL))
    texts = [single] if single is not None else [first, second]
    if None in texts:
        sys.exit("hf_switch: the header must name 'sentence', or 'sentence1' and 'sentence2', split by tabs")
    rows = []
    for line in lines[1:]:
        fields = line.split("\t")
        rows.append(Row(texts=tuple(fields[i] for i in texts), label=None if label is None else int(fields[label])))
    return rows


def read_jsonl(lines: list[str]) -> list[Row]:
    rows = []
    for line in lines:
        value = json.loads(line)
        if "passage" in value:  # MultiRC: one input per answer
            passage = value["passage"]
            for question in passage["questions"]:
                for answer in question["answers"]:
                    text = f"{question['question']} {answer['text']}"
                    rows.append(Row(texts=(text, passage["text"]), label=answer.get("label")))
        elif "ids" in value:
            rows.append(Row(ids=value["ids"], label=value.get("label")))
        elif "sentence" in value:
            rows.append(Row(texts=(value["sentence"],), label=value.get("label")))
        else:
            rows.append(Row(texts=(value["sentence1"], value["sentence2"]), label=value.get("label")))
    return rows


def read_rows(path: Path, limit: int | None) -> list[Row]:
    lines = [line.removesuffix("\r") for line in path.read_text(encoding="utf-8-sig").split("\n")]
    lines = [line for line in lines if line.strip()]
    if not lines:
        sys.exit(f"hf_switch: {path}: empty")
    rows = read_jsonl(lines) if lines[0].lstrip().startswith("{") else read_tsv(lines)
    return rows[:limit]


def tokenize(rows: list[Row], model: Path, eos: int) -> None:
    """Gives each row its ids. The end-of-sequence id follows each text of a pair."""
    if all(row.ids for row in rows):
        return
    try:
        import sentencepiece
    except ImportError:
        sys.exit("hf_switch: text needs the package sentencepiece; or give token ids, as lines {\"ids\": [...]}")
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model / "spiece.model"))
    for row in rows:
        row.ids = row.ids or [piece for text in row.texts for piece in [*processor.encode(text), eos]]
