"""The items that a response is made of: its own input, and what it continues."""

from collections import Counter
from collections.abc import Callable, Sequence

from quarterdeck import ids
from quarterdeck.errors import BadRequestError, NotFoundError, ServiceUnavailableError
from quarterdeck.resources.responses.input_files import ReadsFiles
from quarterdeck.resources.responses.items import Item, is_id, read_items
from quarterdeck.resources.responses.requests import ResponseRequest
from quarterdeck.resources.responses.sealed import MAX_BYTES, Sealed
from quarterdeck.store.conversations import ConversationStore, no_such_conversation
from quarterdeck.store.ownership import Owner
from quarterdeck.store.responses import ResponseStore, no_such_previous_response

ENCRYPTED_REASONING = "reasoning.encrypted_content"


class History:
    """Every method raises APIError."""

    def __init__(
        self, store: ResponseStore, conversations: ConversationStore, files: ReadsFiles, sealed: Sealed
    ) -> None:
        self._files = files
        self._store = store
        self._conversations = conversations
        self._sealed = sealed

    async def items(self, request: ResponseRequest, owner: Owner) -> list[Item]:
        """The request's own items, with those that it refers to."""
        items = read_items(request.input, ids.object_id)
        references = [item["id"] for item in items if item["type"] == "item_reference" and is_id(item["id"])]
        if any(item["type"] == "item_reference" for item in items):
            if len(set(references)) < len(references):  # as OpenAI: a stored item of any size is named in a few bytes
                again = next(id for id, count in Counter(references).items() if count > 1)
                raise BadRequestError(
                    f"Duplicate item found with id '{again}'. Remove duplicate items from your input and try again.",
                    param="input",
                    code="duplicate_item",
                )
            found = await self._store.items(references, owner)
            for index, item in enumerate(items):
                if item["type"] != "item_reference":
                    continue
                if item["id"] not in found:
                    raise NotFoundError(f"Item with id '{item['id'][:100]}' not found.", param=f"input[{index}].id")
                items[index] = found[item["id"]]
        return items

    async def full(self, context: Sequence[Item], items: Sequence[Item], owner: Owner) -> list[Item]:
        """Context and items as a model reads them: with what was compacted, and the contents of the files
        that they name."""
        continued, own = await self.opened(context, owner.org), await self.opened(items, owner.org)
        return await self._files.read(continued, own, owner)

    async def context(self, request: ResponseRequest, owner: Owner) -> list[Item]:
        """The items that it continues."""
        if (previous := request.previous_response_id) is not None:
            if not is_id(previous):
                raise no_such_previous_response(previous)
            return await self._store.context(previous, owner)
        if (conversation := request.conversation_id) is not None:
            if not is_id(conversation):
                raise no_such_conversation(conversation)
            return await self._conversations.items(conversation, owner)
        return []

    async def reasoning_sealer(self, request: ResponseRequest, org: str) -> Callable[[str], str] | None:
        """What makes the `encrypted_content` of reasoning, where the request includes it and nothing is stored. None
        as well where the platform's secret can't be read: the response is made without it."""
        if request.store is not False or ENCRYPTED_REASONING not in (request.include or ()):
            return None
        try:
            return await self._sealed.reasoning_sealer(org)
        except ServiceUnavailableError:
            return None

    async def opened(self, items: Sequence[Item], org: str) -> list[Item]:
        """Items with what was compacted in place of each compaction, and with the reasoning that was encrypted here."""
        made: list[Item] = []
        left = MAX_BYTES
        for index, item in enumerate(items):
            if item["type"] == "compaction":
                found, size = await self._sealed.open(org, item["encrypted_content"], f"input[{index}]", most=left)
                made += found
                left -= size
            elif item["type"] == "reasoning" and item.get("encrypted_content") and not item["content"]:
                text = await self._reasoning(org, item["encrypted_content"], f"input[{index}]", left)
                made.append({**item, "content": [{"type": "reasoning_text", "text": text}] if text else []})
                left -= len(text)
            else:
                made.append(item)
        return made

    async def _reasoning(self, org: str, content: str, where: str, most: int) -> str:
        """Empty: it can't be read here. The model does without."""
        try:
            return await self._sealed.open_reasoning(org, content, where, most=most) or ""
        except ServiceUnavailableError:
            return ""


def reads_what_is_stored(request: ResponseRequest) -> bool:
    """Whether a request continues something, or names stored items or files. Pure."""
    if request.previous_response_id is not None or request.conversation is not None:
        return True
    return isinstance(request.input, list) and any(_is_reference(item) for item in request.input)


def _is_reference(item: Item) -> bool:
    """As `read_items` will find it, whatever is wrong with it."""
    if item.get("type") == "item_reference" or not item.keys() & {"role", "type"}:
        return True
    parts = (item.get("content"), item.get("output"))
    return any(
        isinstance(part, dict) and part.get("file_id") is not None
        for found in parts
        if isinstance(found, list)
        for part in found
    )
