"""Data files that ship with hwrnn, each with a page on its origin and licence beside it."""
