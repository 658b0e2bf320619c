"""People give sticker replies their intention: the page, its files, agreement, export."""
