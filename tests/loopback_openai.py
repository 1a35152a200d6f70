"""OpenAI's chat completions on this machine, as strict as OpenAI: blocking and streamed.

What OpenAI refuses is refused with the error bodies OpenAI sends. What is said comes from a
*rule*: a function of the request. Cached prompt tokens are reported as OpenAI does, in steps of
128 from 1,024, for the longest beginning that an earlier request had too. Tokens are counted
here, apart from the product.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import tiktoken

CACHE_STEP = 128
CACHE_MIN_TOKENS = 1_024
MESSAGE_OVERHEAD = 3
"""Tokens of each message besides its text; the reply is primed with as many."""
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_MARKED = re.compile(r"\[use (\w+)\(([^)]*)\)\]")


@dataclass(frozen=True)
class Reply:
    """What the model says: text, calls of tools (name and arguments), or both."""

    text: str = ""
    calls: tuple[tuple[str, dict], ...] = ()


@dataclass(frozen=True)
class Exchange:
    """A request that was let through, and what it cost."""

    body: dict
    prompt_tokens: int
    cached_tokens: int

    @property
    def messages(self):
        return self.body["messages"]

    @property
    def text(self):
        """All that the model was shown, as one text."""
        return "\n".join(text_of(message.get("content")) for message in self.messages)


Rule = Callable[[Exchange], Reply]


def text_of(content):
    """The text of a message's content."""
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content)
    return content or ""


def marked_tools(exchange):
    """Calls what the question marks, `[use name(text)]`, all at once; then says what came back.

    Only the last paragraph is read: what stands ahead of it may be recalled text.
    """
    last = exchange.messages[-1]
    if last["role"] != "user":
        results = [message for message in exchange.messages if message["role"] == "tool"]
        return Reply(f"Done: {text_of(results[-1]['content'])[:80]}")
    marks = _MARKED.findall(text_of(last["content"]).rpartition("\n\n")[2])
    if not marks:
        return Reply(f"You said: {text_of(last['content'])[-60:]}")
    return Reply(calls=tuple((name, {"query": text}) for name, text in marks))


def scripted(*replies):
    """Says one thing after the other, whatever it is asked."""
    left = iter(replies)
    return lambda _: next(left)


class RefusalError(Exception):
    """A request that is not answered, and the body of the error."""

    def __init__(self, message, *, param=None, code=None, status=HTTPStatus.BAD_REQUEST):
        super().__init__(message)
        self.status = status
        self.body = {
            "error": {
                "message": message,
                "type": "invalid_request_error",
                "param": param,
                "code": code,
            }
        }


@dataclass
class Fault:
    """What the next `times` requests are answered with, in place of an answer."""

    status: int
    body: dict
    times: int = 1


@dataclass
class Account:
    """Everything that was asked of the server."""

    exchanges: list[Exchange] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def cached_share(self):
        """Share of the prompts' tokens that came from the cache."""
        asked = sum(exchange.prompt_tokens for exchange in self.exchanges)
        return sum(exchange.cached_tokens for exchange in self.exchanges) / asked if asked else 0.0


