#!/usr/bin/env python3
"""Write the small fixtures of tests/goldens: random weights, and what other programs compute from them.

sida must give the outputs of the programs that people use today, down to which token an expert drops. Its tests
therefore compare against files that Hugging Face transformers and SentencePiece wrote, not against a second
implementation of our own reading of them.

    pip install torch transformers==5.24.0 safetensors sentencepiece
    python tools/make_goldens.py --out tests/goldens

The same machine gives the same bytes on every run. Another processor or torch version may differ in the last bits of
the floating-point outputs; the tests allow for that, and no routing in the files hangs on it (see MIN_MARGIN).
"""

import argparse
import io
import itertools
import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import sentencepiece
import torch
import transformers
from safetensors.torch import load_file, save
from transformers import (
    MixtralConfig,
    OlmoeConfig,
    SwitchTransformersConfig,
    SwitchTransformersEncoderModel,
    SwitchTransformersForConditionalGeneration,
)
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
from transformers.models.olmoe.modeling_olmoe import OlmoeSparseMoeBlock

# Older and newer releases drop tokens differently (before 5.0 a dropped token adds gate * x; 5.0.0 drops none).
TRANSFORMERS_VERSION = "5.24.0"

# Seeds are tried until no routing decision in a fixture is closer than this. A correct float32 program that sums in
# another order can then never choose another expert, so the tests may demand equal experts.
MIN_MARGIN = 1e-4
MAX_SHARE = 0.7  # nor may one expert get more of a layer's tokens than this

VOCAB = 64
EOS = 1


def write_safetensors(path, tensors, metadata=None):
    """Write tensors with a header whose bytes do not change: the safetensors package orders metadata at random."""
    blob = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata)
    size = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + size])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + blob[8 + size :])


# Switch encoder with a classification head


@dataclass(frozen=True)
class SwitchCase:
    """One checkpoint directory, the sequences run through it, and how its files depart from the usual form."""

    name: str
    covers: str
    config: dict
    batches: list  # lengths of the sequences of each batch: [[5, 9], [60]]
    num_labels: int = 3
    dtype: torch.dtype = torch.float32
    router_float32: bool = False  # keep the routers in float32 in a 16-bit file
    full: bool = False  # save encoder and decoder
    aliases: tuple = ()  # further names under which shared.weight is stored
    shard_size: str = "1GB"
    drop_keys: tuple = ()  # keys taken out of config.json
    rename_keys: dict = field(default_factory=dict)  # keys of config.json under an older name
    pad_as_token: bool = False  # put the pad id, 0, into the text of every sequence


def sizes(**changes):
    base = dict(d_model=16, d_ff=17, d_kv=4, num_heads=4, num_layers=2, num_decoder_layers=2, num_experts=4)
    return base | dict(encoder_sparse_step=2, expert_capacity=64, vocab_size=VOCAB) | changes


