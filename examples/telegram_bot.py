"""A bot that answers in a Telegram chat with a sticker, by the service of this project.

    pip install 'python-telegram-bot>=22,<23'
    make serve                                          # in another terminal
    TELEGRAM_TOKEN=... python examples/telegram_bot.py  # the token that @BotFather gave

/sticker sends a sticker that suits the conversation; beside that the bot sends one by itself, at
most after every tenth message. It remembers the last messages of a chat while it runs and stores
nothing. For group chats switch its privacy mode off at @BotFather, else it sees commands alone.
"""

import logging
import os
from collections import deque
from dataclasses import dataclass, field

import httpx
from telegram import Message, Update
from telegram.ext import (
    Application,
    ApplicationBuilder,
    CommandHandler,
    ContextTypes,
    MessageHandler,
    filters,
)

SERVICE = "http://127.0.0.1:8080"
PAUSE = 10  # messages between two stickers that nobody asked for
SURE = 0.5  # probability of the likeliest intention from which on the bot speaks unasked
LIKELY = 0.3  # likewise, of a sticker at all, where the run has a model of that (docs/serving.md)


@dataclass
class Chat:
    """What the bot remembers of one chat.

    Attributes:
      turns: the last messages.
      sent: ids of the last stickers, the newest first.
      silent: messages since the last sticker.
    """

    turns: deque[dict[str, str]] = field(default_factory=lambda: deque(maxlen=20))
    sent: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    silent: int = 0


class Bot:
    """Answers with stickers.

    Args:
      service: a client of the service.
    """

    def __init__(self, service: httpx.AsyncClient) -> None:
        self._service = service
        self._chats: dict[int, Chat] = {}

    async def hear(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Remembers a message, and answers with a sticker where one fits well."""
        message = update.effective_message
        if message is None or not message.text:
            return
        chat = self._chats.setdefault(message.chat_id, Chat())
        speaker = message.from_user.first_name if message.from_user else "somebody"
        chat.turns.append({"speaker": speaker[:100], "text": message.text[:4_000]})
        chat.silent += 1
        if chat.silent >= PAUSE:
            await self._answer(message, chat, unasked=True)

    async def asked(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Answers /sticker."""
        message = update.effective_message
        if message is None:
            return
        chat = self._chats.setdefault(message.chat_id, Chat())
        if not chat.turns:
            await message.reply_text("Say something first.")
        elif not await self._answer(message, chat):
            await message.reply_text("No sticker now; try again later.")

    async def _answer(self, message: Message, chat: Chat, unasked: bool = False) -> bool:
        """Sends the best sticker; tells whether one was sent."""
        question = {
            "turns": list(chat.turns),
            "reply_speaker": "the bot",
            "recent": list(chat.sent),
            "top_k": 1,
        }
        try:
            answer = await self._service.post("/v1/reply", json=question)
            answer.raise_for_status()
            found = answer.json()
            likeliest = max(found["intention_probabilities"].values(), default=1.0)
            whether = 1.0 if found["whether"] is None else found["whether"]
            unsure = likeliest < SURE or whether < LIKELY
            if not found["stickers"] or (unasked and unsure):
                return False
            sticker = found["stickers"][0]["sticker"]
            picture = await self._service.get(sticker["picture"])
            picture.raise_for_status()
        except httpx.HTTPError as error:
            logging.warning("the service does not answer: %s", type(error).__name__)
            return False
        moves = picture.headers["content-type"] == "image/gif"
        send = message.reply_animation if moves else message.reply_photo
        await send(picture.content)
        chat.sent.appendleft(sticker["id"])
        chat.silent = 0
        return True


def listen(builder: ApplicationBuilder, bot: Bot) -> Application:
    """Returns an application that hands messages to the bot."""
    application = builder.build()
    application.add_handler(CommandHandler("sticker", bot.asked))
    application.add_handler(MessageHandler(filters.TEXT & ~filters.COMMAND, bot.hear))
    return application


if __name__ == "__main__":
    client = httpx.AsyncClient(base_url=SERVICE, timeout=10)
    listen(Application.builder().token(os.environ["TELEGRAM_TOKEN"]), Bot(client)).run_polling()
