"""Writes tiny models of random numbers: what they say means nothing, and a real server loads them in an instant.

    tiny.py FOLDER NAME…
"""

import sys
from pathlib import Path

import gguf
import numpy as np

WIDTH, LAYERS, HEADS, FORWARD, CONTEXT = 64, 2, 4, 128, 2048
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def vocabulary():
    """Each byte is a token, and some letters are, so that most answers can be read."""
    special = [("<unk>", gguf.TokenType.UNKNOWN), ("<s>", gguf.TokenType.CONTROL), ("</s>", gguf.TokenType.CONTROL)]
    marks = [("<|im_start|>", gguf.TokenType.CONTROL), ("<|im_end|>", gguf.TokenType.CONTROL)]
    parts = [(f"<0x{byte:02X}>", gguf.TokenType.BYTE) for byte in range(256)]
    words = [(f"▁{word}", gguf.TokenType.NORMAL) for word in "the a to of and in is it you that he was for on are as with".split()]
    return special + marks + parts + words


def write(path, seed):
    tokens = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(path.stem)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([token.encode() for token, _ in tokens])
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(4)
    writer.add_unk_token_id(0)
    writer.add_chat_template(CHATML)

    random = np.random.default_rng(seed)

    def tensor(name, *shape):
        writer.add_tensor(name, (random.standard_normal(shape) * 0.05).astype(np.float32))

    def ones(name, size):
        writer.add_tensor(name, np.ones(size, dtype=np.float32))

    tensor("token_embd.weight", len(tokens), WIDTH)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        ones(f"{block}.attn_norm.weight", WIDTH)
        for part in ["attn_q", "attn_k", "attn_v", "attn_output"]:
            tensor(f"{block}.{part}.weight", WIDTH, WIDTH)
        ones(f"{block}.ffn_norm.weight", WIDTH)
        tensor(f"{block}.ffn_gate.weight", FORWARD, WIDTH)
        tensor(f"{block}.ffn_up.weight", FORWARD, WIDTH)
        tensor(f"{block}.ffn_down.weight", WIDTH, FORWARD)
    ones("output_norm.weight", WIDTH)
    tensor("output.weight", len(tokens), WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


for seed, name in enumerate(sys.argv[2:]):
    write(Path(sys.argv[1]) / f"{name}.gguf", seed)
