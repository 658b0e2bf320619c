"""Offline preparation of data sets; heavy dependencies live here."""
