#!/usr/bin/env python3
"""Makes `examples/reference`: tokenizer, Switch classifier, hash function and their cards, from SST-2.

Stages read what earlier stages wrote to --out, so each can be run again alone:

    tokenizer  spiece.model
    train      config.json, model.safetensors
    distil     predictor.safetensors
    report     README.md, predictor.md; fails when a figure is under its bar
"""

import argparse
import sys
from pathlib import Path

import torch
import transformers

from reference import data
from reference.distillation import DistilOptions, distil
from reference.evaluation import layer_use, predict, predicted_mode_accuracy, route, table_hit_rates
from reference.hash_function import load_hash_function
from reference.model import load_classifier, sparse_blocks
from reference.report import Figures, bars, model_card, predictor_card
from reference.training import TrainOptions, train

VOCABULARY = 6000
SPELLING_SEED = 0


class Workshop:
    """Paths, options and the splits that the stages share."""

    def __init__(self, arguments: argparse.Namespace):
        self.data, self.out = arguments.data, arguments.out
        self.train_options = TrainOptions(seed=arguments.seed)
        self.distil_options = DistilOptions(seed=arguments.seed)
        if arguments.epochs:
            self.train_options.epochs = arguments.epochs
        if arguments.distil_epochs:
            self.distil_options.epochs = arguments.distil_epochs
        self.train_texts, self.train_labels = data.read_tsv(self.data / "train.tsv")
        self.train_texts = data.both_spellings(self.train_texts, SPELLING_SEED)
        self.dev_texts, self.dev_labels = data.read_tsv(self.data / "dev.tsv")

    @property
    def tokenizer(self):
        return data.load_tokenizer(self.out / "spiece.model")

    def train_set(self) -> data.Sentences:
        return data.encode(self.tokenizer, self.train_texts, self.train_labels)

    def dev_set(self) -> data.Sentences:
        return data.encode(self.tokenizer, self.dev_texts, self.dev_labels)


def stage_tokenizer(shop: Workshop) -> None:
    data.train_tokenizer(shop.train_texts, shop.out / "spiece.model", VOCABULARY)


def stage_train(shop: Workshop) -> None:
    train(shop.train_set(), shop.dev_set(), VOCABULARY, shop.train_options, shop.out)


def stage_distil(shop: Workshop) -> None:
    model = load_classifier(shop.out)
    distil(model, shop.train_set(), shop.dev_set(), shop.distil_options, shop.out / "predictor.safetensors")


def stage_report(shop: Workshop) -> None:
    model, predictor = load_classifier(shop.out), load_hash_function(shop.out / "predictor.safetensors")
    train_set, dev_set, tokenizer = shop.train_set(), shop.dev_set(), shop.tokenizer
    reviews = data.encode(tokenizer, *data.read_tsv(shop.out / "reviews.tsv"))
    joined = data.encode(tokenizer, [data.join_punctuation(text) for text in shop.dev_texts], shop.dev_labels)
    on_train, on_dev, on_reviews = route(model, train_set), route(model, dev_set), route(model, reviews)
    figures = Figures(
        experts=model.config.num_experts, blocks=sparse_blocks(model.config), accuracy=on_dev.accuracy,
        accuracy_joined=route(model, joined).accuracy, accuracy_reviews=on_reviews.accuracy, reviews=len(reviews),
        accuracy_predicted=predicted_mode_accuracy(predictor, model, dev_set), use=layer_use(on_dev),
        predictor=predict(predictor, model, dev_set, on_dev), table=table_hit_rates(on_train, on_dev, VOCABULARY),
        reviews_predictor=predict(predictor, model, reviews, on_reviews), tokens=len(on_dev.ids))
    (shop.out / "README.md").write_text(model_card(figures, shop.train_options, shop.train_options.seed))
    (shop.out / "predictor.md").write_text(predictor_card(figures, shop.distil_options, shop.distil_options.seed))
    failed = 0
    for name, value, least in bars(figures):
        failed += value < least
        print(f"{'ok  ' if value >= least else 'FAIL'}  {name}: {value:.3f} (at least {least:.2f})")
    if failed:
        sys.exit(f"{failed} figures are under their bars")


STAGES = {"tokenizer": stage_tokenizer, "train": stage_train, "distil": stage_distil, "report": stage_report}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", nargs="?", default="all", choices=[*STAGES, "all"])
    parser.add_argument("--data", type=Path, required=True, help="folder with SST-2 as train.tsv and dev.tsv")
    parser.add_argument("--out", type=Path, required=True, help="folder of the reference model; reviews.tsv is read there")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=float, help="of training, instead of the usual number; 0.1 is a quick trial")
    parser.add_argument("--distil-epochs", type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    arguments.out.mkdir(parents=True, exist_ok=True)
    shop = Workshop(arguments)
    for name, run in STAGES.items():
        if arguments.stage in (name, "all"):
            print(f"stage {name}", flush=True)
            run(shop)


if __name__ == "__main__":
    main()
