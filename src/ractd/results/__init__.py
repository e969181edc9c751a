"""Tables of results: for people, as Markdown and as CSV."""
