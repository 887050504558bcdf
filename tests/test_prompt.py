"""Prompts: text around an observation text, plain or in the form of a chat, and what can't become one is refused."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from sb3_llm.errors import SetupError
from sb3_llm.prompt import CHAT_EXAMPLE, DEFAULT_TEMPLATE, ChatTemplate, Template, make_template
from sb3_llm.scoring import PromptTokenizer
from tests.chat import BLANK, CHAT_TEMPLATES, CHATML, DATED, LLAMA_2, NO_SYSTEM, instructed
from tests.tiny import PHRASES, byte_level_tokenizer, metaspace_tokenizer, unsplit_tokenizer

TOKENIZERS = {"bytes": byte_level_tokenizer, "metaspace": metaspace_tokenizer, "unsplit": unsplit_tokenizer}
USER = "You are in a maze.\n{observation}\nYour actions: {phrases}."
TURNS: dict[str, dict[str, str]] = {
    "user": {"user": USER},
    "system": {"system": "You play. You can {phrases}.", "user": USER},
    "assistant": {"user": USER, "assistant": "Of {phrases} I take:"},
    "all": {"system": "You play.", "user": "{observation}", "assistant": "I think.\n"},
}
RealTexts = dict[str, tuple[list[str], list[str]]]


def tokenizer_with(chat_template: str, make: Callable[..., Any] = byte_level_tokenizer) -> PreTrainedTokenizerFast:
    return instructed(make(bos=True), chat_template)


def by_transformers(
    tokenizer: PreTrainedTokenizerFast, turns: dict[str, str], phrases: list[str], observation_text: str
) -> str:
    """The same prompt with the chat template called on the full text, as anybody would."""
    texts = {name: text.replace("{phrases}", ", ".join(phrases)) for name, text in turns.items()}
    texts["user"] = texts["user"].replace("{observation}", observation_text)
    messages = [{"role": role, "content": texts[role]} for role in ("system", "user", "assistant") if role in texts]
    finished = "assistant" in turns
    return str(
        tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=not finished,
            continue_final_message=finished,
            enable_thinking=False,
        )
    )


# -- plain text --------------------------------------------------------------------------------------------------------


def test_template_puts_texts_in_their_places_unchanged() -> None:
    template = Template("{a} {phrases}: {observation}\nYou can {phrases}. {}", ["go {observation}", "wait"])
    text = "a {phrases} b {observation} c {0}\n"
    listed = "go {observation}, wait"
    assert template.prompt(text) == f"{{a}} {listed}: {text}\nYou can {listed}. {{}}"
    assert (template.separator, template.special_tokens) == (" ", True)


@pytest.mark.parametrize("ending", ["\n", "\n\n", ":", "{observation}"])
def test_a_plain_template_keeps_the_blank_before_a_phrase(ending: str) -> None:
    text = ending if "{" in ending else "{observation} " + ending
    assert Template(text, []).separator == " "


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Act:", "exactly once"),
        ("{observation} {observation}", "exactly once"),
        ("{Observation}", "exactly once"),
        (5, "a str with"),
        ("{observation}: ", "ends in a blank"),
        ("{observation}:\t", "ends in a blank"),
    ],
)
def test_template_refuses(text: Any, words: str) -> None:
    with pytest.raises(SetupError, match=words):
        Template(text, PHRASES)
    with pytest.raises(SetupError, match=words):
        make_template(text, PHRASES, byte_level_tokenizer())


def test_parts_are_the_prompt_taken_apart() -> None:
    template = Template("See:\n{observation}\nAction:", PHRASES)
    prompt = template.prompt("See:\nA wall.\nAction:")
    assert template.parts(prompt) == {
        "the template before the observation": "See:\n",
        "the observation text": "See:\nA wall.\nAction:",
        "the template after it": "\nAction:",
    }
    assert "".join(template.parts(prompt).values()) == prompt
    assert template.parts("A wall.\nAction:") == template.parts("See:\nA wall.") == {}
    assert Template("ab{observation}bc", []).parts("abc") == {}


def test_a_str_stays_plain_whatever_the_tokenizer(recwarn: pytest.WarningsRecorder) -> None:
    template = make_template(DEFAULT_TEMPLATE, PHRASES, tokenizer_with(CHATML))
    assert type(template) is Template
    assert template.prompt("A wall.") == "A wall.\nAction:"
    assert (template.separator, template.special_tokens) == (" ", True)
    assert not recwarn.list


# -- chats -------------------------------------------------------------------------------------------------------------


# A finished reply has no thought, a prompt an empty one: the oracle of started replies fails there.
ORACLES = [(chat, turns) for chat in ("chatml", "llama 2", "marks") for turns in TURNS]


@pytest.mark.parametrize(("chat", "turns"), [*ORACLES, ("chatml+thought", "user"), ("chatml+thought", "system")])
def test_chat_equals_the_chat_template_on_the_full_text(chat: str, turns: str, real_texts: RealTexts) -> None:
    tokenizer = tokenizer_with(CHAT_TEMPLATES[chat])
    for texts, phrases in real_texts.values():
        template = make_template(json.loads(json.dumps(TURNS[turns])), phrases, tokenizer)
        assert isinstance(template, ChatTemplate)
        for text in [*texts, "a {phrases} b {observation} c {0} {{ d }} {% e"]:
            prompt, expected = template.prompt(text), by_transformers(tokenizer, TURNS[turns], phrases, text)
            assert prompt == expected
            assert template.parts(prompt)["the observation text"] == text


@pytest.mark.parametrize(
    ("chat", "ending", "separator", "started"),
    [
        ("chatml", "<|im_end|>\n<|im_start|>assistant\n", "", "assistant\nAction:"),
        ("chatml+thought", "<think>\n\n</think>\n\n", "", "</think>\n\nAction:"),
        ("llama 2", "wait. [/INST]", " ", "[/INST] Action:"),
        ("marks", "<|im_end|><|im_start|>assistant<|im_sep|>", "", "<|im_sep|>Action:"),
        ("blank", "\nASSISTANT:", " ", "\nASSISTANT: Action:"),
    ],
)
def test_a_reply_starts_as_the_chat_template_writes_it(chat: str, ending: str, separator: str, started: str) -> None:
    tokenizer = tokenizer_with(CHAT_TEMPLATES[chat])
    template = ChatTemplate({"user": USER}, ["go", "wait"], tokenizer)
    assert template.prompt("A wall.").endswith(ending)
    assert template.separator == separator
    begun = ChatTemplate({"user": USER, "assistant": "Action:"}, ["go", "wait"], tokenizer)
    assert begun.prompt("A wall.").endswith(started)
    assert begun.separator == " "
    assert ChatTemplate({"user": USER, "assistant": "Action:\n"}, ["go", "wait"], tokenizer).separator == ""
    assert ChatTemplate({"user": USER, "assistant": ""}, ["go"], tokenizer).separator == separator


@pytest.mark.parametrize("chat", CHAT_TEMPLATES)
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_phrases_after_a_chat_are_the_joint_encoding(chat: str, kind: str, real_texts: RealTexts) -> None:
    """Verified on two prompts, true on all; and exactly the special tokens that the chat template writes."""
    tokenizer = tokenizer_with(CHAT_TEMPLATES[chat], TOKENIZERS[kind])
    for texts, phrases in real_texts.values():
        template = make_template(TURNS["user"], phrases, tokenizer)
        prompts = [template.prompt(text) for text in texts]
        tokens = PromptTokenizer(
            tokenizer, prompts[:2], template.separator, special_tokens=template.special_tokens, parts=template.parts
        )
        if kind == "unsplit" and chat == "blank":
            with pytest.raises(SetupError, match="spans the join"):
                tokens.continuations(phrases)
            return
        continuations = tokens.continuations(phrases)
        for prompt, row in zip(prompts, tokens.encode(prompts), strict=True):
            assert row.count(tokenizer.bos_token_id) == ("bos_token" in CHAT_TEMPLATES[chat])
            for text, ids in zip(continuations.texts, continuations.ids, strict=True):
                assert list(row + ids) == tokenizer(prompt + text, add_special_tokens=False)["input_ids"]


def test_the_bos_of_a_chat_is_not_doubled() -> None:
    tokenizer = tokenizer_with(LLAMA_2)
    template = make_template({"user": USER}, PHRASES, tokenizer)
    prompt = template.prompt("A wall.")
    ids = {
        each: PromptTokenizer(tokenizer, [prompt], special_tokens=each).encode([prompt])[0] for each in (True, False)
    }
    assert not template.special_tokens
    assert ids[template.special_tokens].count(tokenizer.bos_token_id) == 1
    assert ids[True].count(tokenizer.bos_token_id) == 2  # the mistake that special_tokens is there for
    whole = tokenizer.apply_chat_template(
        [
            {
                "role": "user",
                "content": USER.replace("{observation}", "A wall.").replace("{phrases}", ", ".join(PHRASES)),
            }
        ],
        add_generation_prompt=True,
        return_dict=False,
    )
    assert list(ids[False]) == whole


def test_the_prompt_holds_no_date() -> None:
    """A policy loaded tomorrow must read the prompts it was trained on."""
    template = ChatTemplate({"user": "{observation}"}, PHRASES, tokenizer_with(DATED))
    assert template.before == "26 Jul 2024\n<|im_start|>user\n"
    lower = ChatTemplate({"user": "{observation}"}, PHRASES, tokenizer_with("\n" + DATED.replace("{{-", "{{", 1)))
    assert lower.before == "\n" + template.before  # the newline is the chat template's own


def test_a_chat_template_that_writes_prompts_only() -> None:
    only = "{%- if not add_generation_prompt -%}{{- raise_exception('no reply') -}}{%- endif -%}"
    for chat_template, ending, separator in (
        (CHATML, "\n", ""),
        (BLANK, ":", " "),
        (CHATML[:-1] + "}{{'>>'}}", ">", " "),
    ):
        template = ChatTemplate({"user": USER}, PHRASES, tokenizer_with(only + chat_template))
        assert template.after.endswith(ending)
        assert template.separator == separator


@pytest.mark.parametrize(
    ("prompt_end", "reply", "separator"), [("<think>", "<other>\n", " "), ("", "<think>", " "), ("\n", "\n<think>", "")]
)
def test_a_reply_that_does_not_continue_the_prompt(prompt_end: str, reply: str, separator: str) -> None:
    """Then it does not show what stands between the two."""
    chat_template = (
        "{{- messages[0]['content'] + '[/INST]' -}}{%- if add_generation_prompt -%}{{- '" + prompt_end + "' -}}"
        "{%- else -%}{{- '" + reply + "' + messages[1]['content'] -}}{%- endif -%}"
    )
    template = ChatTemplate({"user": USER}, PHRASES, tokenizer_with(chat_template))
    assert template.after.endswith("[/INST]" + prompt_end)
    assert template.separator == separator


def test_a_policy_can_copy_its_template() -> None:
    template = ChatTemplate({"user": USER}, PHRASES, tokenizer_with(CHATML))
    assert copy.deepcopy(template).prompt("A wall.") == template.prompt("A wall.")


def test_the_example_in_the_errors_works() -> None:
    assert ChatTemplate(CHAT_EXAMPLE, PHRASES, tokenizer_with(CHATML)).prompt("A wall.").endswith("assistant\nAction:")


CHANGES = {
    "upper case": CHATML.replace("message['content']", "message['content'].upper()"),
    "lines": CHATML.replace("message['content']", "message['content'].replace('\n', ' ')"),
    "signs": CHATML.replace("message['content']", "(message['content'] | escape)"),
    "doubled": CHATML.replace("message['content']", "message['content'] + message['content']"),
    "dropped": "{{- '<|im_start|>assistant\n' -}}",
    "system dropped": CHATML.replace("in messages", "in messages if message['role'] != 'system'"),
}


@pytest.mark.parametrize(
    ("turns", "chat_template", "words"),
    [
        ({"user": USER}, None, ["without a chat template", "pass a str as template"]),
        ({"user": USER, "asistant": "A:"}, CHATML, ["key 'asistant'", "'system', 'user', 'assistant'"]),
        ({"system": "You play {observation}."}, CHATML, ['the key "user"', "write it like"]),
        ({}, CHATML, ['the key "user"']),
        ({"user": "Act!"}, CHATML, ["{observation} in its text exactly once"]),
        ({"user": "{observation} {observation}"}, CHATML, ["exactly once"]),
        ({"user": USER, "system": "{observation}"}, CHATML, ["exactly once, and in no other"]),
        ({"user": USER, "assistant": "{observation}"}, CHATML, ["exactly once, and in no other"]),
        ({"user": USER, "system": None}, CHATML, ["None as 'system'", "a str for each key"]),
        ({"user": ["{observation}"]}, CHATML, ["a str for each key"]),
        ({"user": USER, "assistant": "Action: "}, CHATML, ['the "assistant" text', "ends in a blank"]),
        (TURNS["system"], NO_SYSTEM, ["System role not supported", 'at the start of "user"']),
        ({"user": USER}, "{{ raise_exception('never') }}", ["never", "a str template"]),
        ({"user": USER}, "{% broken", ["TemplateSyntaxError", "a str template"]),
        ({"user": USER}, CHANGES["upper case"], ["drops, changes or doubles the 'user' text"]),
        ({"user": "{observation}"}, CHANGES["lines"], ["drops, changes or doubles the 'user' text"]),
        ({"user": USER}, CHANGES["signs"], ["drops, changes or doubles the 'user' text"]),
        ({"user": USER}, CHANGES["doubled"], ["drops, changes or doubles the 'user' text"]),
        ({"user": USER}, CHANGES["dropped"], ["drops, changes or doubles the 'user' text", "a str template"]),
        (TURNS["system"], CHANGES["system dropped"], ["the 'system' text", 'at the start of "user"']),
    ],
)
def test_chat_refuses(turns: Any, chat_template: Any, words: list[str]) -> None:
    with pytest.raises(SetupError) as caught:
        make_template(turns, PHRASES, tokenizer_with(chat_template))
    for each in [*words, "Expected: ", "To mend it: "]:
        assert each in str(caught.value)


def test_only_a_system_text_is_asked_to_move() -> None:
    template = ChatTemplate(TURNS["user"], PHRASES, tokenizer_with(NO_SYSTEM))
    assert template.prompt("A wall.").startswith("<s><|im_start|>user\n")
    assert ChatTemplate(TURNS["user"], PHRASES, tokenizer_with(CHANGES["system dropped"])).separator == ""
