"""Published formats of sticker dialogues, each read into conversations and stickers."""
