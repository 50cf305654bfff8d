"""Open an exported model with the installed transformers, and print what it computes as JSON.

`python open_model.py FOLDER TOKENS...`. Tests run it with two versions of transformers.
"""

import json
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

folder, ids = sys.argv[1], [int(word) for word in sys.argv[2:]]
model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
# For this type of model, transformers 5 reads any tokenizer as one of Qwen's: docs/training.md.
is_qwen2 = model.config.model_type == "qwen2"
tokenizer = (PreTrainedTokenizerFast if is_qwen2 else AutoTokenizer).from_pretrained(folder)
inputs = torch.tensor([ids])
with torch.no_grad():
    logits = model(inputs).logits
    generated = model.generate(inputs, do_sample=False, max_new_tokens=8)
print(
    json.dumps(
        {
            "version": transformers.__version__,
            "logits": logits.flatten().tolist(),
            "generated": generated[0].tolist(),
            "text": tokenizer.decode(generated[0]),
            "encoded": tokenizer(tokenizer.decode(ids), add_special_tokens=False)["input_ids"],
            "end": tokenizer.eos_token_id,
            "context": tokenizer.model_max_length,
            "dtype": str(model.dtype),
        }
    )
)
