"""One side of `engine.py vllm`: vLLM on a random Llama, in a process and environment of its own.

    PYTHON engine_vllm.py FOLDER THREADS

On standard input come JSON lines {"prompts": [[ids]], "new": tokens}; on standard output goes
the number of seconds that each took. What vLLM prints goes to standard error. At the top
nothing is imported that the other environment lacks.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

SIDES = {  # hidden size, layers, heads: as in engine_machine.py
    "vocab_size": 135040,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}


def main() -> None:
    """Answers until there is nothing more to read."""
    folder, threads = Path(sys.argv[1]), sys.argv[2]
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "passive",  # it must not spin while the other side runs
        "VLLM_CPU_KVCACHE_SPACE": "4",
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{int(threads) - 1}",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_TARGET_DEVICE": "cpu",
    }
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    folder.mkdir(parents=True, exist_ok=True)
    description = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **SIDES}
    (folder / "config.json").write_text(json.dumps(description))

    from vllm import LLM, SamplingParams

    model = LLM(
        str(folder),
        skip_tokenizer_init=True,
        load_format="dummy",
        dtype="bfloat16",
        max_model_len=1024,
        max_num_seqs=64,
        enable_prefix_caching=False,
    )
    for line in sys.stdin:
        asked = json.loads(line)
        params = SamplingParams(
            temperature=0.0, max_tokens=asked["new"], ignore_eos=True, detokenize=False
        )
        start = time.perf_counter()
        model.generate(
            [{"prompt_token_ids": ids} for ids in asked["prompts"]], params, use_tqdm=False
        )
        replies.write(f"{time.perf_counter() - start}\n")
        replies.flush()


if __name__ == "__main__":
    main()
