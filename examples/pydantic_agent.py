"""An agent of Pydantic AI: its model, its instructions and its tools, served by Edwin.

pip install 'edwin-gateway[pydantic-ai]' 'pydantic-ai-slim[openai]'
OPENAI_API_KEY=… edwin gateway --config examples/pydantic_agent.yaml
"""

from __future__ import annotations

import os

from pydantic_ai import Agent, RunContext
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from edwin.agents import AgentContext

# Made once: of a model that is only named, each run makes connections of its own.
model = OpenAIChatModel(
    "gpt-4.1-mini",
    provider=OpenAIProvider(
        base_url=os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1"),
        api_key=os.environ.get("OPENAI_API_KEY", "none"),
    ),
)
librarian = Agent(
    model,
    deps_type=AgentContext,
    instructions="You are a librarian. Say only what the catalogue says.",
)

CATALOGUE = {"Emma": "shelf 3", "Faust": "shelf 7"}


@librarian.tool
def find_book(run: RunContext[AgentContext], title: str) -> str:
    """Say where a book stands.

    Args:
        run: What Edwin knows of the run, as run.deps.
        title: The book's title.

    """
    place = CATALOGUE.get(title, "not in this library")
    return f"{title}: {place} (asked by {run.deps.principal_id})"
