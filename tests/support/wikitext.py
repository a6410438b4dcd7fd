"""Text in WikiText's form."""

WIKITEXT = (
    " \n = Lobster = \n \n A lobster is big . It is <unk> . It <unk> . \n One sentence here .\n \n = = Diet = = \n"
)
"""A heading, two paragraphs, and the heading of a section without text."""
