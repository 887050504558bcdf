"""Chat templates as instruction-tuned models have them, for the tiny tokenizers."""

from transformers import PreTrainedTokenizerFast

#: Qwen's kind: marks around each turn, no BOS, an empty thought in front of the reply if thinking is off.
CHATML = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}"
    "{%- if enable_thinking is defined and enable_thinking is true -%}{{- '<think>\n' -}}{%- endif -%}"
    "{%- endif -%}"
)
#: Qwen3's: an empty thought ends the prompt, and stands in no finished reply.
CHATML_THOUGHT = CHATML.replace(
    "<think>\n' -}}{%- endif -%}",
    "<think>\n' -}}{%- else -%}{{- '<think>\n\n</think>\n\n' -}}{%- endif -%}",
)
#: Llama 2's kind: a BOS in the text, the system text inside the first user turn, blanks cut off.
LLAMA_2 = (
    "{%- if messages[0]['role'] == 'system' -%}"
    "{%- set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' -%}{%- set turns = messages[1:] -%}"
    "{%- else -%}{%- set system = '' -%}{%- set turns = messages -%}{%- endif -%}"
    "{%- for message in turns -%}"
    "{%- if message['role'] == 'user' -%}"
    "{{- bos_token + '[INST] ' + (system if loop.first else '') + message['content'].strip() + ' [/INST]' -}}"
    "{%- else -%}{{- ' ' + message['content'].strip() + ' ' + eos_token -}}{%- endif -%}"
    "{%- endfor -%}"
)
#: Phi 4's kind: a mark and no white space in front of the reply.
MARKS = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '<|im_sep|>' + message['content'] + '<|im_end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant<|im_sep|>' -}}{%- endif -%}"
)
#: Vicuna's kind, with a blank at the end of the prompt.
BLANK = (
    "{{- bos_token -}}{%- for message in messages -%}"
    "{{- message['role'].upper() + ': ' + message['content'] + '\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- 'ASSISTANT: ' -}}{%- endif -%}"
)
#: Gemma's kind: no system turn.
NO_SYSTEM = (
    "{{- bos_token -}}{%- if messages[0]['role'] == 'system' -%}"
    "{{- raise_exception('System role not supported') -}}{%- endif -%}" + CHATML
)
#: Llama 3.2's and others': today's date.
DATED = "{{- strftime_now('%d %b %Y') + '\n' -}}" + CHATML

CHAT_TEMPLATES = {
    "chatml": CHATML,
    "chatml+thought": CHATML_THOUGHT,
    "llama 2": LLAMA_2,
    "marks": MARKS,
    "blank": BLANK,
    "no system": NO_SYSTEM,
    "dated": DATED,
}
MARK_TOKENS = ["<|im_start|>", "<|im_end|>", "<|im_sep|>", "<think>", "</think>", "[INST]", "[/INST]"]


def instructed(tokenizer: PreTrainedTokenizerFast, chat_template: str) -> PreTrainedTokenizerFast:
    """The tokenizer as that of an instruction-tuned model."""
    tokenizer.add_special_tokens({"additional_special_tokens": MARK_TOKENS})
    tokenizer.chat_template = chat_template
    return tokenizer
