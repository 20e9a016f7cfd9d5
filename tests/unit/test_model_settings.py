"""Settings of model servers: names that people bring along, and how much of a prompt a model may get."""

import pytest

from infra import settings as settings_module
from infra.settings_reference import reference
from streams.prompt import DEFAULT_BUDGET_TOKENS, budget_of, build_messages
from tests.unit.answers import a_passage

FALL_BACKS = {
    "OLLAMA_LLM_URL": "ollama_url",
    "OLLAMA_HOST": "ollama_url",
    "OLLAMA_EMBED_URL": "ollama_embed_url",
    "OLLAMA_LLM_MODEL": "ollama_model",
    "REDIS_URL": "redis_url",
}


@pytest.mark.parametrize(("variable", "field"), FALL_BACKS.items())
def test_variables_of_other_systems_are_read_where_ours_is_not_set(
    variable: str, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in FALL_BACKS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "theirs")
    assert getattr(settings_module.load(), field) == "theirs"
    monkeypatch.setenv(f"LEAT_{field.upper()}", "ours")
    assert getattr(settings_module.load(), field) == "ours"
    assert f"`{variable}`" in reference()


def test_a_model_that_holds_little_gets_a_shorter_prompt() -> None:
    passages = [a_passage(number, text="One more sentence about brokers. " * 60) for number in range(1, 6)]
    sizes = [
        sum(len(message["content"]) for message in build_messages("What?", passages, budget_tokens=budget_of(context)))
        for context in (1024, 2048, 8192)
    ]
    assert sizes == sorted(set(sizes))
    # Three characters a token is already dense for English: prompt and answer fit what the model holds.
    assert sizes[1] / 3 + 512 < 2048
    assert budget_of(131_072) == DEFAULT_BUDGET_TOKENS
