"""Zips in memory."""

import io
import zipfile


def zipped(members):
    """Returns a zip of name -> content."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, inner in members.items():
            archive.writestr(name, inner)
    return content.getvalue()