SWITCH_CASES = [
    SwitchCase("plain", "the shape of the published models: every second block sparse, ReLU, room for every token",
               sizes(d_model=20, d_kv=5, num_layers=4, num_experts=8), [[12, 7, 19], [1], [24, 24]]),
    SwitchCase("two_experts_tight", "odd sizes, heads x d_kv below d_model, every block sparse, GELU (erf)",
               sizes(d_model=17, d_ff=23, d_kv=5, num_heads=3, num_experts=2, encoder_sparse_step=1,
                     expert_capacity=4, dense_act_fn="gelu"), [[60, 3, 31], [9], [1, 58]]),
    SwitchCase("seventeen_experts", "expert_10 sorts before expert_2; odd sizes, heads x d_kv above d_model, step 3",
               sizes(d_model=18, d_ff=9, d_kv=7, num_heads=3, num_layers=5, num_experts=17, encoder_sparse_step=3,
                     expert_capacity=3), [[55, 20], [1, 8, 2], [40]], num_labels=2),
    SwitchCase("step_one", "every block sparse, one attention head, a single label",
               sizes(d_ff=11, d_kv=9, num_heads=1, num_layers=3, num_experts=8, encoder_sparse_step=1,
                     expert_capacity=5), [[33, 30, 1, 12], [17]], num_labels=1),
    SwitchCase("derived_step", "no encoder_sparse_step in config.json: 5 layers // 3 sparse layers is step 1, so 5 "
               "sparse blocks and not 3",
               sizes(d_ff=11, num_layers=5, num_experts=3, num_sparse_encoder_layers=3, expert_capacity=4),
               [[14, 26], [6]], drop_keys=("encoder_sparse_step",)),
    SwitchCase("derived_step_zero", "the same with num_sparse_encoder_layers 0: the step is num_layers, and so block 1 "
               "is sparse after all",
               sizes(d_ff=11, num_layers=3, num_sparse_encoder_layers=0, dense_act_fn="gelu"),
               [[14, 5]], drop_keys=("encoder_sparse_step",)),
    SwitchCase("buckets", "20 buckets up to distance 160, and longer sequences: the buckets of some distances are "
               "right only with a float32 logarithm",
               sizes(relative_attention_num_buckets=20, relative_attention_max_distance=160, expert_capacity=16),
               [[175, 101], [130]]),
    SwitchCase("epsilon", "layer_norm_epsilon 0.01 in place of 1e-6",
               sizes(d_model=20, num_experts=3, layer_norm_epsilon=1e-2), [[11, 4, 16]]),
    SwitchCase("pad_id_in_text", "id 0 as a real token, also last in a sequence: lengths alone tell padding from text",
               sizes(expert_capacity=5), [[13, 22, 6], [1, 2]], pad_as_token=True),
    SwitchCase("torch_dtype_key", "config.json with the older key torch_dtype in place of dtype",
               sizes(num_experts=3), [[9, 10]], rename_keys={"dtype": "torch_dtype"}),
    SwitchCase("full_model", "SwitchTransformersForConditionalGeneration: decoder weights beside the encoder's",
               sizes(num_experts=2, num_sparse_decoder_layers=1, expert_capacity=5), [[18, 8]], full=True),
    SwitchCase("full_model_aliased", "the same, one layer deep, and shared.weight stored under its tied names too",
               sizes(d_ff=13, num_experts=2, num_layers=1, num_decoder_layers=1, encoder_sparse_step=1,
                     num_sparse_decoder_layers=1), [[7, 15]], full=True,
               aliases=("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")),
    SwitchCase("sharded", "model.safetensors.index.json; an expert's wi and wo may lie in different files",
               sizes(num_layers=4, num_experts=5, expert_capacity=6), [[21, 34]], shard_size="11KB"),
    SwitchCase("bfloat16", "bfloat16 weights; the reference computes in float32 from the rounded weights",
               sizes(d_model=22, num_layers=4, expert_capacity=4), [[16, 23, 5]], dtype=torch.bfloat16),
    SwitchCase("float16_router_float32", "float16 weights but float32 routers, as transformers saves a 16-bit model "
               "that has run: a forward pass turns its routers to float32 for good",
               sizes(num_layers=3, encoder_sparse_step=1, dense_act_fn="gelu"), [[20, 3]],
               dtype=torch.float16, router_float32=True),
]


class ClassificationHead(torch.nn.Module):
    """Dense, tanh, projection over the mean of a sequence's last hidden states (real tokens only)."""

    def __init__(self, width, num_labels):
        super().__init__()
        self.dense = torch.nn.Linear(width, width)
        self.out_proj = torch.nn.Linear(width, num_labels)

    def forward(self, hidden):  # [tokens, d_model] of one sequence
        return self.out_proj(torch.tanh(self.dense(hidden.mean(0))))


def classifier_class(full):
    """The Hugging Face class with a head as one module more, so that save_pretrained writes both, sharded or not."""
    base = SwitchTransformersForConditionalGeneration if full else SwitchTransformersEncoderModel

    class Classifier(base):
        def __init__(self, config):
            super().__init__(config)
            self.classification_head = ClassificationHead(config.d_model, config.num_labels)

    Classifier.__name__ = base.__name__  # what config.json calls the architecture
    return Classifier


def randomise(model, seed):
    """Scale every weight so that it matters: spread router probabilities, uneven attention, activations near 1."""
    random = torch.Generator().manual_seed(seed)
    for name, weight in sorted(model.named_parameters()):
        values = torch.randn(weight.shape, generator=random)
        fan_in = weight.shape[-1]
        if name.endswith("layer_norm.weight"):
            values = 1 + 0.25 * values
        elif name.endswith("relative_attention_bias.weight"):
            values *= 0.7
        elif name.endswith(".bias"):
            values *= 0.3
        elif name.endswith(".q.weight"):
            values *= 1.5 * (fan_in * model.config.d_kv) ** -0.5
        elif name.endswith((".router.classifier.weight", ".wo.weight")):
            values *= 1.5 * fan_in**-0.5
        elif name != "shared.weight":
            values *= fan_in**-0.5
        weight.data.copy_(values)


