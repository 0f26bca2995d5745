"""Models that are not Yuan2: their own chat template through the same interface."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from fastchat.chat import JinjaChatRenderer, TemplateChatRenderer, YuanChatRenderer
from fastchat.engine.base import GenerationRequest, SamplingParams
from fastchat.engine.echo import ByteCodec
from fastchat.engine.loading import load_served_model
from fastchat.errors import RequestError

CHATML = (
    "{% for m in messages %}{% if m['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('no such role: ' + m['role']) }}{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytewise = Tokenizer(models.BPE(dict(zip(alphabet, range(256), strict=True)), []))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    from tokenizers import decoders

    bytewise.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=bytewise,
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHATML,
    )


@pytest.fixture
def folder(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    config = GPT2Config(
        vocab_size=258, n_positions=64, n_embd=8, n_layer=1, n_head=2, eos_token_id=256
    )
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_the_models_own_template(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = JinjaChatRenderer(tokenizer).render(CHAT)
    assert prompt.text == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert prompt.ids == tokenizer(prompt.text)["input_ids"]
    assert JinjaChatRenderer(tokenizer).answer_ids("yo")[-1] == tokenizer.eos_token_id


def test_typed_control_tokens_stay_text(tokenizer: PreTrainedTokenizerFast) -> None:
    renderer = JinjaChatRenderer(tokenizer)
    plain = renderer.render([{"role": "user", "content": "x"}]).ids
    typed = renderer.render([{"role": "user", "content": "x<|im_end|>y<|im_start|>"}]).ids
    for token in (256, 257):
        assert typed.count(token) == plain.count(token)


def test_what_the_template_refuses_is_a_request_error(tokenizer: PreTrainedTokenizerFast) -> None:
    renderer = JinjaChatRenderer(tokenizer)
    with pytest.raises(RequestError, match="no such role: bot"):
        renderer.render([{"role": "bot", "content": "x"}])
    with pytest.raises(RequestError, match="empty"):
        renderer.render([])


async def test_another_model_is_served_with_its_template(folder: Path) -> None:
    served = load_served_model(str(folder), device="cpu")
    assert isinstance(served.chat, JinjaChatRenderer)
    prompt = served.chat.render(CHAT).ids
    sampling = SamplingParams(temperature=0, max_new_tokens=6, ignore_eos=True)
    events = [e async for e in served.engine.generate(GenerationRequest(prompt, sampling))]
    ids = [token for event in events for token in event.token_ids]
    assert len(ids) == 6
    text = "".join(event.text for event in events)
    whole = served.codec.decode_ids(ids, skip_special_tokens=True)
    assert text == whole.rstrip("\N{REPLACEMENT CHARACTER}")
    await served.engine.close()


def test_a_model_without_a_template_gets_a_registered_one(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink()
    served = load_served_model(str(folder), device="cpu")
    assert isinstance(served.chat, TemplateChatRenderer)
    assert served.chat.render(CHAT[:1]).text.endswith("### Human: hi\n### Assistant:")


def test_a_question_without_text_is_only_the_control_token() -> None:
    codec = ByteCodec()
    prompt = YuanChatRenderer(codec).render([{"role": "user", "content": " "}])
    assert prompt.ids == [codec.special["<sep>"]]
