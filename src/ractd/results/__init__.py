"""Results: tables for people, as Markdown and as CSV, what seeds say together, methods side by side."""