def save_checkpoint(case, model, folder):
    """Save as transformers does, then make the changes that the case is about."""
    model.to(case.dtype)
    for name, module in model.named_modules():
        if case.router_float32 and name.endswith(".router.classifier"):
            module.float()
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, max_shard_size=case.shard_size)
    if case.aliases:
        tensors = load_file(folder / "model.safetensors")
        tensors |= {alias: tensors["shared.weight"].clone() for alias in case.aliases}
        write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["num_labels"] = case.num_labels
    config = {case.rename_keys.get(k, k): v for k, v in config.items() if k not in case.drop_keys}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def random_sequences(case, seed):
    """Token ids ending in end-of-sequence, as T5 tokenizers make them; ids of one batch per inner list."""
    random = torch.Generator().manual_seed(seed)
    batches = []
    for lengths in case.batches:
        batches.append([torch.randint(2, VOCAB, (length,), generator=random) for length in lengths])
        for i, sequence in enumerate(batches[-1]):
            sequence[-1] = EOS
            if case.pad_as_token:
                sequence[-1 if i == 0 else len(sequence) // 2] = 0
    return batches


def run_batch(model, sequences):
    """Run right-padded sequences together. Returns hidden, experts, kept and margin of the real tokens."""
    recorded = []  # what each router returned, in block order
    routers = [block.layer[-1].mlp.router for block in model.encoder.block if block.is_sparse]
    hooks = [r.register_forward_hook(lambda _module, _args, output: recorded.append(output)) for r in routers]
    ids = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
    mask = torch.tensor([[int(i < len(s)) for i in range(ids.shape[1])] for s in sequences])
    hidden = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    for hook in hooks:
        hook.remove()
    real = mask.bool()
    top = [logits.softmax(-1).topk(2) for _, _, logits in recorded]
    return {
        "hidden": hidden[real],  # [tokens, d_model]
        "experts": torch.stack([t.indices[..., 0][real] for t in top], -1).int(),  # [tokens, moe_layers]
        "kept": torch.stack([one_hot.sum(-1)[real] for one_hot, _, _ in recorded], -1).to(torch.uint8),
        "margin": torch.stack([(t.values[..., 0] - t.values[..., 1])[real] for t in top], -1),
    }


def concatenate(runs):
    return {key: torch.cat([run[key] for run in runs]) for key in runs[0]}


SWITCH_HEADING = [
    "| name | E | sparse blocks | capacity | dropped | largest share | least margin | what it covers |",
    "|---|---|---|---|---|---|---|---|",
]


def make_switch(case, first_seed, folder):
    """Write one checkpoint and its golden.safetensors. Returns the case's row of the README."""
    cls = classifier_class(case.full)
    for seed in itertools.count(first_seed):
        config = {key: value for key, value in case.config.items() if key not in case.drop_keys}
        model = cls(SwitchTransformersConfig(**config, num_labels=case.num_labels))
        randomise(model, seed)
        save_checkpoint(case, model, folder)
        # The reference reads the very files that are committed, so what they say is what it computed.
        model, problems = cls.from_pretrained(
            folder, dtype=torch.float32, num_labels=case.num_labels, output_loading_info=True)
        assert not any(problems.values()), (case.name, problems)
        batches = random_sequences(case, seed)
        golden = concatenate([run_batch(model, batch) for batch in batches])
        shares = [torch.bincount(experts).max() / len(experts) for experts in golden["experts"].T]
        if golden["margin"].min() >= MIN_MARGIN and max(shares) < MAX_SHARE:
            break
    sequences = [sequence for batch in batches for sequence in batch]
    alone = concatenate([run_batch(model, [sequence]) for sequence in sequences])
    assert torch.equal(alone["experts"], golden["experts"]) and torch.equal(alone["kept"], golden["kept"]), case.name
    error = (alone["hidden"] - golden["hidden"]).abs().max() / golden["hidden"].abs().max()
    assert error <= 1e-6, (case.name, error)

    lengths = [len(s) for s in sequences]
    golden["logits"] = torch.stack([model.classification_head(h) for h in golden["hidden"].split(lengths)])
    golden["ids"] = torch.cat(sequences).int()
    golden["lengths"] = torch.tensor(lengths, dtype=torch.int32)
    golden["batches"] = torch.tensor([len(batch) for batch in batches], dtype=torch.int32)
    write_safetensors(folder / "golden.safetensors", golden)

    sparse = [str(i) for i, block in enumerate(model.encoder.block) if block.is_sparse]
    dropped = f"{(golden['kept'] == 0).sum()} of {golden['kept'].numel()}"
    return (f"| `{case.name}` | {case.config['num_experts']} | {', '.join(sparse)} | {case.config['expert_capacity']} "
            f"| {dropped} | {max(shares):.0%} | {golden['margin'].min():.1e} | {case.covers} |")


# One MoE layer of a decoder model

# name: block class, config class, experts, top-k, renormalised (None: the class knows no other way), hidden, inter
LAYER_CASES = {
    "mixtral_top2": (MixtralSparseMoeBlock, MixtralConfig, 8, 2, None, 24, 33),
    "olmoe_top8": (OlmoeSparseMoeBlock, OlmoeConfig, 64, 8, False, 13, 11),
    "olmoe_top8_renormalised": (OlmoeSparseMoeBlock, OlmoeConfig, 16, 8, True, 24, 21),
    "olmoe_top2": (OlmoeSparseMoeBlock, OlmoeConfig, 8, 2, False, 24, 20),
}
LAYER_HEADING = [
    "| name | class | E | top-k | renormalised | hidden | inter | least margin |",
    "|---|---|---|---|---|---|---|---|",
]


def make_layer(name, first_seed, path):
    """Write one block's weights under per-expert names, its input, routing and output. Returns its README row."""
    block_class, config_class, experts, top_k, renormalise, hidden, inter = LAYER_CASES[name]
    options = {} if renormalise is None else {"norm_topk_prob": renormalise}
    count = "num_local_experts" if config_class is MixtralConfig else "num_experts"
    config = config_class(hidden_size=hidden, intermediate_size=inter, num_experts_per_tok=top_k,
                          num_attention_heads=1, num_key_value_heads=1, **{count: experts}, **options)
    config._experts_implementation = "eager"
    block = block_class(config).eval()
    for seed in itertools.count(first_seed):
        random = torch.Generator().manual_seed(seed)
        for _, weight in sorted(block.named_parameters()):
            weight.data.copy_(torch.randn(weight.shape, generator=random) * 1.5 * weight.shape[-1] ** -0.5)
        x = torch.randn(33, hidden, generator=random)
        logits, weights, indices = block.gate(x)
        ranked = logits.softmax(-1).topk(top_k + 1).values  # the order of the k matters too, hence every gap
        margin = (ranked[:, :-1] - ranked[:, 1:]).min().item()
        if margin >= MIN_MARGIN / 10:  # 64 experts leave many small gaps
            break
    tensors = {"x": x, "router.weight": block.gate.weight, "y": block(x[None])[0]}
    for e in range(experts):
        gate, up = block.experts.gate_up_proj[e].chunk(2)  # stacked: rows of gate, then rows of up
        tensors |= {f"experts.{e}.w1.weight": gate, f"experts.{e}.w2.weight": block.experts.down_proj[e],
                    f"experts.{e}.w3.weight": up}
    tensors |= {"experts": indices.int(), "weights": weights}
    renormalised = renormalise in (None, True)
    write_safetensors(path, tensors, {"top_k": str(top_k), "renormalise": str(renormalised).lower(),
                                      "source": f"{block_class.__name__}, transformers {transformers.__version__}"})
    return (f"| `{name}` | `{block_class.__name__}` | {experts} | {top_k} | {'yes' if renormalised else 'no'} "
            f"| {hidden} | {inter} | {margin:.1e} |")


# SentencePiece

SENTENCES = """
The router looks at every token and chooses one expert for it. An expert is a small network that lives on the slow disk.
When the router asks for it, the reader loads its weights into a slot of the cache. The cache holds three experts, and
the model has twelve. If the next token needs another expert, somebody has to leave. The one who will not be needed for
the longest time should leave first. Nobody knows the future, but a plan may guess it. A good guess saves time; a wrong
guess costs time and nothing else. We measure what was loaded, and we write it down. On Monday the café opens at 7 and
closes at 19. My neighbour Zoë bought 12 apples, 30 pears and 1 melon. She paid 45 francs, which is more than she wanted
to pay (86 would be silly). The train to Zürich leaves at noon. It was raining, so the children stayed inside and read
books about the sea. Why does the old engine make that noise? Because it is old! The señor with the green hat waited for
two hours; then he walked home. Reading is slower than thinking, and writing is slower than reading. Can you hear the
rain on the roof? A naïve reader believes everything - a careful reader asks questions. Joe quickly mixed five jugs of
water. Keep the words short, keep the tests shorter, and keep the numbers honest. The weights of layer 7 were loaded
twice, the weights of layer 8 only once. "Is that everything?" she asked. It isn't. There were letters from Quebec and
Vienna, from Kyoto, Lima and Oslo. He wanted bread, butter, cheese and a little honey. The winter was long and the river
was frozen until March. In spring the boats came back, and the fishermen with them. Under the bridge lives a heron that
nobody has ever seen eating. You can't load what isn't there. Use the budget that you were given: no more, no less.
"""

TEXTS = [
    "", " ", "   ", "the", "The router loads the weights of layer 7.", " the cache", "the cache ", "  the   cache  ",
    "two  spaces", "tab\tand\nnewline\r\nhere", "UPPER CASE and 0123456789", "the_cache/loads.what?", "!!!???...",
    "café naïve Zoë señor über", "cafe\u0301 nai\u0308ve", "ﬁne ﬂow ½ Ⅳ ㎏ ™ ①", "ＦＵＬＬ　ｗｉｄｔｈ",
    "a\u00a0b\u2003c\u3000d", "zero\u200bwidth\u200djoin\ufeffmark soft\u00adhyphen", "\u2581the\u2581cache",
    "Ελληνικά русский עברית العربية", "日本語の文章 한국어", "smile 😀 family 👨‍👩‍👧‍👦 flag 🇨🇭", "😀", "😀😀 😀", "e😀e",
    "</s>", "<pad> <unk> <extra_id_0>", "nul\u0000byte bell\u0007", "\u0000", "“quotes” ‘single’ — dash … dots",
    "ǅ Å ﷺ \U0001d54f", "x" * 300, "\u0301", "line\u2028separator", "the weights " * 200, SENTENCES,
]


def make_tokenizer(folder):
    """Train a tiny unigram model with T5's special ids and write texts with their ids, end-of-sequence appended."""
    folder.mkdir(parents=True, exist_ok=True)
    sentences = re.split(r"(?<=[.?!]) ", SENTENCES.strip().replace("\n", " "))
    blob = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=blob, model_type="unigram", vocab_size=200, pad_id=0,
        eos_id=EOS, unk_id=2, bos_id=-1, character_coverage=1.0, num_threads=1, minloglevel=2)
    (folder / "tiny.model").write_bytes(blob.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=blob.getvalue())
    cases = [{"text": text, "ids": processor.encode(text) + [EOS]} for text in TEXTS]
    (folder / "cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases))


def write_readme(path, tables):
    """Copy the README beside the fixtures in the repository, with its tables replaced by what this run measured."""
    text = (Path(__file__).resolve().parent.parent / "tests/goldens/README.md").read_text()
    for name, rows in tables.items():
        begin, end = f"<!-- {name}: written by tools/make_goldens.py -->\n", f"<!-- end of {name} -->\n"
        head, rest = text.split(begin)
        text = head + begin + "\n".join(rows) + "\n" + end + rest.split(end)[1]
    path.write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write, usually tests/goldens")
    out = parser.parse_args().out
    if transformers.__version__ != TRANSFORMERS_VERSION:
        parser.error(f"needs transformers {TRANSFORMERS_VERSION}, found {transformers.__version__}")
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)  # the order of summation must not depend on the machine's cores
    transformers.utils.logging.disable_progress_bar()

    (out / "layer").mkdir(parents=True, exist_ok=True)
    switch = [make_switch(c, 1000 * i, out / "switch" / c.name) for i, c in enumerate(SWITCH_CASES)]
    layers = [make_layer(name, 1000 * i, out / "layer" / f"{name}.safetensors") for i, name in enumerate(LAYER_CASES)]
    make_tokenizer(out / "tokenizer")
    write_readme(out / "README.md", {"switch": SWITCH_HEADING + switch, "layer": LAYER_HEADING + layers})


if __name__ == "__main__":
    main()
