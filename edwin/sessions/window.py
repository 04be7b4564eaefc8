"""Cut a context to what the model can read, and make it fit to be sent; pure."""

from __future__ import annotations

from collections.abc import Sequence, Set

from edwin.sessions.canonical import call_ids
from edwin.tokens import estimate_tokens
from edwin.types import Entry, Message


def cut(
    history: Sequence[Entry],
    messages: Sequence[Message],
    *,
    max_messages: int,
    max_tokens: int,
) -> tuple[Message, ...]:
    """Return the end of *history* that fits, in whole turns; the oldest go first.

    A turn begins where a user speaks.  The turns from the one that holds a call
    answered by *messages* on always stay.

    Args:
        history: What the context takes from the transcript.
        messages: The request's own messages, which follow it.
        max_messages: Messages of *history* to keep at most.
        max_tokens: Estimated tokens of *history* to keep at most.

    """
    floor = _first_needed(history, messages)
    keep, tokens = len(history), 0
    for place in range(len(history) - 1, -1, -1):
        tokens += estimate_tokens(history[place].message)
        if place < floor and (
            len(history) - place > max_messages or tokens > max_tokens
        ):
            break
        if _begins_turn(history, place):
            keep = place
    return tuple(entry.message for entry in history[keep:])


def _begins_turn(history: Sequence[Entry], place: int) -> bool:
    if place == 0:
        return True
    return (
        history[place].message["role"] == "user"
        and history[place - 1].message["role"] != "user"
    )


def _first_needed(history: Sequence[Entry], messages: Sequence[Message]) -> int:
    """Return where the turn begins whose calls *messages* answer, else the end."""
    needed = {m["tool_call_id"] for m in messages if m["role"] == "tool"}
    if not needed:
        return len(history)
    first = len(history)
    for place in range(len(history) - 1, -1, -1):
        # Ids are not unique for ever: an answer belongs to the latest call.
        found = call_ids([history[place].message]) & needed
        if found:
            first, needed = place, needed - found
        if not needed:
            break
    while first < len(history) and not _begins_turn(history, first):
        first -= 1
    return first


def sendable(messages: Sequence[Message]) -> Sequence[Message]:
    """Return *messages* so that a provider takes them: no tool call unanswered.

    Every tool message stands right after the call it answers, in the order of the
    calls.  A call that nobody
    answers is dropped and the text beside it kept; so is a tool message whose call
    is no longer there, or that a later one replaces, and an assistant message that
    says nothing.
    """
    if _are_plain(messages):
        return messages
    asked: dict[str, int] = {}
    answers: dict[int, dict[str, Message]] = {}
    for place, message in enumerate(messages):
        if message["role"] == "tool":
            # Of two answers to one call the later one counts.
            if (call := asked.get(message["tool_call_id"])) is not None:
                answers.setdefault(call, {})[message["tool_call_id"]] = message
        else:
            # Ids are not unique for ever: an answer belongs to the latest call.
            asked.update(dict.fromkeys(call_ids([message]), place))
    result: list[Message] = []
    for place, message in enumerate(messages):
        if message["role"] == "tool":
            continue
        found = answers.get(place, {})
        kept = _with_calls(message, found.keys())
        if kept is not None:
            result.append(kept)
            calls = kept.get("tool_calls") or ()
            result.extend(found[call["id"]] for call in calls)
    return result


def _are_plain(messages: Sequence[Message]) -> bool:
    """Return whether *messages* can be sent as they are; hundreds are usual."""
    for message in messages:
        role = message["role"]
        if role == "assistant":
            if message.get("tool_calls") or not _says(message):
                return False
        elif role == "tool":
            return False
    return True


def _says(message: Message) -> bool:
    return bool(message.get("content") or message.get("refusal"))


def _with_calls(message: Message, answered: Set[str]) -> Message | None:
    """Return *message* with its *answered* calls; None if then nothing is left."""
    calls = message.get("tool_calls")
    if not calls:
        empty = message["role"] == "assistant" and not _says(message)
        return None if empty else message
    if all(call["id"] in answered for call in calls):
        return message
    kept = message.copy()
    kept["tool_calls"] = [call for call in calls if call["id"] in answered]
    if not kept["tool_calls"]:
        del kept["tool_calls"]
        if not _says(kept):
            return None
    return kept
