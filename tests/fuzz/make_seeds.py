#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets to corpus/. Run from anywhere; the output is the same every time."""
import json
import pathlib
import struct

CORPUS = pathlib.Path(__file__).parent / "corpus"


def put(target, name, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def packed(layers, tensors, d_model=4, d_ff=8, kind=0, dtype=0, config=b"{}", tokenizer=b"tok"):
    """The first 256 bytes of the header, then what follows its page: what fuzz_packed takes."""
    size = 4 if dtype == 0 else 2
    matrix = d_model * d_ff * size
    step = (matrix + 63) // 64 * 64
    record = (step if kind == 2 else 0) + step + matrix
    page = lambda n: (n + 4095) // 4096 * 4096
    chunks = lambda n: (n + (1 << 20) - 1) >> 20
    index_bytes = 8 + 4 * len(layers) + 8 * sum(layers)
    for name, word, shape, n in tensors:
        index_bytes += 12 + len(name) + len(word) + 8 * len(shape) + 16 + 8 * chunks(n)
    config_at = 4096 + index_bytes
    tokenizer_at = config_at + len(config)
    end = tokenizer_at + len(tokenizer)
    index = struct.pack("<II", len(layers), len(tensors)) + struct.pack(f"<{len(layers)}I", *layers)
    index += bytes(8 * sum(layers))
    for name, word, shape, n in tensors:
        at = page(end)
        index += struct.pack("<III", len(name), len(word), len(shape)) + name + word
        index += struct.pack(f"<{len(shape)}q", *shape) + struct.pack("<QQ", at, n) + bytes(8 * chunks(n))
        end = at + n
    experts_at = page(end)
    total = experts_at + sum(layers) * page(record)
    header = b"\x89SIDA\r\n\x1a" + struct.pack("<II", 1, 0)
    header += struct.pack("<QQQ", total, index_bytes, 0)
    header += struct.pack("<QQQ", config_at, len(config), 0) + struct.pack("<QQQ", tokenizer_at, len(tokenizer), 0)
    header += struct.pack("<QQQIIQQQ", experts_at, page(record), record, kind, dtype, d_model, d_ff, 1 << 20)
    return header.ljust(256, b"\0") + index


two = {"__metadata__": {"format": "pt"}, "a": tensor("F32", [1, 2], 0, 8), "b": tensor("BF16", [2], 8, 12)}
put("safetensors_header", "two", safetensors(two, bytes(12)))
put("safetensors_header", "empty", safetensors({}))
put("safetensors_header", "scalar_and_none",
    safetensors({"s": tensor("U8", [], 0, 1), "z": tensor("I64", [0, 3], 1, 1)}, b"x"))
put("safetensors_header", "packed_types",
    safetensors({"f4": tensor("F4", [4], 0, 2), "f6": tensor("F6_E2M3", [4], 2, 5)}, bytes(5)))
put("safetensors_header", "gap", safetensors({"a": tensor("U8", [1], 1, 2)}, b"xy"))
put("safetensors_header", "overflow", safetensors({"a": tensor("F64", [1 << 62, 1 << 62], 0, 8)}, bytes(8)))
put("safetensors_header", "twice", safetensors(b'{"a":1,"a":2}'))
put("safetensors_header", "long", struct.pack("<Q", 1 << 63) + b"{}")
put("safetensors_header", "padded", safetensors(json.dumps(two).encode() + b"   ", bytes(12)))

put("json", "config", json.dumps({"d_model": 768, "d_ff": 3072, "tie": True, "eps": 1e-6, "act": "relu",
                                  "none": None, "big": 1 << 64, "neg": -1, "list": [1, [2, {"x": []}]]}).encode())
put("json", "index", json.dumps({"metadata": {"total_size": 1}, "weight_map": {"a": "m-1.safetensors"}}).encode())
put("json", "escapes", rb'{"\u0061\n": "\ud83d\ude00\\", "b": -0, "c": 1e400}')
put("json", "deep", b'{"a":' + b"[" * 20 + b"]" * 20 + b"}")
put("json", "twice", b'{"a":{"b":1,"b":2}}')
put("json", "array", b"[1,2.5,-3]")
put("json", "nul", b"{}\0{")
put("json", "utf8", '{"é": "\U0001f600"}'.encode())

put("packed", "plain", packed([2, 3], [(b"a", b"F32", [2, 2], 16), (b"b", b"BF16", [3], 6)]))
put("packed", "swiglu", packed([1], [], kind=2, dtype=2))
put("packed", "no_experts", packed([], [(b"a", b"U8", [0], 0)]))
put("packed", "chunks", packed([1], [(b"big", b"U8", [3 << 20], 3 << 20)], config=b"", tokenizer=b""))
put("packed", "bad_magic", packed([1], [])[1:])
put("packed", "cut", packed([2, 3], [(b"a", b"F32", [2, 2], 16)])[:-9])

put("dataset", "tsv", b"sentence\tlabel\na film \t1\n\t0\n")
put("dataset", "pair", b"\xef\xbb\xbfQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t5\t6\ta \" b\tc\r\n")
put("dataset", "blank", b"\nsentence\na\n\nb\n")
put("dataset", "ids", b'{"ids": [0, 5, 2147483647], "label": 3}\n{"ids": [1]}\n')
put("dataset", "bad_ids", b'{"ids": [1]}\n{"ids": [1, -2.5]}\n')
put("dataset", "texts", b'{"sentence": "a"}\n{"sentence1": "a", "sentence2": "b", "label": 0}')
put("dataset", "multirc", json.dumps({"idx": 0, "passage": {"text": "P", "questions": [
    {"question": "Why?", "answers": [{"text": "No", "label": 0}, {"text": "Yes", "label": 1}]},
    {"question": "None?", "answers": []}]}}).encode())


def npy(dictionary, data, version=1):
    text = dictionary + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + data


put("npy", "u8", npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2), }", b"abcd"))
put("npy", "f32", npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", b"abcd", 2))
put("npy", "scalar", npy(b"{'descr': '<i4', 'fortran_order': False, 'shape': (), }", b"abcd", 3))
put("npy", "empty", npy(b"{'descr': '<u2', 'fortran_order': False, 'shape': (0, 7), }", b""))
put("npy", "overflow", npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }", b""))
put("npy", "fortran", npy(b"{'descr': '|u1', 'fortran_order': True, 'shape': (1,), }", b"x"))
put("npy", "long", b"\x93NUMPY\x01\x00\xff\xff{}")

switch = {"model_type": "switch_transformers", "vocab_size": 64, "d_model": 16, "d_kv": 4, "d_ff": 32, "num_heads": 4,
          "num_layers": 4, "num_experts": 8, "expert_capacity": 64, "relative_attention_num_buckets": 32,
          "relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-6, "dense_act_fn": "relu",
          "pad_token_id": 0, "eos_token_id": 1, "num_labels": 2}


def switch_config(name, **more):
    put("switch_config", name, json.dumps(switch | more).encode())


switch_config("plain", encoder_sparse_step=2, dtype="float32", router_dtype="float32", router_bias=False,
              is_gated_act=False, num_selected_experts=1)
switch_config("derived_step", num_sparse_encoder_layers=2)
switch_config("no_sparse_layers", num_sparse_encoder_layers=0)
switch_config("nested", id2label={"0": "no", "1": "yes", "2": "both"}, num_labels=None,
              task_specific_params={"a": {"b": [{"c": [[], {}]}]}})
put("switch_config", "deep", b'{"model_type":' + b"[" * 20 + b"]" * 20 + b"}")
switch_config("negative", d_model=-16, num_layers=-1)
switch_config("negative_ids", pad_token_id=-1, eos_token_id=-2)
switch_config("huge", d_model=1 << 63, vocab_size=10 ** 30)
switch_config("huge_product", d_kv=1 << 20, num_heads=1 << 12)
switch_config("epsilons", layer_norm_epsilon=1e-60)
switch_config("nulls", pad_token_id=None, eos_token_id=None, dtype=None, num_labels=None)
switch_config("older_words", feed_forward_proj="gelu", dense_act_fn="gelu", torch_dtype="bfloat16")
switch_config("gated", feed_forward_proj="gated-gelu")
switch_config("ids_outside", vocab_size=2, eos_token_id=2)
put("switch_config", "missing_keys", b'{"model_type": "switch_transformers"}')
put("switch_config", "no_type", b"{}")
put("switch_config", "other_type", b'{"model_type": "t5", "d_model": 1.5}')


def safetensors_index(name, weight_map, **more):
    put("safetensors_index", name, json.dumps({"metadata": {"total_size": 8}, "weight_map": weight_map} | more).encode())


safetensors_index("plain", {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"})
safetensors_index("empty", {})
safetensors_index("outside", {"a": "../model.safetensors"})
safetensors_index("folder", {"a": "x/model.safetensors"})
safetensors_index("number", {"a": 1})
safetensors_index("list", ["a"])
put("safetensors_index", "twice", b'{"weight_map": {"a": "b"}, "weight_map": {"a": "c"}}')
put("safetensors_index", "deep", b'{"weight_map":' + b"[" * 20 + b"]" * 20 + b"}")
put("safetensors_index", "none", b'{"metadata": {}}')


def predictor(name, hidden=1, d_model=2, experts=3, blocks=(1, 3), dtype="F32", left_out=(), weight=0.25, **extra):
    """The hash function's tensors in one safetensors file, all of one value."""
    shapes = {"compression_fc.weight": [hidden, d_model], "compression_fc.bias": [hidden],
              "residual_fc.weight": [hidden, hidden], "residual_fc.bias": [hidden]}
    for layer in ("l0", "l1"):
        for part in ("ih", "hh"):
            shapes[f"lstm.weight_{part}_{layer}"] = [4 * hidden, hidden]
            shapes[f"lstm.bias_{part}_{layer}"] = [4 * hidden]
    for block in blocks:
        shapes[f"fc.{block}.weight"] = [experts, hidden]
        shapes[f"fc.{block}.bias"] = [experts]
    shapes |= extra
    header, data = {}, b""
    for key, shape in shapes.items():
        if key in left_out:
            continue
        count = 1
        for extent in shape:
            count *= extent
        value = struct.pack("<f", weight) if dtype == "F32" else struct.pack("<f", weight)[2:]
        header[key] = tensor(dtype, shape, len(data), len(data) + len(value) * count)
        data += value * count
    put("predictor", name, safetensors(header, data))


predictor("plain")
predictor("bf16", dtype="BF16")
predictor("nan", weight=float("nan"))
predictor("large", weight=3e38)
predictor("no_head", blocks=())
predictor("other_heads", **{"fc.01.weight": [3, 1], "fc.x.weight": [3, 1], "fc..weight": [1, 1]})
predictor("unequal_heads", **{"fc.3.weight": [2, 1]})
predictor("no_experts", experts=0)
predictor("no_bias", left_out=("lstm.bias_hh_l1",))
predictor("vector", **{"compression_fc.weight": [2]})
predictor("last_block", blocks=(4294967295, 4294967296))