class LoopbackOpenAI(ThreadingHTTPServer):
    """Use as a context manager; `url` is what `ChatOpenAI(base_url=…)` takes.

    Args:
        rule: What is said.
        window_tokens: The longest prompt that is taken.
        pieces: In how many pieces a streamed text comes.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, rule: Rule = marked_tools, *, window_tokens=128_000, pieces=4):
        super().__init__(("127.0.0.1", 0), Handler)
        self.rule = rule
        self.window_tokens = window_tokens
        self.pieces = pieces
        self.account = Account()
        self.faults: list[Fault] = []
        self.lock = threading.Lock()
        self.numbers = itertools.count(1)
        self._seen: set[bytes] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()
        self._thread.join()

    def admit(self, body):
        """The request and its cost.

        Raises:
            RefusalError: If OpenAI would not take it.
        """
        check_messages(body.get("messages"), body.get("tools") or ())
        tokens = prompt_tokens(body)
        if len(tokens) > self.window_tokens:
            raise RefusalError(
                f"This model's maximum context length is {self.window_tokens} tokens. However, "
                f"your messages resulted in {len(tokens)} tokens. Please reduce the length of "
                "the messages.",
                param="messages",
                code="context_length_exceeded",
            )
        exchange = Exchange(body, len(tokens), self._cached(tokens))
        self.account.exchanges.append(exchange)
        return exchange

    def _cached(self, tokens):
        """How many tokens some earlier request began with too; this one is remembered."""
        cached, digest = 0, hashlib.blake2b(digest_size=16)
        is_known = True
        for start in range(0, len(tokens) - CACHE_STEP + 1, CACHE_STEP):
            block = tokens[start : start + CACHE_STEP]
            digest.update(b"".join(token.to_bytes(4, "big", signed=True) for token in block))
            name = digest.digest()
            is_known = is_known and name in self._seen
            if is_known:
                cached = start + CACHE_STEP
            self._seen.add(name)
        return cached if cached >= CACHE_MIN_TOKENS else 0

    def next_fault(self):
        """The fault this request meets, if any."""
        for fault in self.faults:
            if fault.times > 0:
                fault.times -= 1
                return fault
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LoopbackOpenAI

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        try:
            self._check(body)
            with server.lock:
                fault = server.next_fault()
                if fault is not None:
                    self._answer(fault.status, fault.body)
                    return
                exchange = server.admit(body)
                reply = server.rule(exchange)
        except RefusalError as refusal:
            with server.lock:
                server.account.refused.append(str(refusal))
            self._answer(refusal.status, refusal.body)
            return
        whole = completion(exchange, reply, next(server.numbers))
        if not body.get("stream"):
            self._answer(HTTPStatus.OK, whole)
            return
        # A reader may leave in the middle of a stream.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._stream(whole, body)

    def _check(self, body):
        if self.path != "/v1/chat/completions":
            raise RefusalError(f"Invalid URL (POST {self.path})", status=HTTPStatus.NOT_FOUND)
        if not self.headers.get("Authorization", "").startswith("Bearer "):
            raise RefusalError("You didn't provide an API key.", status=HTTPStatus.UNAUTHORIZED)
        if not body.get("model"):
            raise RefusalError("you must provide a model parameter")

    def _answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, whole, body):
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        has_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        for chunk in chunks(whole, self.server.pieces, has_usage=has_usage):
            self._event(json.dumps(chunk))
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, data):
        event = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))


def check_messages(messages, tools):
    """Hold a request's messages to what OpenAI takes.

    Raises:
        RefusalError: For the first that it does not.
    """
    if not messages:
        raise RefusalError("[] is too short - 'messages'", param="messages")
    waiting: list[str] = []
    used: Counter[str] = Counter()
    for place, message in enumerate(messages):
        role = message.get("role")
        if role not in _ROLES:
            raise RefusalError(f"Invalid value: '{role}'.", param=f"messages[{place}].role")
        if role == "tool":
            _check_result(message, place, waiting)
            continue
        _check_answered(waiting, place)
        if role in {"system", "developer"} and place > 0:
            raise RefusalError(
                "Invalid value: 'system' messages must come first.", param=f"messages[{place}].role"
            )
        calls = message.get("tool_calls")
        if calls is not None:
            waiting = _called(calls, place, used, tools)
        elif not text_of(message.get("content")).strip() and not _has_media(message):
            raise RefusalError(
                f"Invalid value for 'content': expected a string that is not empty, got "
                f"{json.dumps(message.get('content'))}.",
                param=f"messages[{place}].content",
            )
    _check_answered(waiting, len(messages))


def _called(calls, place, used, tools):
    if not calls:
        raise RefusalError(
            "[] is too short - 'messages.tool_calls'", param=f"messages[{place}].tool_calls"
        )
    if not tools:
        raise RefusalError("'tool_calls' without 'tools' in the request.", param="tools")
    waiting = []
    for call in calls:
        call_id = call.get("id")
        if not call_id:
            raise RefusalError("Missing required parameter: 'id'.", param=f"messages[{place}]")
        used[call_id] += 1
        if used[call_id] > 1:
            raise RefusalError(
                f"Duplicate value for 'tool_call_id' of '{call_id}' in messages[{place}].",
                param=f"messages[{place}].tool_calls",
            )
        waiting.append(call_id)
    return waiting


def _check_result(message, place, waiting):
    call_id = message.get("tool_call_id")
    if call_id not in waiting:
        raise RefusalError(
            "Invalid parameter: messages with role 'tool' must be a response to a preceeding "
            "message with 'tool_calls'.",
            param=f"messages.[{place}].role",
        )
    if message.get("content") is None:
        raise RefusalError("Invalid value for 'content': got null.", param=f"messages[{place}]")
    waiting.remove(call_id)


def _check_answered(waiting, place):
    if waiting:
        raise RefusalError(
            "An assistant message with 'tool_calls' must be followed by tool messages responding "
            "to each 'tool_call_id'. The following tool_call_ids did not have response messages: "
            + ", ".join(waiting),
            param=f"messages.[{place}].role",
        )


def _has_media(message):
    content = message.get("content")
    return isinstance(content, list) and any(part.get("type") != "text" for part in content)


@lru_cache(maxsize=1)
def _encoding():
    return tiktoken.get_encoding("o200k_base")


@lru_cache(maxsize=65_536)
def _tokens(text):
    return tuple(_encoding().encode_ordinary(text))


def prompt_tokens(body):
    """The prompt as OpenAI's cache sees it: tools first, then message by message."""
    tokens = []
    for tool in body.get("tools") or ():
        tokens += _tokens(json.dumps(tool.get("function", tool), separators=(",", ":")))
    for message in body["messages"]:
        tokens += [-1] * MESSAGE_OVERHEAD
        tokens += _tokens(text_of(message.get("content")))
        for call in message.get("tool_calls") or ():
            function = call["function"]
            tokens += [-1] * MESSAGE_OVERHEAD
            tokens += _tokens(f"{function['name']} {function['arguments']}")
    return [*tokens, *([-1] * MESSAGE_OVERHEAD)]


