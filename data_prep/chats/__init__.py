"""Turns exported chats into a prepared directory, as the paper's section 3 builds its data set."""
