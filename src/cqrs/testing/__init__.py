"""Parts for tests of applications, and of implementations of this library's protocols."""