def completion(exchange, reply, number):
    """The answer as one body."""
    message = {"role": "assistant", "content": reply.text or None, "refusal": None}
    if reply.calls:
        message["tool_calls"] = [
            {
                "id": f"call_{number}_{place}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(arguments)},
            }
            for place, (name, arguments) in enumerate(reply.calls)
        ]
    said = len(_tokens(reply.text)) + sum(
        len(_tokens(name + json.dumps(arguments))) for name, arguments in reply.calls
    )
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1_750_000_000,
        "model": exchange.body["model"],
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": "tool_calls" if reply.calls else "stop",
            }
        ],
        "usage": {
            "prompt_tokens": exchange.prompt_tokens,
            "completion_tokens": said,
            "total_tokens": exchange.prompt_tokens + said,
            "prompt_tokens_details": {"cached_tokens": exchange.cached_tokens, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
    }


def chunks(whole, pieces, *, has_usage):
    """The answer as OpenAI streams it: role, text or calls in pieces, the end, the usage."""
    choice = whole["choices"][0]
    message = choice["message"]
    yield _chunk(whole, {"role": "assistant", "content": "", "refusal": None})
    for piece in _split(message["content"] or "", pieces):
        yield _chunk(whole, {"content": piece})
    for place, call in enumerate(message.get("tool_calls") or ()):
        start = {"index": place, **call, "function": {**call["function"], "arguments": ""}}
        yield _chunk(whole, {"tool_calls": [start]})
        for piece in _split(call["function"]["arguments"], pieces):
            yield _chunk(
                whole, {"tool_calls": [{"index": place, "function": {"arguments": piece}}]}
            )
    yield _chunk(whole, {}, finish=choice["finish_reason"])
    if has_usage:
        yield {**_chunk(whole, {}), "choices": [], "usage": whole["usage"]}


def _chunk(whole, delta, *, finish=None):
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    head = {key: whole[key] for key in ("id", "created", "model")}
    return {**head, "object": "chat.completion.chunk", "choices": [choice]}


def _split(text, pieces):
    size = max(1, -(-len(text) // pieces))
    return [text[start : start + size] for start in range(0, len(text), size)]
