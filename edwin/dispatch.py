"""The one way in: allow, route, key, lane.

HTTP, WebSocket and ``edwin agent`` come through :func:`submit`, so that permissions,
routing, sessions and limits are the same for all of them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from edwin.audit import Source
from edwin.auth import allow, within
from edwin.config import Config
from edwin.errors import InvalidRequest, RateLimited
from edwin.executor import AgentExecutor
from edwin.ids import new_id
from edwin.quotas import DAY_S, Ticket
from edwin.routing import resolve
from edwin.runs.run import Run
from edwin.sessions.keys import agent_of_key, checked_key
from edwin.tokens import text_tokens, total_tokens
from edwin.types import (
    Agent,
    ChatRequest,
    IdempotencyKey,
    Principal,
    RunRequest,
    SessionId,
)

if TYPE_CHECKING:
    from edwin.gateway import Gateway

_LENGTHS = ("max_completion_tokens", "max_tokens")


async def submit(
    gateway: Gateway,
    request: ChatRequest,
    principal: Principal,
    *,
    config: Config | None = None,
    executor: AgentExecutor | None = None,
) -> Run:
    """Return the run that carries out *request* for *principal*.

    The run is waiting or under way; it is cancelled when its last reader leaves, unless
    it is detached.  With an idempotency key it may be the run of an earlier request.

    Args:
        gateway: Carries it out.
        request: What is asked for.
        principal: Who asks.
        config: The configuration that the request began with; None: today's.
        executor: That configuration's; None: today's.

    Raises:
        Forbidden: If the principal may not run the agent.
        InvalidRequest: If the request cannot be routed.
        IdempotencyKeyReused: If its key was used with another request.
        SessionQueueFull: If too many runs wait in the session.
        Overloaded: If too many runs wait in the gateway.
        RateLimited: If the principal has used what it may.
        StorageUnavailable: If it could not be kept.
        GatewayStopping: If the gateway is shutting down.

    """
    config = config or gateway.config
    agent = resolve(
        config.agents,
        model=request.model,
        header=request.agent,
        key_agent=agent_of_key(request.session_key) if request.session_key else None,
        key_param=request.session_key_param,
    )
    allow(principal, "runs:create", agent)
    agent = within(principal, agent)
    if request.image_links:
        _check_links(config, agent, request.image_links)
    from_user = config.gateway.http.endpoints.chat_completions.session_from_user
    if agent.session_from_user is not None:
        from_user = agent.session_from_user
    key = await _session_key(gateway, request, agent, principal, from_user=from_user)
    wanted = RunRequest(
        run_id=new_id("run"),
        agent=agent,
        principal=principal,
        session=SessionId(
            principal.id, agent.id, key or gateway.registry.fresh_key(agent.id)
        ),
        stateful=key is not None,
        messages=request.messages,
        params=effective_params(agent, request),
        retry_count=request.retry_count,
        request_id=request.request_id,
        log_fields=request.log_fields,
        trace=request.trace,
        idempotency=_idempotency(request, agent, key),
        detached=request.detached,
        timeout_s=request.timeout_s,
        executor=executor or gateway.executor,
    )
    return await _held(gateway, wanted)


async def _held(gateway: Gateway, wanted: RunRequest) -> Run:
    """Return the run of *wanted*, which holds what it needs until it ends.

    That is its configuration's executor, and its part of what its principal may use.
    What is not handed to a run of its own is given back.
    """
    with ExitStack() as given_back:
        wanted.executor.hold()
        given_back.callback(wanted.executor.release)
        ticket = None
        if wanted.principal.limits:
            ticket = await _ticket(gateway, wanted)
            given_back.callback(ticket.settle, 0)
        run = await gateway.engine.submit(wanted)
        if run.id == wanted.run_id:
            given_back.pop_all()
            run.at_end(partial(_ended, ticket))
        # Else it is an earlier request's, which has paid for it.
    return run


def _ended(ticket: Ticket | None, run: Run) -> None:
    """Give back what *run* held."""
    run.request.executor.release()
    if ticket is not None:
        ticket.settle(run.usage.total_tokens)


async def _ticket(gateway: Gateway, request: RunRequest) -> Ticket:
    """Return the run's place among what its principal may use.

    Raises:
        RateLimited: If there is none.
        StorageUnavailable: If nobody knows what was used today.

    """
    principal, quotas = request.principal, gateway.quotas
    now = time.time()
    if principal.limits.tokens_per_day is not None and not quotas.knows(principal, now):
        used = await gateway.store.tokens_since(principal.id, now - now % DAY_S)
        quotas.begin_day(principal, now, used)
    tokens = total_tokens(request.messages) + text_tokens(request.agent.instructions)
    try:
        return quotas.take(principal, now, tokens)
    except RateLimited as error:
        source = Source(principal.id, None, request.request_id)
        gateway.audit.count("limit.hit", source, limit=error.type)
        raise


def _idempotency(
    request: ChatRequest, agent: Agent, key: str | None
) -> IdempotencyKey | None:
    """Return the client's name for the call, with all that makes it this call."""
    if request.idempotency_key is None:
        return None
    rest = f"\0{agent.id}\0{key or ''}".encode()
    fingerprint = hashlib.sha256(request.fingerprint + rest).digest()
    return IdempotencyKey(request.idempotency_key, fingerprint)


def _check_links(config: Config, agent: Agent, links: Sequence[str]) -> None:
    """Refuse image links unless whoever may answer is allowed to follow them.

    A model server on the gateway's machine would fetch them from inside its network.
    """
    if agent.python:
        # It is the user's own code that sees them.
        return
    for model in (agent.model, *agent.fallbacks):
        name = model.partition("/")[0]
        if not config.providers[name].remote_images:
            raise InvalidRequest(
                "Invalid image: this agent's provider may not fetch images; send a "
                "data: URL, or set remoteImages: true for the provider",
                param=links[0],
                code="invalid_image_url",
            )


async def _session_key(
    gateway: Gateway,
    request: ChatRequest,
    agent: Agent,
    principal: Principal,
    *,
    from_user: bool,
) -> str | None:
    """Return the session's key, or None for a request without one."""
    if request.session_key is not None:
        return checked_key(request.session_key, param=request.session_key_param)
    if from_user and request.user and request.user.strip():
        key = gateway.registry.key_for(
            request.user, agent=agent.id, principal=principal.id
        )
        await gateway.registry.adopt(
            SessionId(principal.id, agent.id, key), request.user
        )
        return key
    return None


def effective_params(agent: Agent, request: ChatRequest) -> Mapping[str, Any]:
    """Return the provider's fields: the agent's under the request's, within its caps.

    A length limit of the request replaces one of the agent's, whichever of the two
    names each uses.
    """
    params = dict(agent.params)
    if any(name in request.params for name in _LENGTHS):
        for name in _LENGTHS:
            params.pop(name, None)
    params.update(request.params)
    for name in agent.passthrough & request.extra.keys():
        params[name] = request.extra[name]
    cap = agent.caps.max_output_tokens
    if cap is not None:
        given = [name for name in _LENGTHS if name in params]
        for name in given or _LENGTHS[:1]:
            params[name] = min(cap, params.get(name, cap))
    return params
